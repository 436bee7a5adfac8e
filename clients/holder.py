"""What a camera holds and what it says next. Pure: no socket, no clock, no thread; `now` is a parameter, in seconds.

An inspect frame is held from `take` until the broker says that it is settled, or refuses it for good; the credit that
the broker gives bounds how many that can be. A new broker (another epoch) and a new connection know nothing: all that
is held is sent again, oldest first. A broker that has no room for a frame within its credit is asked again with one
frame at a time.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import ClassVar, Final

from broker.wire import PROTOCOL, Accepted, Bye, Hello, Key, Message, Policy, Reject, Settled, Skip, Welcome
from clients.encoding import Encoded
from clients.held import Ended, Held, Outgoing
from clients.refusal import REFUSALS, Refusal
from clients.skips import SKIPS_HELD, Skips

#: A camera that has said nothing for so many seconds says HELLO.
BEAT: Final = 0.3
#: A camera that holds frames and has heard nothing about them for so many seconds asks with HELLO.
STALL: Final = 1.0


class Holder:
    """The state of one boot of an inspect camera.

    `deadline`: seconds from capture in which an answer is due. `window`: frames held at most, whatever the credit.
    `count` has what happened so far: sent, resent, accepted, complete, incomplete, unknown (news of frames that are not
    held), skips_forgotten; `rejected` and `skipped` are by reason.
    """

    policy: ClassVar[Policy] = "inspect"

    def __init__(self, camera: str, boot: str, *, deadline: float, window: int) -> None:
        self.camera = camera
        self.boot = boot
        self.deadline = deadline
        self.window = window
        self.epoch = ""
        self.credit = -1
        self.max_frame = 0
        self.next_seq = 0
        self.open = False  # this connection was welcomed
        self.refusal: Refusal | None = None
        self.held: dict[int, Held] = {}
        self.skips = Skips()
        self.count: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.fresh: list[Key] = []  # accepted since whoever carries the news took them
        self._queue: deque[int] = deque()  # seqs to send, in order; those no longer held are passed over
        self._probe_at = -math.inf  # after a frame within its credit was refused for want of room: when to try the next
        self._probe = -1  # the frame that was sent since, to see whether there is room again
        self._spoke_at = -math.inf
        self._checked_at = -math.inf
        self._starved_since = -math.inf
        self._quiet_since = -math.inf  # since when nothing was heard of the frames held, or was asked about them

    # --- the user's side ---------------------------------------------------------------------------------------------

    def room(self) -> bool:
        """Whether a new frame may be taken now."""
        return self.next_seq <= self.credit and len(self.held) < self.window

    def idle(self) -> bool:
        """Nothing is held and nothing waits to be sent."""
        return not self.held and not self._queue

    def untold(self) -> int:
        """Skips that the broker has not been told of yet."""
        return sum(1 for seq in self._queue if seq in self.skips)

    def take(self, encoded: Encoded, part: str | None, captured_at: float) -> Key:
        """Hold a new frame; only when there is `room`."""
        seq = self._use_seq()
        self.held[seq] = Held(seq, encoded, part, captured_at)
        self._queue.append(seq)
        return self.key(seq)

    def skip(self, reason: str) -> Key:
        """Use up a seq for a picture that will not be sent, and tell the broker why."""
        seq = self._use_seq()
        self.skipped[reason] += 1
        self._remember(seq, reason)
        self._queue.append(seq)
        if len(self._queue) > 2 * (SKIPS_HELD + self.window):
            self._queue = deque(seq for seq in self._queue if seq in self.skips or seq in self.held)
        return self.key(seq)

    def key(self, seq: int) -> Key:
        return Key(self.camera, self.boot, seq)

    def bye(self) -> Bye:
        """The orderly end of this boot."""
        return Bye(camera=self.camera, boot=self.boot, last_seq=self.next_seq - 1)

    # --- the link's side ---------------------------------------------------------------------------------------------

    def disconnected(self) -> None:
        """The connection is gone, or the broker does not know it: greet at once."""
        if self.open:
            self.open = False
            self._spoke_at = -math.inf

    def pending(self, now: float) -> Outgoing | None:
        """The next message to send now, if any. Call `sent` once it is on its way; if it could not go, do nothing."""
        if now >= self.hello_due():
            return Outgoing(self._hello())
        while self.open and self._queue:
            seq = self._queue[0]
            held = self.held.get(seq)
            if held is not None:
                if now < self._probe_at or not self._may_send(held):
                    return None
                return held.outgoing(self.key(seq), self.policy, self.deadline, now)
            if seq in self.skips:
                return Outgoing(self.skips[seq])
            self._queue.popleft()
        return None

    def sent(self, outgoing: Outgoing, now: float) -> None:
        """`outgoing`, as `pending` just gave it, is on its way."""
        self._spoke_at = now
        if isinstance(outgoing.message, Hello):
            self._quiet_since = now
            return
        if isinstance(outgoing.message, Skip):
            self.credit += self.skips.sent(outgoing.message.key.seq)
        held = self.held.get(self._queue.popleft())
        if held is not None:
            if self._probe_at > -math.inf:
                self._probe, self._probe_at = held.seq, now + BEAT
            self.count["resent" if held.sends else "sent"] += 1
            held.sent(self.deadline, now)

    def hello_due(self) -> float:
        """When to say HELLO next: as a beat, or to ask about frames of which nothing is heard."""
        beat = self._spoke_at + BEAT
        return min(beat, self._quiet_since + STALL) if self.open and self.held else beat

    def receive(self, message: Message, now: float) -> list[Ended]:
        """Take a message of the broker; the frames that it ends."""
        match message:
            case Accepted(boot=self.boot):
                self._accepted(message, now)
                return []
            case Settled(boot=self.boot):
                return self._settled(message, now)
            case Welcome():
                return self._welcome(message, now)
            case Reject():
                return self._reject(message, now)
            case _:
                self.count["unknown"] += 1
                return []

    def take_fresh(self) -> list[Key]:
        """The frames that were accepted since the last call."""
        fresh, self.fresh = self.fresh, []
        return fresh

    def check(self, now: float) -> list[Ended]:
        """Look after overdue frames, a few times a second; the frames that it ends."""
        if not self.open or now < self._checked_at + BEAT:
            return []
        self._checked_at = now
        self._mend_gap(now)
        late = [held for held in self.held.values() if held.sends and now >= held.due]
        return self._overdue(late, now) if late else []

    def _mend_gap(self, now: float) -> None:
        """With nothing under way there is always credit for the next seq, unless the broker missed the one before it:
        a skip, or a monitor frame that is given up. Say that it is missing."""
        wanted = self._queue[0] if self._queue else self.next_seq
        if wanted <= self.credit or any(held.sends for held in self.held.values()):
            self._starved_since = now
        elif now - self._starved_since >= STALL:
            self._starved_since = now
            reason = self._why_missing(wanted - 1)
            if reason:
                self._remember(wanted - 1, reason)
                self._queue.appendleft(wanted - 1)

    def _remember(self, seq: int, reason: str) -> None:
        self.count["skips_forgotten"] += self.skips.remember(self.key(seq), reason)

    # --- the broker's words ------------------------------------------------------------------------------------------

    def _welcome(self, message: Welcome, now: float) -> list[Ended]:
        new = message.epoch != self.epoch
        fresh = new or not self.open
        if new:
            self.credit = -1
            self.skips.new_broker()
        self._allow(message)
        self.epoch = message.epoch
        self.max_frame = message.max_frame
        self.open = True
        self.refusal = None
        if not fresh:
            return []
        self._quiet_since = self._starved_since = now
        self._uncrowd()
        ended = self._drop_unsendable(now)
        self._queue = deque(sorted([*self.held, *self.skips]))
        return ended

    def _accepted(self, message: Accepted, now: float) -> None:
        self._extend(message)
        if self._probe in message.seqs:
            self._uncrowd()
        for seq in message.seqs:
            held = self.held.get(seq)
            if held is None:
                self.count["unknown"] += 1
            elif not held.accepted:
                held.accepted = True
                self.count["accepted"] += 1
                self.fresh.append(self.key(seq))
                self._quiet_since = now

    def _settled(self, message: Settled, now: float) -> list[Ended]:
        self._extend(message)
        ended = []
        for outcome, seqs in (("complete", message.complete), ("incomplete", message.incomplete)):
            for seq in seqs:
                held = self.held.get(seq)
                if held is None:
                    self.count["unknown"] += 1
                else:
                    ended.append(self._end(held, outcome, "", now))
                    self.skips.forget_before(seq)
        return ended

    def _reject(self, message: Reject, now: float) -> list[Ended]:
        key, reason = message.key, message.reason
        if reason == "no_hello":
            self.disconnected()
            return []
        if key is None:
            self._refused(message, now)
            return []
        held = self.held.get(key.seq) if key.boot == self.boot else None
        if held is None:
            self.count["unknown"] += 1
            return []
        if reason == "over_credit" and not held.accepted:
            held.parked = True
            self._queue = deque(sorted({*self._queue, held.seq}))
            if held.seq <= self.credit:
                self._probe_at = now + BEAT
            return []
        return [self._end(held, "rejected", reason, now)]

    def _refused(self, message: Reject, now: float) -> None:
        self.rejected[message.reason] += 1
        if message.reason in REFUSALS:
            known = self.refusal
            since = known.since if known is not None and known.reason == message.reason else now
            self.refusal = Refusal(message.reason, message.detail, since)
            self.open = False

    def _uncrowd(self) -> None:
        self._probe, self._probe_at = -1, -math.inf

    def _extend(self, message: Accepted | Settled) -> None:
        # Before WELCOME it may be the word of a broker that is gone, about a credit that is no more.
        if self.open:
            self._allow(message)

    def _allow(self, message: Welcome | Accepted | Settled) -> None:
        """Take the credit; each skip that the broker had not seen when it said so used up a seq, and no room."""
        if message.seen is not None:
            self.skips.seen(message.seen)
        self.credit = max(self.credit, message.credit + self.skips.surplus)

    def _end(self, held: Held, outcome: str, reason: str, now: float) -> Ended:
        del self.held[held.seq]
        if held.seq == self._probe:
            self._uncrowd()
        self._quiet_since = now
        if outcome == "rejected":
            self.rejected[reason] += 1
        else:
            self.count[outcome] += 1
        return Ended(self.key(held.seq), outcome, reason, now - held.captured_at)

    # --- what depends on the policy ----------------------------------------------------------------------------------

    def _may_send(self, held: Held) -> bool:
        """A frame that was sent before had its credit then."""
        return held.seq <= self.credit or (held.sends > 0 and not held.parked)

    def _to_send_again(self) -> int:
        """How many frames a new broker will see again."""
        return sum(1 for held in self.held.values() if held.sends)

    def _why_missing(self, seq: int) -> str:
        """Why the broker may never have seen this seq, which is held no more; "" if it must have."""
        return self.skips[seq].reason if seq in self.skips else ""

    def _drop_unsendable(self, now: float) -> list[Ended]:
        """At a new connection, before all is sent again: give up what this broker would not take."""
        large = [held for held in self.held.values() if held.encoded and len(held.encoded.payload) > self.max_frame]
        return [self._end(held, "rejected", "too_large", now) for held in large]

    def _overdue(self, late: list[Held], now: float) -> list[Ended]:
        waiting = set(self._queue)
        for held in late:
            if held.seq not in waiting:
                held.overdue += 1
                self._queue.append(held.seq)
        return []

    # --- small things ------------------------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        return Hello(
            camera=self.camera,
            boot=self.boot,
            protocol=PROTOCOL,
            policy=self.policy,
            next_seq=self.next_seq,
            unsettled=self._to_send_again(),
        )

    def _use_seq(self) -> int:
        self.next_seq += 1
        return self.next_seq - 1
