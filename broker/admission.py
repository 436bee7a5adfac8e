"""The cameras' side of the broker: who may send, what is refused and why, what a camera is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from broker.frames import Counts, Frames
from broker.line import Line
from broker.outbox import Outbox
from broker.part import PartGate
from broker.payload import fault
from broker.publisher import FIRST_WINDOW, Publisher
from broker.task import OpenFrame
from broker.throttle import Throttle
from broker.wire import PROTOCOL, BootNote, Bye, Frame, Hello, Key, Reject, Skip, SkipNote, Welcome

#: A camera that was not heard for so many seconds is gone: its boot is recorded as `cut`. It beats every 0.3 s.
GONE_AFTER: Final = 3.0
#: A camera heard within so many seconds is live: a second one of its name is refused.
LIVE_WITHIN: Final = 1.0
#: Frames of one boot at most: the ledger's row ids have so many numbers for a boot.
SEQ_LIMIT: Final = 1 << 40
#: Longest budget that is believed, in seconds.
LONGEST_BUDGET: Final = 86400.0
#: Refusals that peers without a HELLO are told of between two checks (0.02 s). More are only counted, so that a flood
#: of messages is no flood of answers.
STRANGERS: Final = 32


class Admission:
    """Publishers by name and ROUTER identity, and every check that a frame passes before it is opened."""

    def __init__(
        self,
        epoch: str,
        line: Line,
        digest: str,
        frames: Frames,
        outbox: Outbox,
        counts: Counts,
        pace: Callable[[Iterable[str]], float],
    ) -> None:
        """`pace(models)`: frames/s that the slowest of them promises, 0.0 if that is not known."""
        self.epoch = epoch
        self.line = line
        self.digest = digest
        self.frames = frames
        self.outbox = outbox
        self.counts = counts
        self.pace = pace
        self.publishers: dict[str, Publisher] = {}
        self.by_identity: dict[bytes, Publisher] = {}
        self.parts = PartGate()
        self.throttle = Throttle()
        self._strangers = 0

    def ignores(self, now: float, identity: bytes) -> bool:
        """Whether not to look at what this peer sends; counted then. It has no boot here, and sends too much: a camera
        that is not known greets each 0.3 s."""
        if identity in self.by_identity:
            return False
        if not self.throttle.is_shut(now, identity):
            if self.throttle.take(now, identity):
                return False
            self.throttle.shut(now, identity)
        self.counts["refused_total", "too_often"] += 1
        return True

    # --- greeting ----------------------------------------------------------------------------------------------------

    def hello(self, now: float, identity: bytes, message: Hello) -> None:
        reason = self._hello_fault(now, identity, message)
        if reason:
            self.refuse(identity, reason, f"camera {message.camera[:64]!r}")
            return
        publisher = self.publishers.get(message.camera)
        if publisher is None or publisher.boot != message.boot:
            publisher = self._enter(now, identity, message)
        previous = publisher.identity
        if not publisher.connection.greeted(now, identity, publisher.heard_at):
            self.counts["stale_total", "hello"] += 1
            return
        self.by_identity.pop(previous, None)
        self.by_identity[identity] = publisher
        publisher.heard_at = now
        publisher.latest = max(publisher.latest, message.next_seq - 1)
        publisher.owed = min(publisher.owed, message.unsettled)
        publisher.entry = self.line.cameras[message.camera]
        publisher.first = self._first_window(publisher)
        publisher.grant(self.line.limits.window, self._room())
        publisher.said_credit = publisher.credit
        welcome = Welcome(
            epoch=self.epoch,
            credit=publisher.credit,
            max_frame=self.line.limits.max_frame,
            seen=publisher.latest,
        )
        self.outbox.to_cameras.append((identity, welcome))

    def _first_window(self, publisher: Publisher) -> int:
        """The camera's share of what the workers promise to do in half a deadline, while nothing better is known."""
        pace = self.pace(self.line.route(publisher.name)[0])
        rivals = sum(entry.policy == "inspect" for entry in self.line.cameras.values()) or 1
        share = (pace * publisher.entry.deadline / 2 if pace else FIRST_WINDOW) / rivals
        return int(max(1, min(FIRST_WINDOW, share)))

    def _hello_fault(self, now: float, identity: bytes, message: Hello) -> str:
        if message.protocol != PROTOCOL:
            return "protocol"
        if message.next_seq >= SEQ_LIMIT:
            return "header_invalid"
        entry = self.line.cameras.get(message.camera)
        if entry is None:
            return "unknown_camera"
        if entry.policy != message.policy:
            return "policy_mismatch"
        known = self.publishers.get(message.camera)
        if known is None:
            return "too_many_cameras" if len(self.publishers) >= self.line.limits.cameras else ""
        other = known.identity != identity and known.boot != message.boot
        return "key_conflict" if other and now - known.heard_at <= LIVE_WITHIN else ""

    def _enter(self, now: float, identity: bytes, message: Hello) -> Publisher:
        """A boot that this broker has not seen."""
        old = self.publishers.get(message.camera)
        if old is not None:
            self._leave(now, old, "cut")
        publisher = Publisher(message.camera, self.line.cameras[message.camera], identity, message.boot, now)
        publisher.latest = max(message.next_seq, 0) - 1
        publisher.owed = max(message.unsettled, 0)
        publisher.credit = publisher.latest
        self.publishers[message.camera] = publisher
        self._note_boot(now, publisher, "open")
        return publisher

    def bye(self, now: float, identity: bytes, message: Bye) -> None:
        publisher = self.by_identity.get(identity)
        if publisher is None or publisher.boot != message.boot:
            self.refuse(identity, "no_hello", "BYE")
            return
        publisher.latest = max(publisher.latest, message.last_seq)
        self._leave(now, publisher, "ended")

    def _leave(self, now: float, publisher: Publisher, state: str) -> None:
        if self.by_identity.get(publisher.identity) is publisher:
            del self.by_identity[publisher.identity]
        if self.publishers.get(publisher.name) is publisher:
            del self.publishers[publisher.name]
        self.counts["boots_total", publisher.name, state] += 1
        self._note_boot(now, publisher, state)

    def _note_boot(self, now: float, publisher: Publisher, state: Any) -> None:
        egress = self.frames.egress
        note = BootNote(
            ticket=egress.ticket(), camera=publisher.name, boot=publisher.boot, state=state, last_seq=publisher.latest
        )
        egress.send(now, note)

    # --- frames ------------------------------------------------------------------------------------------------------

    def frame(
        self, now: float, identity: bytes, header: Frame, payload: Any, head: bytes | memoryview, size: int
    ) -> OpenFrame | None:
        """Open the frame, or say why not. `head` is the payload or its first bytes, `size` its length in bytes."""
        publisher = self.by_identity.get(identity)
        if publisher is None:
            self.refuse(identity, "no_hello", "FRAME", header.key)
            return None
        publisher.heard_at = now
        key = header.key
        reason = _key_fault(publisher, key)
        if not reason:
            publisher.saw(key.seq, header.again > 0)
            if key in self.frames.open or key in self.frames.settled:
                self._tell_known(publisher, key)
                return None
            reason = self._crowded(publisher) or self._fault(now, publisher, header, head, size)
        if reason:
            self.refuse(identity, reason, "", key)
            self.outbox.publishers[id(publisher)] = publisher
            return None
        return self.frames.admit(now, publisher, header, payload, self.line, self.digest)

    def _crowded(self, publisher: Publisher) -> str:
        """The second fence behind the credit: HELLO's word sets the credit, and a camera's word is not a bound."""
        most = self.line.limits.window * (2 if self._room() else 0)
        return "over_credit" if publisher.policy == "inspect" and publisher.open > most else ""

    def _fault(self, now: float, publisher: Publisher, header: Frame, head: bytes | memoryview, size: int) -> str:
        key = header.key
        if header.policy != publisher.policy:
            return "policy_mismatch"
        if publisher.name not in self.line.cameras:
            return "unknown_camera"
        if not (0.0 <= header.age <= LONGEST_BUDGET and 0.0 < header.budget <= LONGEST_BUDGET) or key.seq < 0:
            return "header_invalid"
        reason = fault(header, head, size, self.line.limits.max_frame)
        if reason or header.part is None:
            return reason
        admitted = self.parts.admit(now, publisher.entry.station, header.part, publisher.name, key)
        return "" if admitted else "part_duplicate"

    def _tell_known(self, publisher: Publisher, key: Key) -> None:
        """The same frame again: say what was said before; nothing is done twice."""
        self.counts["repeated_frames_total", publisher.name] += 1
        open_frame = self.frames.open.get(key)
        if open_frame is None:
            self.frames.tell_settled(publisher, key.seq, self.frames.settled[key])
            return
        if open_frame.publisher is not publisher:  # the camera was given up, and came back in the same boot
            open_frame.publisher.open -= 1
            publisher.open += 1
            open_frame.publisher = publisher
        if open_frame.acked:
            publisher.accepted.append(key.seq)
            self.outbox.publishers[id(publisher)] = publisher

    def skip(self, now: float, identity: bytes, message: Skip) -> None:
        publisher = self.by_identity.get(identity)
        if publisher is None or message.key.boot != publisher.boot or message.key.camera != publisher.name:
            self.refuse(identity, "no_hello", "SKIP", message.key)
            return
        if message.key.seq >= SEQ_LIMIT:
            self.refuse(identity, "header_invalid", "SKIP: seq", message.key)
            return
        publisher.heard_at = now
        if message.key.seq > publisher.latest:
            self.counts["skipped_total", publisher.name] += 1
        publisher.skipped(message.key.seq)
        egress = self.frames.egress
        egress.send(now, SkipNote(ticket=egress.ticket(), key=message.key, reason=message.reason[:64]))
        self.outbox.publishers[id(publisher)] = publisher

    def refuse(self, identity: bytes, reason: str, detail: str, key: Key | None = None) -> None:
        self.counts["rejected_total", reason] += 1
        if identity not in self.by_identity:
            self._strangers += 1
            if self._strangers > STRANGERS:
                return
        self.outbox.to_cameras.append((identity, Reject(reason=reason, detail=detail, key=key)))

    # --- time --------------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Record the boots of cameras that have vanished."""
        self._strangers = 0
        for publisher in [p for p in self.publishers.values() if now - p.heard_at > GONE_AFTER]:
            self._leave(now, publisher, "cut")

    def refresh(self) -> None:
        """The line file was changed: cameras have their new stations and deadlines at once."""
        for publisher in self.publishers.values():
            publisher.entry = self.line.cameras.get(publisher.name, publisher.entry)

    def forgive(self, seconds: float) -> None:
        for publisher in self.publishers.values():
            publisher.heard_at += seconds

    def extend_credit(self, now: float) -> None:
        """At the end of a turn: what settled sets the pace, and who has room gets more credit."""
        room = self._room()
        for publisher in self.outbox.publishers.values():
            settled = len(publisher.complete) + len(publisher.incomplete)
            if settled:
                publisher.note_settled(settled, now)
            elif publisher.open <= len(publisher.accepted):
                publisher.settled_at = now
            publisher.grant(self.line.limits.window, room)

    def _room(self) -> bool:
        return self.frames.bytes < self.line.limits.queue_bytes


def _key_fault(publisher: Publisher, key: Key) -> str:
    """Whether this key may come from this camera now. What is sent again was within an earlier credit: HELLO says how
    far a camera had come, and so `latest` covers it."""
    if key.camera != publisher.name or key.boot != publisher.boot:
        return "unknown_boot"
    if key.seq >= SEQ_LIMIT:
        return "header_invalid"
    return "over_credit" if key.seq > max(publisher.credit, publisher.latest) else ""
