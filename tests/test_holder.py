"""What a camera holds: against a model broker on a network that loses, repeats and reorders."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.wire import PROTOCOL, Accepted, Bye, Frame, Hello, Key, Message, Reject, Settled, Skip, Welcome
from clients.encoding import Encoded
from clients.held import Ended
from clients.holder import BEAT, STALL, Holder
from clients.latest import LatestHolder
from clients.skips import SKIPS_HELD

DEADLINE = 2.0
PICTURE = Encoded(b"\xff\xd8\xff-picture", "jpeg", [4, 6, 3])


def make(kind: type[Holder] = Holder, window: int = 8) -> Holder:
    return kind("cam1", "b00700000001", deadline=DEADLINE, window=window)


def say(holder: Holder, now: float) -> list[Message]:
    """All that the holder sends now."""
    said = []
    while (outgoing := holder.pending(now)) is not None:
        holder.sent(outgoing, now)
        said.append(outgoing.message)
    return said


def welcome(holder: Holder, now: float, *, epoch: str = "e1", credit: int = 3, max_frame: int = 1000) -> list[Ended]:
    return holder.receive(Welcome(epoch=epoch, credit=credit, max_frame=max_frame), now)


def opened(kind: type[Holder] = Holder, credit: int = 3) -> Holder:
    holder = make(kind)
    say(holder, 0.0)
    welcome(holder, 0.0, credit=credit)
    return holder


def frames(messages: list[Message]) -> list[tuple[int, int]]:
    """(seq, again) of the frames among `messages`."""
    return [(message.key.seq, message.again) for message in messages if isinstance(message, Frame)]


def settled(*seqs: int, credit: int = 3, boot: str = "b00700000001") -> Settled:
    return Settled(boot=boot, complete=list(seqs), credit=credit)


def reject(reason: str, seq: int | None = None, boot: str = "b00700000001") -> Reject:
    return Reject(reason=reason, key=None if seq is None else Key("cam1", boot, seq))


# --- greeting --------------------------------------------------------------------------------------------------------


def test_hello_is_first_and_then_a_beat() -> None:
    holder = make()
    assert not holder.room()
    assert say(holder, 0.0) == [Hello(camera="cam1", boot="b00700000001", protocol=PROTOCOL)]
    assert say(holder, BEAT * 0.9) == []
    assert len(say(holder, BEAT)) == 1
    welcome(holder, BEAT)
    assert holder.room()
    assert say(holder, BEAT * 1.5) == []
    assert len(say(holder, BEAT * 2)) == 1


def test_a_frame_is_as_good_as_a_beat() -> None:
    holder = opened()
    holder.take(PICTURE, None, 0.0)
    assert frames(say(holder, BEAT * 0.9)) == [(0, 0)]
    assert say(holder, BEAT * 1.5) == []


def test_a_stall_is_asked_about_though_frames_flow() -> None:
    holder = opened(credit=99)
    said: list[Message] = []
    for step in range(8):
        now = step * STALL / 7
        holder.take(PICTURE, None, now)
        said += say(holder, now)
    assert [type(message) for message in said] == [Frame] * 7 + [Hello, Frame]


@pytest.mark.parametrize("reason", ["unknown_camera", "key_conflict", "protocol", "policy_mismatch"])
def test_a_refusal_stands_until_a_welcome(reason: str) -> None:
    holder = make()
    say(holder, 0.0)
    holder.receive(reject(reason), 1.0)
    say(holder, 1.0)
    holder.receive(reject(reason), 2.0)
    assert holder.refusal is not None
    assert (holder.refusal.reason, holder.refusal.since) == (reason, 1.0)
    welcome(holder, 3.0)
    assert holder.refusal is None and holder.room()


# --- frames ----------------------------------------------------------------------------------------------------------


def test_a_frame_says_what_it_is() -> None:
    holder = opened()
    key = holder.take(PICTURE, "p-1", captured_at=-0.5)
    (frame,) = say(holder, 0.25)
    assert frame == Frame(
        key=key,
        policy="inspect",
        encoding="jpeg",
        shape=[4, 6, 3],
        len=len(PICTURE.payload),
        age=0.75,
        budget=DEADLINE,
        part="p-1",
    )


def test_credit_bounds_what_is_taken_and_the_window_bounds_credit() -> None:
    holder = opened(credit=3)
    while holder.room():
        holder.take(PICTURE, None, 0.0)
    assert holder.next_seq == 4
    holder.receive(Accepted(boot=holder.boot, seqs=[0], credit=10**6), 0.1)
    while holder.room():
        holder.take(PICTURE, None, 0.1)
    assert len(holder.held) == holder.window


def test_credit_is_never_taken_back_within_an_epoch_and_ignored_before_a_welcome() -> None:
    holder = opened(credit=5)
    holder.receive(Accepted(boot=holder.boot, seqs=[], credit=2), 0.1)
    assert holder.credit == 5
    holder.disconnected()
    holder.receive(Accepted(boot=holder.boot, seqs=[], credit=50), 0.2)
    assert holder.credit == 5
    welcome(holder, 0.3, epoch="e2", credit=1)
    assert holder.credit == 1


def test_settled_frees_and_says_how_long_it_took() -> None:
    holder = opened()
    first, second = (holder.take(PICTURE, None, 0.0) for _ in range(2))
    say(holder, 0.0)
    ended = holder.receive(Settled(boot=holder.boot, complete=[0], incomplete=[1], credit=9), 0.5)
    assert ended == [Ended(first, "complete", "", 0.5), Ended(second, "incomplete", "", 0.5)]
    assert holder.idle()
    assert (holder.count["complete"], holder.count["incomplete"]) == (1, 1)


def test_news_of_frames_that_are_not_held_is_counted() -> None:
    holder = opened()
    for message in (settled(7), Accepted(boot=holder.boot, seqs=[8], credit=3), reject("shape_invalid", 9)):
        assert holder.receive(message, 0.1) == []
    assert holder.count["unknown"] == 3
    assert holder.receive(settled(0, boot="00000000beef", credit=99), 0.1) == []
    assert holder.count["unknown"] == 4
    assert holder.credit == 3


def test_a_new_epoch_is_sent_everything_oldest_first_with_its_age() -> None:
    holder = opened()
    for _ in range(3):
        holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    holder.receive(settled(1), 0.1)
    holder.disconnected()
    (hello,) = say(holder, 0.2)
    assert isinstance(hello, Hello) and (hello.next_seq, hello.unsettled) == (3, 2)
    welcome(holder, 0.5, epoch="e2", credit=2)
    again = say(holder, 0.5)
    assert frames(again) == [(0, 1), (2, 1)]
    assert [message.age for message in again if isinstance(message, Frame)] == [0.5, 0.5]


def test_a_reconnection_within_an_epoch_sends_everything_again() -> None:
    holder = opened()
    holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    welcome(holder, 0.1)
    assert say(holder, 0.1) == [], "an answer to a beat changes nothing"
    holder.disconnected()
    say(holder, 0.2)
    welcome(holder, 0.2)
    assert frames(say(holder, 0.2)) == [(0, 1)]


def test_an_overdue_frame_is_sent_again_ever_more_rarely() -> None:
    holder = opened()
    holder.take(PICTURE, None, 0.0)
    times, now = [], 0.0
    while now < 20:
        assert holder.check(now) == []
        times += [now for _ in frames(say(holder, now))]
        now += 0.1
    assert [round(later - sooner) for sooner, later in itertools.pairwise(times[1:])] == [2, 4, 8]
    assert DEADLINE < times[1] < DEADLINE + 2


def test_rejects() -> None:
    holder = opened()
    for _ in range(3):
        holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    assert holder.receive(reject("part_duplicate", 0), 0.1) == [Ended(holder.key(0), "rejected", "part_duplicate", 0.1)]
    assert holder.receive(reject("over_credit", 1), 0.1) == []
    assert holder.receive(reject("no_hello", 2), 0.1) == []
    assert isinstance(holder.pending(0.1), object)
    assert [type(message) for message in say(holder, 0.1)] == [Hello]
    welcome(holder, 0.2)
    assert frames(say(holder, 0.2)) == [(1, 1), (2, 1)]
    assert holder.rejected == {"part_duplicate": 1}


def test_a_frame_over_credit_waits_for_it() -> None:
    holder = opened(credit=1)
    holder.take(PICTURE, None, 0.0)
    holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    welcome(holder, 0.0, epoch="e2", credit=0)
    say(holder, 0.0)
    holder.receive(reject("over_credit", 1), 0.1)
    assert say(holder, 0.1) == []
    holder.receive(settled(0, credit=1), 0.2)
    assert frames(say(holder, 0.2)) == [(1, 2)]


def test_a_broker_without_room_is_asked_with_one_frame_at_a_time() -> None:
    holder = opened(credit=3)
    for _ in range(4):
        holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    for seq in (1, 2, 3):  # within the credit: the broker has no room
        holder.receive(reject("over_credit", seq), 0.1)
    assert frames(say(holder, 0.1)) == []
    assert frames(say(holder, 0.45)) == [(1, 1)]
    holder.receive(reject("over_credit", 1), 0.46)
    assert frames(say(holder, 0.7)) == []
    assert frames(say(holder, 0.8)) == [(1, 2)]
    assert frames(say(holder, 0.9)) == []
    holder.receive(Accepted(boot=holder.boot, seqs=[1], credit=3), 1.0)
    assert frames(say(holder, 1.0)) == [(2, 1), (3, 1)]


def test_frames_that_a_new_broker_would_not_take_end_at_once() -> None:
    holder = opened()
    holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    ended = welcome(holder, 0.5, epoch="e2", max_frame=3)
    assert [(end.outcome, end.reason) for end in ended] == [("rejected", "too_large")]
    assert holder.idle()


# --- skips -----------------------------------------------------------------------------------------------------------


def test_a_skip_uses_up_a_seq_and_needs_no_credit() -> None:
    holder = opened(credit=0)
    holder.take(PICTURE, None, 0.0)
    assert not holder.room()
    key = holder.skip("no_credit")
    said = say(holder, 0.0)
    assert said[1] == Skip(key=key, reason="no_credit")
    assert key.seq == 1 and holder.skipped == {"no_credit": 1}


def test_a_credit_is_good_for_the_seq_after_skips_that_the_broker_had_not_seen() -> None:
    """A trigger that comes sooner than the broker's word would else find each credit used up by the skip before."""
    holder = opened(credit=0)
    holder.receive(Welcome(epoch="e1", credit=0, max_frame=1000, seen=-1), 0.0)
    holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    for _ in range(3):
        assert not holder.room()
        holder.skip("no_credit")
        say(holder, 0.0)
    holder.receive(Settled(boot=holder.boot, credit=1, complete=[0], seen=0), 0.1)
    assert (holder.credit, holder.next_seq, holder.room()) == (4, 4, True)
    holder.receive(Accepted(boot=holder.boot, seqs=[], credit=4, seen=3), 0.2)
    assert holder.credit == 4, "what the broker has seen is in its own word"


