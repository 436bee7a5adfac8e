"""The pure joiner on a real ledger: single rules, then a state machine that loses, repeats, reorders and crashes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from broker import line as line_file
from broker.join import Joiner
from broker.joined import INVALID
from broker.ledger import Ledger
from broker.report import report
from broker.rows import Rows
from broker.rulebook import Rulebook
from broker.wire import BootNote, Key, Known, Note, SkipNote, Suspect, Suspicion
from tests.join_world import BOOT, EPOCH, TEXT, Bench, Items, body, decoded


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "ledger.sqlite")
    yield bench
    bench.close()


@pytest.fixture
def items() -> Items:
    return Items()


def key(seq: int, camera: str = "lone") -> Key:
    return Key(camera, BOOT, seq)


# --- one frame -------------------------------------------------------------------------------------------------------


def test_a_frame_is_published_when_all_its_models_are_terminal(bench: Bench, items: Items) -> None:
    first = bench.turn(items.line(), items.expect(items.expectation(key(0), ["alpha", "beta"])))
    assert first.tickets == {EPOCH: [1]}
    second = bench.turn(items.result(items.outcome(key(0), "alpha", answer=body("bolt"))))
    assert not second.live
    third = bench.turn(items.result(items.outcome(key(0), "beta", "failed", "tries", tries=5)), after=0.5)

    [(topic, header, sent)] = decoded(third)
    assert (topic, header.seq, header.previous, header.ledger_id) == ("frame/lone/", 1, None, bench.ledger.ledger_id)
    assert (sent["camera"], sent["boot"], sent["seq"], sent["station"]) == ("lone", BOOT, 0, "free")
    assert (sent["outcome"], sent["verdict"], sent["policy"]) == ("incomplete", "none", "inspect")
    assert sent["missing"] == [{"model": "beta", "status": "failed", "reason": "tries"}]
    assert sent["results"]["alpha"]["detections"][0]["name"] == "bolt"
    assert sent["results"]["alpha"] | {"status": "ok", "reason": "", "tries": 1} == sent["results"]["alpha"]
    assert sent["results"]["beta"] == {"status": "failed", "reason": "tries", "tries": 5}
    assert sent["seconds"] == pytest.approx(0.5)


def test_publications_of_a_topic_are_linked(bench: Bench, items: Items) -> None:
    for seq, camera in enumerate(["lone", "top", "lone"]):
        bench.turn(items.line(), items.expect(items.expectation(key(seq, camera))))
        bench.turn(items.result(items.outcome(key(seq, camera))))
    assert [(header.seq, header.previous) for _, header, _ in bench.published] == [(1, None), (2, None), (3, 1)]


def test_the_first_committed_answer_stands_and_a_later_one_is_on_record_once(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0))), items.result(items.outcome(key(0), tries=1)))
    second = items.outcome(key(0), status="failed", reason="tries", tries=2)
    turn = bench.turn(items.result(second))
    assert turn.tickets[EPOCH] == [second.ticket]
    assert turn.known[EPOCH] == [Known(ticket=second.ticket, statuses={"alpha": "ok"})], "the broker thinks otherwise"
    assert turn.counts["late_results_total", "alpha"] == 1
    again = bench.turn(items.result(second))
    assert again.tickets[EPOCH] == [second.ticket]
    assert not again.counts["late_results_total", "alpha"]
    assert len(bench.published) == 1
    assert bench.published[0][2]["results"]["alpha"]["status"] == "ok"
    assert report(bench.path)["late_results"] == 1


def test_a_repeat_of_the_committed_answer_is_acked_and_not_late(bench: Bench, items: Items) -> None:
    answer = items.outcome(key(0))
    bench.turn(items.expect(items.expectation(key(0))), items.result(answer))
    bench.restart()
    turn = bench.turn(items.result(answer))
    assert turn.tickets[EPOCH] == [answer.ticket]
    assert turn.counts["repeated_results_total", "alpha"] == 1
    assert report(bench.path)["late_results"] == 0


def test_a_late_answer_never_closes_a_frame(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0))))
    turn = bench.turn(items.result(items.outcome(key(0), late=True)))
    assert not turn.live and turn.counts["late_results_total", "alpha"] == 1
    closed = bench.turn(items.result(items.outcome(key(0), status="expired", reason="running")))
    assert decoded(closed)[0][2]["missing"] == [{"model": "alpha", "status": "expired", "reason": "running"}]


def test_a_model_that_nobody_asked_is_acked_and_counted(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0))))
    stranger = items.outcome(key(0), "gamma")
    turn = bench.turn(items.result(stranger))
    assert turn.tickets[EPOCH] == [stranger.ticket]
    assert turn.counts["refused_total", "unasked"] == 1
    assert report(bench.path)["statuses"] == {}


def test_an_answer_that_overtakes_its_frame_is_not_lost(bench: Bench, items: Items) -> None:
    expectation, answer = items.expectation(key(0)), items.outcome(key(0), answer=body("bolt"))
    early = bench.turn(items.result(answer))
    assert not early.tickets[EPOCH]
    bench.turn(items.expect(expectation), after=0.2)
    bench.turn(items.result(answer), after=0.2)
    assert bench.published[0][2]["outcome"] == "complete"


def test_an_answer_to_a_frame_that_never_comes_is_acked_in_the_end(bench: Bench, items: Items) -> None:
    answer = items.outcome(key(0))
    assert not bench.turn(items.result(answer)).tickets[EPOCH]
    turn = bench.turn(items.result(answer), after=1.5)
    assert turn.tickets[EPOCH] == [answer.ticket]
    assert turn.counts["refused_total", "unasked"] == 1


def test_an_answer_is_not_given_up_because_the_ledger_failed_meanwhile(bench: Bench, items: Items) -> None:
    expectation, answer = items.expectation(key(0)), items.outcome(key(0), answer=body("bolt"))
    bench.turn(items.result(answer))
    for _ in range(3):  # EXPECT comes, and is rolled back each time
        bench.now += 1.0
        bench.joiner.turn([items.expect(expectation)], bench.now, 0.0)
        bench.joiner.load(bench.now, 0.0)
        assert not bench.turn(items.result(answer), after=0.2).tickets[EPOCH]
    bench.turn(items.expect(expectation), items.result(answer), after=0.2)
    assert bench.published[0][2]["outcome"] == "complete"


@pytest.mark.parametrize(
    "bad",
    [
        b"\xc1",
        b"\x81",
        b"\x93\x01\x02\x03",
        b"\x81\xa1a\xa1\xff",
        b"\x81\xa6status\xa2ok",
        b"\x80\x80",
        b"\x81\x80\x01",
    ],
)
def test_a_body_that_cannot_be_read_is_a_failure_and_the_rest_is_published(
    bench: Bench, items: Items, bad: bytes
) -> None:
    bench.turn(items.expect(items.expectation(key(0), ["alpha", "beta"])))
    answers = items.outcome(key(0), "alpha", answer=bad), items.outcome(key(0), "beta")
    turn = bench.turn(items.result(*answers))
    assert turn.known[EPOCH] == [Known(ticket=answers[0].ticket, statuses={"alpha": "failed"})]
    sent = bench.published[0][2]
    assert sent["missing"] == [{"model": "alpha", "status": "failed", "reason": INVALID}]
    assert sent["results"]["beta"]["status"] == "ok"


def test_an_expectation_that_can_be_no_row_is_not_acked(bench: Bench, items: Items) -> None:
    bad = [
        items.expectation(key(1 << 40)),
        items.expectation(Key("../etc", BOOT, 0)),
        items.expectation(key(0), ["al pha"]),
        items.expectation(key(0), ["alpha", "alpha"]),
    ]
    turn = bench.turn(items.expect(*bad, good := items.expectation(key(0))))
    assert turn.tickets[EPOCH] == [good.ticket]
    assert turn.counts["refused_total", "expect_invalid"] == len(bad)


# --- what the broker is told -----------------------------------------------------------------------------------------


def test_known_names_what_is_terminal_and_suspect(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0), ["alpha", "beta"])))
    suspicion = Suspicion(ticket=items.next(), key=key(0), model="beta", count=2)
    turn = bench.turn(items.result(items.outcome(key(0), "alpha")), Suspect(epoch=EPOCH, items=[suspicion]))
    assert suspicion.ticket in turn.tickets[EPOCH]
    known = {"statuses": {"alpha": "ok"}, "suspects": {"beta": 2}}
    for _ in range(2):
        again = items.expectation(key(0), ["alpha", "beta"])
        turn = bench.turn(items.expect(again))
        assert turn.known[EPOCH] == [Known(ticket=again.ticket, **known)]  # type: ignore[arg-type]
        bench.restart()


def test_a_closed_frame_of_long_ago_is_recalled_from_the_ledger(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0))), items.result(items.outcome(key(0))))
    bench.restart()
    again = items.expectation(key(0))
    turn = bench.turn(items.expect(again))
    assert turn.known[EPOCH] == [Known(ticket=again.ticket, statuses={"alpha": "ok"})]
    assert not turn.rows.frames and not bench.turn(after=60.0).live


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_a_silent_broker_is_not_waited_for(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0), ["alpha", "beta"], budget=1.0)))
    bench.turn(items.result(items.outcome(key(0), "alpha")))
    assert bench.joiner.next_due() == pytest.approx(bench.now + 1.05)
    assert not bench.turn(after=1.04).live
    turn = bench.turn(after=0.02)
    assert decoded(turn)[0][2]["missing"] == [{"model": "beta", "status": "expired", "reason": "no_word"}]
    assert [(closing.key, closing.models) for closing in turn.closings] == [(key(0), ["beta"])]
    assert not bench.turn(after=10.0).live


def test_frames_past_their_deadline_wait_for_messages_that_wait_themselves(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0), budget=1.0)))
    assert not bench.turn(after=1.5, drained=False).live
    bench.turn(items.result(items.outcome(key(0))), after=0.1)
    assert bench.published[0][2]["outcome"] == "complete"
    bench.turn(items.expect(items.expectation(key(1), budget=1.0)))
    assert bench.turn(after=2.5, drained=False).live


def test_a_repeated_expectation_never_extends_the_deadline(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0), budget=1.0)))
    bench.turn(items.expect(items.expectation(key(0), budget=9.0)), after=0.5)
    assert bench.turn(after=0.6).live


def test_a_frame_past_its_deadline_is_closed_at_once(bench: Bench, items: Items) -> None:
    turn = bench.turn(items.expect(items.expectation(key(0), budget=-3.0)))
    assert decoded(turn)[0][2]["outcome"] == "incomplete"


# --- restarts --------------------------------------------------------------------------------------------------------


def test_open_frames_are_claimed_or_orphaned_after_a_restart(bench: Bench, items: Items) -> None:
    bench.turn(*(items.expect(items.expectation(key(seq), ["alpha", "beta"])) for seq in range(2)))
    bench.turn(items.result(items.outcome(key(0), "alpha"), items.outcome(key(1), "alpha")))
    bench.restart()
    assert not bench.turn(after=60.0).live  # without a broker nothing is decided
    bench.turn(items.line())
    bench.turn(items.expect(items.expectation(key(0), ["alpha", "beta"], budget=20.0)), after=4.0)
    turn = bench.turn(after=1.1)
    [(_, _, sent)] = decoded(turn)
    assert sent["seq"] == 1
    assert sent["missing"] == [{"model": "beta", "status": "failed", "reason": "orphaned"}]
    assert sent["results"]["alpha"]["status"] == "ok"
    assert [closing.key for closing in turn.closings] == [key(1)]
    bench.turn(items.result(items.outcome(key(0), "beta")))
    assert bench.published[-1][2]["outcome"] == "complete"


def test_a_failed_commit_leaves_the_memory_as_the_ledger_is(bench: Bench, items: Items) -> None:
    bench.turn(items.line(), items.expect(items.expectation(key(0), ["alpha", "beta"], budget=3.0)))
    messages = (
        items.result(items.outcome(key(0), "alpha"), items.outcome(key(0), "beta")),
        items.expect(items.expectation(key(1))),
    )
    lost = bench.joiner.turn(messages, bench.now, 0.0)
    assert len(lost.live) == 1  # and was never committed
    bench.joiner.load(bench.now, 0.0)
    turn = bench.turn(*messages, after=1.0)
    assert [(header.seq, sent["seq"]) for _, header, sent in decoded(turn)] == [(1, 0)]
    assert not turn.known[EPOCH]
    bench.turn(items.result(items.outcome(key(1))))
    assert report(bench.path)["joined"] == 2


def test_a_frame_of_a_failed_commit_was_never_there(bench: Bench, items: Items) -> None:
    bench.joiner.turn([items.expect(items.expectation(key(0), budget=1.0))], bench.now, 0.0)
    bench.joiner.load(bench.now, 0.0)
    assert not bench.turn(after=2.0).live


def test_a_failed_commit_does_not_move_a_deadline(bench: Bench, items: Items) -> None:
    bench.turn(items.expect(items.expectation(key(0), budget=1.0)))
    bench.joiner.load(bench.now + 0.9, 0.0)
    assert bench.turn(after=1.06).live


def test_the_line_of_an_open_frame_judges_it_after_a_restart(bench: Bench, items: Items) -> None:
    bench.turn(items.line(), items.expect(items.expectation(key(0, "top"))))
    lax = TEXT.replace('ng = ["scratch"]', 'ng = ["stain"]')
    bench.turn(items.line(lax))
    bench.restart()
    bench.turn(items.result(items.outcome(key(0, "top"), answer=body("scratch"))))
    assert bench.published[0][2]["verdict"] == "ng"


def test_a_line_that_nobody_told_of_is_counted_and_the_newest_judges(bench: Bench, items: Items) -> None:
    bench.turn(items.line(), items.expect(items.expectation(key(0, "top"), line="0123456789ab")))
    bench.turn(items.result(items.outcome(key(0, "top"), answer=body("scratch"))))
    assert bench.published[0][2]["verdict"] == "ng"
    assert bench.rulebook.unknown_total


# --- boots, skips ----------------------------------------------------------------------------------------------------


def note(items: Items, camera: str, state: str, last_seq: int = -1, boot: str = BOOT) -> Note:
    entry = BootNote(ticket=items.next(), camera=camera, boot=boot, state=state, last_seq=last_seq)  # type: ignore[arg-type]
    return Note(epoch=items.epoch, boots=[entry])


def boots(bench: Bench) -> dict[str, int]:
    found: dict[str, int] = report(bench.path)["boots"]
    return found


def test_what_has_ended_stays_ended(bench: Bench, items: Items) -> None:
    opened = note(items, "lone", "open")
    bench.turn(opened)
    assert boots(bench) == {"open": 1}
    turn = bench.turn(note(items, "lone", "ended", 7))
    assert turn.tickets[EPOCH] == [2] and boots(bench) == {"ended": 1}
    bench.turn(opened)
    bench.restart()
    bench.turn(opened)
    assert boots(bench) == {"ended": 1}


def test_boots_that_a_new_broker_does_not_speak_of_are_cut(bench: Bench, items: Items) -> None:
    bench.turn(note(items, "lone", "open"), note(items, "top", "open"), items.expect(items.expectation(key(3, "top"))))
    bench.turn(after=60.0)
    bench.restart()
    bench.turn(items.line())
    bench.turn(after=60.0)
    assert boots(bench) == {"open": 2}  # the same broker has told of them before
    other = Items("ffffffffffff")
    bench.turn(other.line(), note(other, "lone", "open"))
    bench.turn(after=4.9)
    assert boots(bench) == {"open": 2}
    turn = bench.turn(after=0.2)
    assert boots(bench) == {"open": 1, "cut": 1}
    assert turn.rows.boots[0][3:5] == ("cut", 3)


def test_a_new_broker_ends_a_boot_whatever_the_tickets_of_the_old_one_were(bench: Bench, items: Items) -> None:
    items.ticket = 100
    bench.turn(note(items, "lone", "open"))
    other = Items("ffffffffffff")  # its tickets begin anew
    bench.turn(other.line(), note(other, "lone", "open"))
    bench.turn(note(other, "lone", "ended"))
    assert boots(bench) == {"ended": 1}


def test_skips_are_recorded_once(bench: Bench, items: Items) -> None:
    skip = SkipNote(ticket=items.next(), key=key(4), reason="no_credit")
    for _ in range(2):
        assert bench.turn(Note(epoch=EPOCH, skips=[skip])).tickets[EPOCH] == [skip.ticket]
    assert report(bench.path)["skips"] == {"lone": 1}


# --- parts -----------------------------------------------------------------------------------------------------------


def parts_of(bench: Bench) -> list[dict[str, Any]]:
    return [sent for topic, _, sent in bench.published if topic == "part/press/"]


def expect_part(items: Items, camera: str, seq: int = 0, part: str = "p1") -> Any:
    return items.expect(items.expectation(key(seq, camera), part=part))


def test_a_part_closes_with_its_last_camera(bench: Bench, items: Items) -> None:
    bench.turn(items.line(), expect_part(items, "top"), expect_part(items, "side"))
    bench.turn(items.result(items.outcome(key(0, "top"))))
    assert not parts_of(bench)
    bench.turn(items.result(items.outcome(key(0, "side"), answer=body("scratch"))))
    [part] = parts_of(bench)
    assert (part["part"], part["outcome"], part["verdict"], part["missing"]) == ("p1", "complete", "ng", [])
    assert sorted(part["frames"]) == [["side", BOOT, 0], ["top", BOOT, 0]]
    assert report(bench.path)["parts"] == {"press": {"ng": 1}}


def test_an_open_part_is_closed_once_across_a_restart(bench: Bench, items: Items) -> None:
    bench.turn(items.line(), expect_part(items, "top"))
    bench.turn(items.result(items.outcome(key(0, "top"), answer=body("scratch"))))
    bench.restart()
    assert bench.joiner.next_due() == pytest.approx(bench.now + 2.0)
    bench.turn(after=2.1)
    [part] = parts_of(bench)
    assert (part["outcome"], part["verdict"]) == ("incomplete", "ng")
    assert part["missing"] == [{"camera": "side", "reason": "no_frame"}]
    bench.restart()
    bench.turn(items.line(), expect_part(items, "side"), items.result(items.outcome(key(0, "side"))))
    bench.turn(after=30.0)
    assert len(parts_of(bench)) == 1
    assert report(bench.path)["joined"] == 2


def test_a_part_keeps_its_deadline_through_a_failed_commit(bench: Bench, items: Items) -> None:
    bench.turn(items.line(), expect_part(items, "top"))
    bench.joiner.load(bench.now + 1.9, 0.0)
    bench.turn(after=2.01)
    assert len(parts_of(bench)) == 1


# --- monitor frames --------------------------------------------------------------------------------------------------


def test_monitor_frames_are_merged_without_ledger_and_number(bench: Bench, items: Items) -> None:
    messages = (
        items.expect(items.expectation(key(0, "eye"), ["alpha", "beta"], policy="monitor")),
        items.result(
            items.outcome(key(0, "eye"), "alpha"), items.outcome(key(0, "eye"), "beta", "dropped", "superseded")
        ),
    )
    turn = bench.monitors.turn(messages, bench.now, 0.0, "id")
    [(topic, header, sent)] = decoded(turn)
    assert (topic, header.seq, sent["policy"], sent["outcome"]) == ("frame/eye/", None, "monitor", "incomplete")
    mine = bench.turn(*messages)
    assert not mine.live and not mine.rows.frames and not mine.tickets[EPOCH]


def test_monitor_frames_that_are_dropped_whole_are_not_published(bench: Bench, items: Items) -> None:
    expectation = items.expectation(key(0, "eye"), policy="monitor")
    dropped = items.outcome(key(0, "eye"), status="dropped", reason="superseded")
    turn = bench.monitors.turn([items.expect(expectation), items.result(dropped)], bench.now, 0.0, "id")
    assert not turn.live and turn.counts["dropped_whole_total", "eye"] == 1


def test_a_monitor_frame_closes_at_its_deadline(bench: Bench, items: Items) -> None:
    expectation = items.expectation(key(0, "eye"), policy="monitor", budget=1.0)
    bench.monitors.turn([items.expect(expectation)], bench.now, 0.0, "id")
    assert bench.monitors.next_due() == pytest.approx(bench.now + 1.05)
    turn = bench.monitors.turn([], bench.now + 1.06, 0.0, "id")
    assert decoded(turn)[0][2]["missing"] == [{"model": "alpha", "status": "expired", "reason": "no_word"}]
    late = bench.monitors.turn([items.result(items.outcome(key(0, "eye")))], bench.now + 2.0, 0.0, "id")
    assert not late.live


# --- whatever happens ------------------------------------------------------------------------------------------------

CAMERAS = ("lone", "top", "side")
MODELS = ("alpha", "beta", "gamma")


class JoinMachine(RuleBasedStateMachine):
    """A broker whose items get lost, repeated and reordered, and a join that dies before and after its commits."""

    frames = Bundle("frames")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.bench = Bench(Path(self.folder.name) / "ledger.sqlite")
        self.items = Items()
        self.epochs = 0
        self.seqs = dict.fromkeys(CAMERAS, 0)
        self.unacked: dict[int, Any] = {}
        self.expected: dict[Key, list[str]] = {}  # what the broker has in hand
        self.accepted: set[Key] = set()  # what it was told is in the ledger
        self.said: dict[tuple[Key, str], set[tuple[str, str]]] = {}  # every status that was ever sent
        self.terminal: dict[tuple[Key, str], tuple[str, str, int]] = {}  # this broker's
        self.sent: dict[int, tuple[str, bytes, bytes]] = {}  # what went out live, by seq
        self.acks_get_through = True

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self.bench.close()
            self.folder.cleanup()

    # What the broker does.

    @initialize()
    def begin(self) -> None:
        self.bench.turn(self.items.line())

    @rule(
        target=frames,
        camera=st.sampled_from(CAMERAS),
        count=st.integers(1, 3),
        part=st.sampled_from([None, "p1", "p2"]),
        budget=st.sampled_from([0.3, 4.0, 1000.0]),
    )
    def admit(self, camera: str, count: int, part: str | None, budget: float) -> Key:
        key = Key(camera, BOOT, self.seqs[camera])
        self.seqs[camera] += 1
        self.expected[key] = list(MODELS[:count])
        self._send(self.items.expectation(key, self.expected[key], budget, part))
        return key

    @rule(
        key=frames,
        model=st.sampled_from(MODELS),
        status=st.sampled_from(["ok", "ok", "failed", "expired"]),
        tries=st.integers(1, 3),
    )
    def finish(self, key: Key, model: str, status: Any, tries: int) -> None:
        if model not in self.expected.get(key, ()):
            return
        late = (key, model) in self.terminal
        if late and status == "expired":
            return
        self.terminal.setdefault((key, model), (status, str(tries), tries))
        if not late:
            self.said.setdefault((key, model), set()).add((status, str(tries)))
        self._send(self.items.outcome(key, model, status, str(tries), tries, late=late))

    @rule()
    def broker_dies(self) -> None:
        """Its cameras send again what is not settled: all of it, as far as the new one knows."""
        self.epochs += 1
        self.items = Items(f"{self.epochs:012x}")
        self.unacked.clear()
        self.terminal.clear()
        for key, models in self.expected.items():
            self._send(self.items.expectation(key, models, 4.0))

    # What happens on the way.

    @rule(data=st.data(), acks=st.booleans())
    def deliver(self, data: st.DataObject, acks: bool) -> None:
        """Some of it arrives, in any order, some of it twice; the acks arrive or not."""
        if self.unacked:
            some = data.draw(st.lists(st.sampled_from(list(self.unacked.values())), max_size=12))
            self._turn(some, acks)

    @rule(data=st.data())
    def crash_before_the_commit(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(list(self.unacked.values())), max_size=6)) if self.unacked else []
        self.bench.joiner.turn(self._messages(some), self.bench.now, 0.0)
        self._restart()

    @rule(data=st.data())
    def commit_fails(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(list(self.unacked.values())), max_size=6)) if self.unacked else []
        self.bench.joiner.turn(self._messages(some), self.bench.now, 0.0)
        self.bench.joiner.load(self.bench.now, 0.0)

    @rule(data=st.data())
    def crash_after_the_commit(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(list(self.unacked.values())), max_size=6)) if self.unacked else []
        self._turn(some, acks=False)
        self._restart()

    @rule(seconds=st.sampled_from([0.1, 1.2, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.now += seconds
        self._turn([], acks=True)

    # What must hold.

    @invariant()
    def nothing_is_published_twice(self) -> None:
        frames = [tuple(sent[name] for name in ("camera", "boot", "seq")) for _, _, sent in self._published("frame/")]
        assert len(frames) == len(set(frames))
        assert [header.seq for _, header, _ in self.bench.published] == list(range(1, len(self.bench.published) + 1))

    @invariant()
    def statuses_are_true(self) -> None:
        for _, _, sent in self._published("frame/"):
            key = Key(sent["camera"], sent["boot"], sent["seq"])
            for model, result in sent["results"].items():
                status = (result["status"], result["reason"])
                said = self.said.get((key, model), set())
                assert status in {*said, ("expired", "no_word"), ("failed", "orphaned")}

    def _published(self, prefix: str) -> list[Any]:
        return [each for each in self.bench.published if each[0].startswith(prefix)]

    def _send(self, item: Any) -> None:
        self.unacked[item.ticket] = item

    def _messages(self, some: list[Any]) -> list[Any]:
        return [self.items.expect(item) if hasattr(item, "models") else self.items.result(item) for item in some]

    def _restart(self) -> None:
        """A new join says hello, and the broker tells it of what is open."""
        self.bench.restart()
        self.bench.turn(self.items.line())
        joined = {Key(sent["camera"], sent["boot"], sent["seq"]) for _, _, sent in self._published("frame/")}
        for key in sorted(self.accepted - joined):
            self._send(self.items.expectation(key, self.expected[key], 4.0))

    def _turn(self, some: list[Any], acks: bool) -> None:
        turn = self.bench.turn(*self._messages(some))
        for (topic, header, _), (_, raw_header, raw) in zip(decoded(turn), turn.live, strict=True):
            assert header.seq is not None
            self.sent[header.seq] = (topic, raw_header, raw)
        for ticket in turn.tickets[self.items.epoch]:
            item = self.unacked.pop(ticket, None) if acks else None
            if item is not None and hasattr(item, "models"):
                self.accepted.add(item.key)

    def _settle(self) -> None:
        """All that waits arrives and all deadlines pass: then the books must balance."""
        for _ in range(4):
            self._turn(sorted(self.unacked.values(), key=lambda item: (not hasattr(item, "models"), item.ticket)), True)
            self.bench.now += 1.5
        assert not self.unacked
        self.bench.now += 2000.0
        self._turn([], True)
        frames = {Key(sent["camera"], sent["boot"], sent["seq"]) for _, _, sent in self._published("frame/")}
        assert frames == set(self.expected) >= self.accepted
        for _, _, sent in self._published("frame/"):
            names = set(self.expected[Key(sent["camera"], sent["boot"], sent["seq"])])
            assert set(sent["results"]) == names
            assert {each["model"] for each in sent["missing"]} == {
                name for name in names if sent["results"][name]["status"] != "ok"
            }
        parts = [sent["part"] for _, _, sent in self._published("part/")]
        counts = report(self.bench.path)
        assert counts["open"] == counts["duplicates"] == counts["unpublished"] == counts["open_parts"] == 0
        assert counts["joined"] == counts["accepted"] == len(frames)
        assert sum(sum(each.values()) for each in counts["parts"].values()) == len(parts)
        assert counts["published"] == len(self.sent)
        self._catch_up()

    def _catch_up(self) -> None:
        """The past is, byte for byte, what went out."""
        seq, topics = 0, self.bench.ledger.topics([])
        while seq < self.bench.ledger.last_seq():
            entries, seq = self.bench.ledger.page(seq, topics, 7, 1 << 20)
            for entry in entries:
                topic, _, raw = self.sent.pop(entry.seq)
                assert (entry.topic, entry.body) == (topic, raw)
        assert not self.sent


TestJoinMachine = JoinMachine.TestCase
TestJoinMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_line_file_of_the_past_is_not_the_newest_when_the_join_starts(tmp_path: Path) -> None:
    """Keys that were taken out of the line file while nothing ran let nobody in again."""
    old, own = line_file.parse(TEXT), line_file.parse(TEXT + "\n[stations.new]\n")
    text = line_file.to_toml(old)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.commit(Rows(lines=[("past", text)]))
        for rulebook, newest in ((Rulebook(own), own), (Rulebook(), old)):
            Joiner(ledger, rulebook).load(0.0, 0.0)
            assert "past" in rulebook
            assert rulebook.newest == newest
            rulebook.add("told", text)
            assert rulebook.newest == old