def test_a_skip_that_is_told_again_is_no_second_credit() -> None:
    holder = opened(credit=0)
    holder.receive(Welcome(epoch="e1", credit=0, max_frame=1000, seen=-1), 0.0)
    holder.skip("no_credit")
    say(holder, 0.0)
    holder.disconnected()
    say(holder, 0.1)
    holder.receive(Welcome(epoch="e1", credit=1, max_frame=1000, seen=0), 0.1)
    assert [type(message) for message in say(holder, 0.1)] == [Skip]
    assert holder.credit == 1


def test_of_a_broker_that_does_not_say_what_it_has_seen_the_credit_is_plain() -> None:
    holder = opened(credit=0)
    holder.skip("no_credit")
    say(holder, 0.0)
    holder.receive(Accepted(boot=holder.boot, seqs=[], credit=0), 0.1)
    assert holder.credit == 0


def test_a_skip_is_told_again_until_a_later_frame_is_settled() -> None:
    holder = opened()
    holder.skip("no_credit")
    holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    welcome(holder, 0.1, epoch="e2")
    assert [type(message) for message in say(holder, 0.1)] == [Skip, Frame]
    holder.receive(settled(1), 0.2)
    welcome(holder, 0.3, epoch="e3")
    assert say(holder, 0.3) == []


@pytest.mark.parametrize("kind", [Holder, LatestHolder])
def test_a_skip_is_told_again_when_credit_stays_away_for_no_reason(kind: type[Holder]) -> None:
    holder = opened(kind, credit=0)
    skip = Skip(key=holder.skip("no_credit"), reason="no_credit")
    assert say(holder, 0.0)[-1] == skip
    if kind is LatestHolder:
        holder.take(PICTURE, None, 0.0)
    told = []
    for step in range(1, 9):
        holder.check(step * BEAT)
        told += [message for message in say(holder, step * BEAT) if not isinstance(message, Hello)]
    assert told == [skip, skip]
    holder.receive(Accepted(boot=holder.boot, seqs=[], credit=1), 2.5)
    holder.check(9.0)
    assert skip not in say(holder, 9.0)


def test_a_monitor_frame_that_the_broker_missed_is_told_as_lost() -> None:
    """It was on a connection that broke; the broker is the same, and has no credit for a seq after a gap."""
    holder = opened(LatestHolder, credit=0)
    lost = holder.take(PICTURE, None, 0.0)
    assert frames(say(holder, 0.0)) == [(0, 0)]
    holder.take(PICTURE, None, 0.1)
    holder.disconnected()
    say(holder, 0.2)
    assert [end.key for end in welcome(holder, 0.2, credit=0)] == [lost]
    assert say(holder, 0.2) == []
    holder.check(0.2 + STALL)
    assert Skip(key=lost, reason="lost") in say(holder, 0.2 + STALL)
    holder.receive(Accepted(boot=holder.boot, seqs=[], credit=1), 1.5)
    assert frames(say(holder, 1.5)) == [(1, 0)]


def test_skips_are_bounded_while_no_broker_is_there() -> None:
    holder = make()
    for _ in range(5 * SKIPS_HELD):
        holder.skip("no_credit")
    assert len(holder.skips) == SKIPS_HELD
    assert holder.count["skips_forgotten"] == 4 * SKIPS_HELD
    assert len(holder._queue) < 3 * SKIPS_HELD
    say(holder, 0.0)
    welcome(holder, 0.0)
    assert len(say(holder, 0.0)) == SKIPS_HELD


def test_bye_names_the_last_seq() -> None:
    holder = make()
    assert holder.bye() == Bye(camera="cam1", boot="b00700000001", last_seq=-1)
    holder.skip("no_credit")
    assert holder.bye().last_seq == 0


# --- monitor ---------------------------------------------------------------------------------------------------------


def test_monitor_keeps_one_with_the_broker_and_the_newest_here() -> None:
    holder = opened(LatestHolder, credit=5)
    first = holder.take(PICTURE, None, 0.0)
    assert frames(say(holder, 0.0)) == [(0, 0)]
    second, third = holder.take(PICTURE, None, 0.1), holder.take(PICTURE._replace(payload=b"newest"), None, 0.2)
    assert (first.seq, second.seq, third.seq) == (0, 1, 1)
    assert say(holder, 0.2) == []
    holder.receive(Accepted(boot=holder.boot, seqs=[0], credit=1), 0.25)
    outgoing = holder.pending(0.25)
    assert outgoing is not None and outgoing.payload == b"newest"
    assert holder.count["superseded"] == 1
    assert holder.held[0].encoded is None, "an accepted monitor frame is not held in memory"


def test_monitor_frames_are_never_sent_twice() -> None:
    holder = opened(LatestHolder, credit=0)
    first = holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    holder.take(PICTURE, None, 0.1)
    holder.disconnected()
    say(holder, 0.2)
    assert welcome(holder, 0.3, epoch="e2", credit=1) == [Ended(first, "lost", "reconnected", 0.3)]
    assert frames(say(holder, 0.3)) == [(1, 0)]
    assert holder.check(0.3) == []
    late = holder.check(0.1 + DEADLINE + 1.5)
    assert [(end.outcome, end.reason) for end in late] == [("lost", "no_answer")]
    assert holder.idle()


def test_monitor_over_credit_waits_and_may_be_superseded() -> None:
    holder = opened(LatestHolder, credit=0)
    holder.take(PICTURE, None, 0.0)
    say(holder, 0.0)
    holder.receive(reject("over_credit", 0), 0.1)
    assert holder.take(PICTURE, None, 0.2).seq == 0
    assert frames(say(holder, 0.5)) == [(0, 1)]
    holder.receive(Accepted(boot=holder.boot, seqs=[0], credit=1), 0.6)
    holder.receive(reject("over_credit", 0), 0.7)
    assert holder.idle(), "a reject after the acceptance is the end of it"


# --- the model -------------------------------------------------------------------------------------------------------


class ModelBroker:
    """A broker's camera side in a few lines: boots, credit, acceptance, settlement."""

    WINDOW: ClassVar[int] = 4

    def __init__(self, epoch: int) -> None:
        self.epoch = f"e{epoch}"
        self.known = False
        self.latest = self.credit = -1
        self.owed = 0
        self.open: dict[int, bool] = {}  # seq -> accepted
        self.settled: dict[int, bool] = {}  # seq -> complete

    def grant(self) -> int:
        self.credit = max(self.credit, self.latest + self.WINDOW - len(self.open) - self.owed)
        return self.credit

    def receive(self, message: Any) -> list[Message]:
        if isinstance(message, Hello):
            if not self.known:
                self.known, self.latest, self.owed = True, message.next_seq - 1, message.unsettled
                self.credit = self.latest
            self.owed = min(self.owed, message.unsettled)
            return [Welcome(epoch=self.epoch, credit=self.grant(), max_frame=1000)]
        if not self.known:
            return [Reject(reason="no_hello", key=message.key)]
        self.latest = max(self.latest, message.key.seq)
        return self.frame(message) if isinstance(message, Frame) else []

    def frame(self, frame: Frame) -> list[Message]:
        seq = frame.key.seq
        if frame.again:
            self.owed = max(0, self.owed - 1)
        if seq in self.settled:
            return [self.settle_message([seq])]
        if seq in self.open:
            return [self.accept(seq)] if self.open[seq] else []
        if seq > self.credit and not frame.again:
            return [Reject(reason="over_credit", key=frame.key)]
        if frame.part == "bad":
            return [Reject(reason="part_duplicate", key=frame.key)]
        self.open[seq] = False
        return []

    def accept(self, seq: int) -> Accepted:
        self.open[seq] = True
        return Accepted(boot="b00700000001", seqs=[seq], credit=self.grant())

    def settle(self, seq: int) -> Settled:
        del self.open[seq]
        self.settled[seq] = seq % 3 > 0
        return self.settle_message([seq])

    def settle_message(self, seqs: list[int]) -> Settled:
        complete = [seq for seq in seqs if self.settled[seq]]
        incomplete = [seq for seq in seqs if not self.settled[seq]]
        return Settled(boot="b00700000001", complete=complete, incomplete=incomplete, credit=self.grant())


class MonitorBroker(ModelBroker):
    """Credit is always one ahead: the camera itself keeps to one frame that is not accepted."""

    def grant(self) -> int:
        self.credit = max(self.credit, self.latest + 1)
        return self.credit

    def frame(self, frame: Frame) -> list[Message]:
        assert not frame.again, "a monitor frame is sent once"
        return super().frame(frame)


class CameraMachine(RuleBasedStateMachine):
    """Any order of pictures, losses, repeats, reconnections and restarts: nothing is lost, nothing ends twice."""

    kind: ClassVar[type[Holder]] = Holder
    model: ClassVar[type[ModelBroker]] = ModelBroker

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.holder = make(self.kind, window=3)
        self.restarts = 0
        self.broker = self.model(0)
        self.up: list[Message] = []
        self.down: list[Message] = []
        self.taken: set[Key] = set()
        self.ended: dict[Key, str] = {}

    def note(self, ended: list[Ended]) -> None:
        for end in ended:
            assert end.key in self.taken and end.key not in self.ended
            self.ended[end.key] = end.outcome

    def speak(self) -> None:
        while (outgoing := self.holder.pending(self.now)) is not None:
            if isinstance(outgoing.message, Frame) and not outgoing.message.again:
                assert outgoing.message.key.seq <= self.holder.credit
            self.holder.sent(outgoing, self.now)
            self.up.append(outgoing.message)

    @precondition(lambda self: self.holder.room())
    @rule(part=st.sampled_from([None, None, None, "bad"]))
    def take(self, part: str | None) -> None:
        self.taken.add(self.holder.take(PICTURE, part, self.now))

    @rule()
    def skip(self) -> None:
        self.holder.skip("no_credit")

    @rule(seconds=st.floats(0.01, 2.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.note(self.holder.check(self.now))
        self.speak()

    @precondition(lambda self: self.up)
    @rule(data=st.data(), repeat=st.booleans())
    def reach_broker(self, data: st.DataObject, repeat: bool) -> None:
        at = data.draw(st.integers(0, len(self.up) - 1))
        message = self.up[at] if repeat else self.up.pop(at)
        self.down += self.broker.receive(message)

    @precondition(lambda self: self.down)
    @rule(data=st.data(), repeat=st.booleans())
    def reach_camera(self, data: st.DataObject, repeat: bool) -> None:
        at = data.draw(st.integers(0, len(self.down) - 1))
        message = self.down[at] if repeat else self.down.pop(at)
        self.note(self.holder.receive(message, self.now))
        self.speak()

    @precondition(lambda self: self.up or self.down)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.up) + len(self.down) - 1))
        (self.up + self.down)[at]
        if at < len(self.up):
            self.up.pop(at)
        else:
            self.down.pop(at - len(self.up))

    @precondition(lambda self: self.broker.open)
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.broker.open)))
        self.down.append(self.broker.settle(seq) if self.broker.open[seq] else self.broker.accept(seq))

    @rule(restart=st.booleans())
    def cut(self, restart: bool) -> None:
        """The connection breaks; what was on it is gone, and maybe the broker too."""
        self.up.clear()
        self.down.clear()
        if restart:
            self.restarts += 1
            self.broker = self.model(self.restarts)
        self.holder.disconnected()
        self.speak()

    @invariant()
    def bounded(self) -> None:
        assert len(self.holder.held) <= self.holder.window
        assert len(self.holder.skips) <= SKIPS_HELD
        assert len(self.holder._queue) <= 2 * (SKIPS_HELD + self.holder.window) + 1

    @invariant()
    def accounted_for(self) -> None:
        assert {key for key in self.taken if key not in self.ended} == set(map(self.holder.key, self.holder.held))
        assert self.holder.credit <= self.broker.credit or self.holder.epoch != self.broker.epoch

    def teardown(self) -> None:
        """On a good network everything ends."""
        for _ in range(400):
            self.wait(0.5)
            while self.up or self.down:
                for message in self.up:
                    self.down += self.broker.receive(message)
                self.up.clear()
                for seq in sorted(self.broker.open):
                    self.down += [self.broker.accept(seq), self.broker.settle(seq)]
                for message in self.down:
                    self.note(self.holder.receive(message, self.now))
                self.down.clear()
                self.speak()
            if self.holder.idle():
                break
        assert self.holder.idle() and set(self.ended) == self.taken
        self.wait(BEAT)
        for message in self.up:
            for answer in self.broker.receive(message):
                self.holder.receive(answer, self.now)
        assert self.holder.room(), "after all is settled there is credit for more"


class MonitorMachine(CameraMachine):
    """The same for a monitor camera: each key ends, and little is held."""

    kind = LatestHolder
    model = MonitorBroker

    @invariant()
    def bounded(self) -> None:
        here = [held for held in self.holder.held.values() if held.parked or not held.sends]
        there = [held for held in self.holder.held.values() if held.sends and not (held.accepted or held.parked)]
        assert len(here) <= 1 and len(there) <= 1
        assert sum(held.encoded is not None for held in self.holder.held.values()) <= 2


TestCameraMachine = CameraMachine.TestCase
TestCameraMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestMonitorMachine = MonitorMachine.TestCase
TestMonitorMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
