"""Chaos: its pure parts, which must be able to find every fault; and real processes struck from a fixed seed."""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from broker.retention import Delete
from broker.wire import Key
from clients.cursor import Position
from ops.__main__ import app
from ops.chaos import consumer, pictures, purged, rows
from ops.chaos.answer import Answer
from ops.chaos.cable import Way
from ops.chaos.camera import order
from ops.chaos.cast import Cast, Player
from ops.chaos.diary import Accepted, Boot, Bye, Diary, Entry, Gone, Received, Sent, Settled, last, read
from ops.chaos.director import Director
from ops.chaos.disk import Disk
from ops.chaos.equipment import Equipment
from ops.chaos.heard import Heard
from ops.chaos.pictures import MODELS, picture, score, shows, side
from ops.chaos.reconcile import Verdict, reconcile
from ops.chaos.recovery import Struck, spread, times
from ops.chaos.rows import BootState, Row, Rows
from ops.chaos.schedule import JUMPS, KILLED, LASTS, RATES, Fault, Kind, Victims, alone, counts, mixed
from ops.chaos.settings import Settings
from ops.chaos.told import Told
from tests.join_world import Bench, Items
from workers.engine.fake import EXIT_CODE, Fake, FakeEngine

DEADLINE = 30.0
BOOT = "c0c0c0c0c0c0"
VICTIMS = Victims(cameras=("cam1", "cam2"), workers=("left-0", "left-1", "right-0"))

# --- schedule --------------------------------------------------------------------------------------------------------

kinds = st.dictionaries(st.sampled_from(Kind), st.integers(0, 12), max_size=6)


@given(seed=st.integers(), seconds=st.floats(1, 600), wanted=kinds)
def test_a_schedule_follows_from_seed_and_options_alone(seed: int, seconds: float, wanted: dict[Kind, int]) -> None:
    faults = mixed(seed, seconds, wanted, VICTIMS)
    assert faults == mixed(seed, seconds, dict(reversed(wanted.items())), VICTIMS)
    assert Counter(fault.kind for fault in faults) == Counter({kind: n for kind, n in wanted.items() if n})
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    for fault in faults:
        assert 0 <= fault.at <= seconds
        everybody = [name for role in VICTIMS.roles for name in VICTIMS.of(role)]
        assert fault.victim in (VICTIMS.of(fault.kind.role) if fault.kind.role else ["", *everybody])
        assert (fault.jump in JUMPS) == (fault.kind is Kind.CLOCK_JUMP)
        assert (fault.towards in tuple(Way)) == (fault.kind is Kind.NET_HALF)
        assert (fault.seconds > 0) == (fault.kind in LASTS)
        assert (fault.model in MODELS) == (fault.kind is Kind.POISON)
        assert not fault.kill or fault.kind.value.endswith("-stop")


@given(seed=st.integers(), wanted=kinds.filter(lambda wanted: len(wanted) > 1))
def test_to_leave_a_kind_out_changes_nothing_about_the_others(seed: int, wanted: dict[Kind, int]) -> None:
    left_out = next(iter(wanted))
    fewer = {kind: count for kind, count in wanted.items() if kind is not left_out}
    all_faults = mixed(seed, 60.0, wanted, VICTIMS)
    assert mixed(seed, 60.0, fewer, VICTIMS) == [fault for fault in all_faults if fault.kind is not left_out]


def test_another_seed_is_another_run_and_every_victim_has_its_turn() -> None:
    wanted = {Kind.WORKER_KILL: 60, Kind.WORKER_STOP: 60}
    faults = mixed(1, 60.0, wanted, VICTIMS)
    assert faults != mixed(2, 60.0, wanted, VICTIMS)
    assert {fault.victim for fault in faults} == set(VICTIMS.workers)
    stops = [fault for fault in faults if fault.kind is Kind.WORKER_STOP]
    assert 0 < sum(fault.kill for fault in stops) < 2 * KILLED * len(stops)


@pytest.mark.parametrize("kind", Kind)
def test_alone_a_kind_strikes_as_often_as_asked_and_with_room_between(kind: Kind) -> None:
    faults = alone(3, kind, 20, VICTIMS)
    assert faults == alone(3, kind, 20, VICTIMS)
    assert [fault.kind for fault in faults] == [kind] * 20
    assert all(later.at - fault.at > fault.seconds + 0.5 for fault, later in itertools.pairwise(faults))
    assert not any(fault.kill for fault in faults)


def test_alone_a_kind_lasts_as_long_as_asked() -> None:
    assert {fault.seconds for fault in alone(3, Kind.NET_CUT, 5, VICTIMS, 30.0)} == {30.0}
    assert {fault.seconds for fault in Settings(each=Kind.NET_CUT, times=2, lasts=30.0).schedule({})} == {30.0}


def test_every_kind_has_a_rate_and_at_least_one_of_it_strikes() -> None:
    assert set(RATES) == set(Kind)
    assert counts({Kind.DISK_FULL: None, Kind.POISON: 3}, 1.0) == {Kind.DISK_FULL: 1, Kind.POISON: 3}
    assert counts({Kind.WORKER_KILL: None}, 120.0) == {Kind.WORKER_KILL: 2 * RATES[Kind.WORKER_KILL]}


def test_what_is_skipped_is_left_out_of_the_schedule() -> None:
    settings = Settings(kinds={Kind.POISON: 2, Kind.NET_CUT: 2})
    assert {fault.kind for fault in settings.schedule({Kind.NET_CUT: "no cable"})} == {Kind.POISON}


# --- pictures --------------------------------------------------------------------------------------------------------


def batch_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What an engine gets of a picture that fits its input."""
    return image[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


@given(camera=st.sampled_from(["cam1", "cam2"]), seq=st.integers(0, 1 << 40), poison=st.sampled_from(["", *MODELS]))
def test_an_engine_says_which_picture_it_saw_and_no_other(camera: str, seq: int, poison: str) -> None:
    seen = round(float(FakeEngine(Fake()).infer(batch_of(picture(camera, seq, poison, 64)))[0][0, 0, 5]), 4)
    assert shows(seen, camera, seq, poison)
    assert not any(shows(seen, camera, seq + step, "") for step in range(1, pictures.LEVELS) if not poison)
    assert not shows(None, camera, seq, poison)


def test_a_picture_has_the_size_that_was_asked_for() -> None:
    for size in (300, 30_000, 300_000, 6_000_000):
        assert abs(picture("cam1", 0, "", side(size)).nbytes - size) <= 0.2 * size


# --- diaries ---------------------------------------------------------------------------------------------------------

ENTRIES: list[Entry] = [
    Boot("cam1", BOOT),
    Sent(0, 1.5, "left"),
    Accepted(0),
    Settled(0, "complete", 1.6, 0.1),
    Bye(),
    Received("feed", 7, "cam1", BOOT, 0, "complete"),
    Gone("the ledger was replaced"),
]


def test_a_diary_gives_back_what_was_written_and_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    for entry in ENTRIES:
        with Diary(path) as diary:
            diary.write(entry)
        with path.open("ab") as file:
            file.write(b'{"type": "Sent", "se')  # killed in the middle of a write
    assert list(read(path)) == ENTRIES
    assert last(path) == ENTRIES[-1]


def test_no_diary_has_no_entries(tmp_path: Path) -> None:
    assert list(read(tmp_path / "none")) == []
    assert last(tmp_path / "none") is None


def test_a_consumer_goes_on_where_its_diary_ends(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    assert consumer.cursor(path) == Position("", 0)
    with Diary(path) as diary:
        diary.write(Received("feed", 7, "cam1", BOOT, 0, "complete"))
    assert consumer.cursor(path) == Position("feed", 7)


# --- reconciliation --------------------------------------------------------------------------------------------------


def key(seq: int) -> Key:
    return Key("cam1", BOOT, seq)


def answer(seq: int, poison: str = "", status: str = "ok", reason: str = "", tries: int = 1) -> Answer:
    return Answer(status, reason, tries, round(score("cam1", seq, poison), 4) if status == "ok" else None)


class World:
    """A run in which all went well: `frames` frames of one camera, of which those in `poison` killed their model."""

    def __init__(self, frames: int = 4, poison: dict[int, str] | None = None, ended: bool = True) -> None:
        self.told = Told("cam1", BOOT, ended=ended)
        self.rows = Rows(boots={("cam1", BOOT): BootState("ended" if ended else "cut", frames - 1)})
        self.heard = Heard()
        for seq in range(frames):
            bad = (poison or {}).get(seq, "")
            outcome = "incomplete" if bad else "complete"
            self.told.sent[seq] = Sent(seq, float(seq), bad)
            self.told.accepted.add(seq)
            self.told.settled[seq] = Settled(seq, outcome, seq + 0.5, 0.5)
            answers = {
                model: answer(seq, bad, "failed", "poison") if model == bad else answer(seq, bad) for model in MODELS
            }
            self.rows.frames[key(seq)] = Row(outcome, answers, published=1)
            self.heard.frames[key(seq)] = 1
            self.heard.outcomes[key(seq)] = outcome

    def verdict(self) -> Verdict:
        return reconcile([self.told], self.rows, self.heard, DEADLINE)

    def numbers(self) -> tuple[int, int, int]:
        verdict = self.verdict()
        assert verdict.passed == (sum((verdict.lost, verdict.duplicates, verdict.wrong)) == 0), verdict
        assert len(verdict.findings) >= (not verdict.passed)
        return verdict.lost, verdict.duplicates, verdict.wrong


@given(frames=st.integers(1, 30), data=st.data())
def test_a_run_without_faults_passes_and_each_frame_that_is_taken_away_is_found(frames: int, data: Any) -> None:
    poison = data.draw(st.dictionaries(st.integers(0, frames - 1), st.sampled_from(list(MODELS))))
    world = World(frames, poison)
    verdict = world.verdict()
    assert verdict.passed and verdict.promised == verdict.rows == verdict.sent == frames
    assert verdict.poison_sent == verdict.poison_flagged == verdict.incomplete == len(poison)

    victims = data.draw(st.sets(st.integers(0, frames - 1)))
    where = data.draw(st.sampled_from(["row", "outcome", "answer", "published", "received"]))
    for seq in victims:
        row = world.rows.frames[key(seq)]
        match where:
            case "row":
                del world.rows.frames[key(seq)]
                del world.heard.frames[key(seq)]
            case "outcome":
                row.outcome = None
            case "answer":
                model = next(iter(MODELS))
                del row.answers[model]
                row.outcome = world.heard.outcomes[key(seq)] = "incomplete" if seq in poison else "complete"
            case "published":
                row.published = 0
            case "received":
                del world.heard.frames[key(seq)]
    assert world.verdict().lost == len(victims)


@given(frames=st.integers(1, 30), data=st.data())
def test_each_frame_that_is_counted_twice_is_found(frames: int, data: Any) -> None:
    world = World(frames)
    published = data.draw(st.sets(st.integers(0, frames - 1)))
    received = data.draw(st.sets(st.integers(0, frames - 1)))
    for seq in published:
        world.rows.frames[key(seq)].published += 1
    for seq in received:
        world.heard.frames[key(seq)] += 1
    assert world.numbers() == (0, len(published | received), 0)


def test_a_frame_that_was_only_settled_was_promised_too() -> None:
    world = World()
    world.told.accepted.clear()
    assert world.numbers() == (0, 0, 0)
    del world.rows.frames[key(2)], world.heard.frames[key(2)]
    assert world.numbers() == (1, 0, 0)


def test_a_frame_that_was_never_accepted_may_be_missing_and_a_rejected_one_is_no_promise() -> None:
    world = World(ended=False)
    world.told.sent[4] = Sent(4, 4.0)
    world.told.settled[5] = Settled(5, "rejected: key_conflict", 5.0, 0.1)
    world.told.sent[5] = Sent(5, 5.0)
    assert world.numbers() == (0, 0, 0)
    assert world.verdict().rejected == 1


@pytest.mark.parametrize(
    "other",
    [
        answer(1, "left"),  # ok, and the score of the poison picture
        answer(2),  # the score of another frame
        Answer("ok", "", 1, None),  # ok, and nothing was seen
        answer(1, status="failed", reason="poison"),
        answer(1, status="failed", reason="orphaned"),
        answer(1, status="failed", reason="engine_error"),
        answer(1, status="expired", reason="queued"),  # long before its deadline
        answer(1, status="dropped", reason="superseded"),
    ],
)
def test_a_status_that_cannot_be_true_is_found(other: Answer) -> None:
    world = World()
    row = world.rows.frames[key(1)]
    row.answers["right"] = other
    if other.status != "ok":  # all agree about it
        row.outcome = world.heard.outcomes[key(1)] = "incomplete"
        world.told.settled[1] = Settled(1, "incomplete", 1.5, 0.5)
    assert world.numbers() == (0, 0, 1)


@pytest.mark.parametrize("other", [answer(1, "left"), answer(1, status="failed", reason="tries"), answer(1)])
def test_poison_must_be_called_poison(other: Answer) -> None:
    world = World(poison={1: "left"})
    world.rows.frames[key(1)].answers["left"] = other
    assert world.verdict().wrong == 1


def test_poison_of_one_model_is_not_the_other_models() -> None:
    world = World(poison={1: "left"})
    world.rows.frames[key(1)].answers["right"] = answer(1, status="failed", reason="poison")
    assert world.numbers() == (0, 0, 1)


@pytest.mark.parametrize(("status", "reason"), [("failed", "tries"), ("expired", "queued")])
def test_what_was_tried_too_often_or_came_too_late_is_true(status: str, reason: str) -> None:
    world = World()
    row = world.rows.frames[key(1)]
    row.answers["right"] = answer(1, status=status, reason=reason)
    row.outcome = world.heard.outcomes[key(1)] = "incomplete"
    world.told.settled[1] = Settled(1, "incomplete", 1.0 + DEADLINE, DEADLINE)
    assert world.numbers() == (0, 0, 0)
    assert world.verdict().statuses["right"] == {f"{status}: {reason}": 1, "ok": 3}


def test_poison_whose_camera_died_with_the_broker_is_unjudged() -> None:
    world = World(poison={3: "right"}, ended=False)
    world.rows.frames[key(3)].answers["right"] = answer(3, status="failed", reason="orphaned")
    del world.told.settled[3]
    assert world.numbers() == (0, 0, 0)
    verdict = world.verdict()
    assert (verdict.poison_sent, verdict.poison_flagged, verdict.poison_unjudged) == (1, 0, 1)


def test_orphaned_is_true_of_a_camera_that_died_with_the_broker() -> None:
    world = World(ended=False)
    row = world.rows.frames[key(3)]
    row.answers["right"] = answer(3, status="failed", reason="orphaned")
    row.outcome = world.heard.outcomes[key(3)] = "incomplete"
    del world.told.settled[3]
    assert world.numbers() == (0, 0, 0)


@pytest.mark.parametrize("who", ["ledger", "camera", "consumer"])
def test_all_must_say_the_same_of_a_frame(who: str) -> None:
    world = World()
    match who:
        case "ledger":
            world.rows.frames[key(1)].outcome = "incomplete"
        case "camera":
            world.told.settled[1] = Settled(1, "incomplete", 1.5, 0.5)
        case "consumer":
            world.heard.outcomes[key(1)] = "incomplete"
    assert world.numbers() == (0, 0, 1)


@pytest.mark.parametrize(
    ("ended", "state"),
    [
        (True, BootState("open", 3)),
        (True, BootState("ended", 2)),  # before the last that was promised
        (False, BootState("ended", 3)),  # it was killed
        (False, BootState("cut", 4)),  # after the last that was sent
    ],
)
def test_a_boot_that_is_wrong_on_record_is_found(ended: bool, state: BootState) -> None:
    world = World(ended=ended)
    world.rows.boots["cam1", BOOT] = state
    assert world.numbers() == (0, 0, 1)


def test_what_nobody_sent_is_found() -> None:
    world = World()
    other = Key("cam9", BOOT, 0)
    world.heard.frames[other] += 1
    assert world.numbers() == (0, 0, 1)
    world.rows.frames[other] = Row("complete", {model: answer(0) for model in MODELS}, published=1)
    world.heard.outcomes[other] = "complete"
    assert world.numbers() == (0, 0, 1)


def test_a_consumer_that_is_told_that_history_is_gone_has_lost_it() -> None:
    world = World()
    world.heard.gone.append("what was published since seq 3 is gone")
    assert world.numbers() == (1, 0, 0)


# --- what the ledger has deleted -------------------------------------------------------------------------------------


class Purged(World):
    """A run whose ledger has deleted its first `gone` frames of ten."""

    def __init__(self, gone: int = 4, poison: dict[int, str] | None = None) -> None:
        super().__init__(10, poison)
        self.rows.gone["cam1", BOOT] = [(0, gone - 1)]
        for seq in range(gone):
            row = self.rows.frames.pop(key(seq))
            self.heard.answers[key(seq)] = row.answers
            self.rows.deleted["frames", "cam1", row.outcome or ""] += 1
            for model, one in row.answers.items():
                self.rows.deleted["results", model, one.status] += 1
        kept = len(self.rows.frames)
        statuses: dict[str, Counter[str]] = {model: Counter() for model in MODELS}
        for answers in (*self.heard.answers.values(), *(row.answers for row in self.rows.frames.values())):
            for model, one in answers.items():
                statuses[model][one.status] += 1
        self.rows.told = {
            "accepted": 10, "joined": 10, "frames": kept, "published": 10, "duplicates": 0, "unpublished": 0,
            "statuses": {model: dict(counts) for model, counts in statuses.items()},
        }  # fmt: skip

    def verdict(self) -> Verdict:
        rows = purged.completed(self.rows, self.heard.outcomes, self.heard.answers)
        return reconcile([self.told], rows, self.heard, DEADLINE)


def test_what_was_deleted_is_accounted_for_and_not_lost() -> None:
    world = Purged(4, poison={1: "left", 7: "right"})
    assert world.numbers() == (0, 0, 0)
    verdict = world.verdict()
    assert (verdict.rows, verdict.purged, verdict.promised) == (10, 4, 10)
    assert verdict.poison_sent == verdict.poison_flagged == verdict.incomplete == 2
    assert sum(verdict.statuses["left"].values()) == 10


def test_deleted_answers_that_were_never_tried_or_tried_again_are_counted_as_the_ledger_does() -> None:
    world = Purged()
    for seq, tries in ((1, 0), (2, 3)):
        world.heard.answers[key(seq)]["left"] = answer(seq, tries=tries)
    world.rows.deleted["requeued", "", ""] += 2
    assert world.numbers() == (0, 0, 0)


def test_a_frame_that_is_missing_and_was_not_deleted_is_lost_all_the_same() -> None:
    world = Purged()
    del world.rows.frames[key(8)]
    assert world.verdict().lost == 1


def test_a_frame_that_was_deleted_before_the_consumer_had_it_is_lost() -> None:
    world = Purged()
    del world.heard.frames[key(2)], world.heard.outcomes[key(2)]
    lost, _, wrong = world.numbers()
    assert lost == 1 and wrong >= 1, "and the sums do not meet"


@pytest.mark.parametrize("count", [-1, 1])
@pytest.mark.parametrize("what", [("frames", "cam1", "complete"), ("results", "left", "ok"), ("requeued", "", "")])
def test_a_wrong_count_of_the_deleted_is_found(what: tuple[str, str, str], count: int) -> None:
    world = Purged()
    world.rows.deleted[what] += count
    assert world.numbers() == (0, 0, 1)


@pytest.mark.parametrize("name", ["accepted", "joined", "frames", "published", "duplicates", "unpublished"])
def test_a_report_that_does_not_sum_is_found(name: str) -> None:
    world = Purged()
    world.rows.told = {**world.rows.told, name: world.rows.told[name] + 1}
    assert world.numbers() == (0, 0, 1)


def test_a_deleted_frame_must_have_been_true_as_well() -> None:
    world = Purged()
    world.heard.answers[key(1)]["left"] = answer(2)
    assert world.numbers() == (0, 0, 1)
    world = Purged()
    world.heard.frames[key(1)] += 1
    assert world.numbers() == (0, 1, 0)


def test_a_boot_that_ended_and_was_deleted_takes_its_frames_along() -> None:
    world = Purged(10)
    del world.rows.boots["cam1", BOOT], world.rows.gone["cam1", BOOT]
    assert world.verdict().lost == 10, "a boot that nobody deleted is missing"
    world.rows.deleted["boots", "", "ended"] = 1
    assert world.numbers() == (0, 0, 0)


def test_rows_are_read_with_what_was_deleted(tmp_path: Path) -> None:
    bench, items = Bench(tmp_path / "ledger.sqlite"), Items()
    try:
        keys = [Key("lone", BOOT, seq) for seq in range(3)]
        bench.turn(items.line(), items.expect(*(items.expectation(one) for one in keys)))
        bench.turn(items.result(*(items.outcome(one, tries=2) for one in keys)))
        bench.ledger.step(Delete(math.inf, 0.0))
        found = rows.read(bench.path)
        gone = [one for one in keys if purged.is_gone(one, found)]
        assert len(gone) == 3 - len(found.frames) >= 1
        assert found.deleted["frames", "lone", "complete"] == found.deleted["requeued", "", ""] == len(gone)
        bench.ledger.step(Delete(math.inf, 60.0))
        assert rows.read(bench.path).frames == {} and rows.unfinished(bench.path)[2] == 3, "the stream goes on"
        answers = {"alpha": Answer("ok", "", 2, None)}
        whole = purged.completed(rows.read(bench.path), dict.fromkeys(keys, "complete"), dict.fromkeys(keys, answers))
        assert whole.purged == set(keys) and not list(purged.findings(whole, [("lone", BOOT)]))
    finally:
        bench.close()


def test_a_run_in_which_nothing_was_promised_proves_nothing() -> None:
    assert not reconcile([], Rows(), Heard(), DEADLINE).passed


def test_diaries_are_read_as_they_were_written() -> None:
    told = Told.of(ENTRIES[:5])
    assert (told.camera, told.boot, told.accepted, told.ended) == ("cam1", BOOT, {0}, True)
    assert told.sent[0].poison == "left" and told.settled[0].outcome == "complete"
    heard = Heard.of(ENTRIES[5:])
    assert heard.frames == {key(0): 1} and heard.gone == ["the ledger was replaced"]


# --- recovery --------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), min_size=1))
def test_quantiles_are_times_that_were_measured(seconds: list[float]) -> None:
    found = spread(seconds)
    measured = {round(value, 4) for value in seconds}
    assert found.count == len(seconds) and found.max == round(max(seconds), 4)
    assert {found.p50, found.p99} <= measured
    assert found.p50 is not None and found.p99 is not None and found.p50 <= found.p99


def struck(kind: Kind, at: float, back_at: float, victim: str = "left-0") -> Struck:
    return Struck(kind=kind, victim=victim, at=at, back_at=back_at, model="left")


def test_frames_that_a_dead_worker_held_tell_how_long_recovery_took() -> None:
    world = World(6)  # captured at 0, 1, 2...; settled half a second later
    world.told.settled[2] = Settled(2, "complete", 3.25, 1.25)
    world.rows.frames[key(2)].answers["left"] = answer(2, tries=2)
    world.rows.frames[key(1)].answers["left"] = answer(1, tries=2)  # settled before the fault
    found = times([world.told], world.rows, world.heard, [struck(Kind.WORKER_KILL, 2.2, 2.3)], since=0.0, service=0.05)
    assert found.recovery["worker-kill"] == spread([1.0])
    none = times([world.told], world.rows, world.heard, [struck(Kind.WORKER_KILL, 4.6, 4.7)], since=0.0, service=0.05)
    assert none.recovery == {}


@pytest.mark.parametrize(("kind", "seconds"), [(Kind.BROKER_KILL, 0.7), (Kind.BROKER_STOP, 0.4)])
def test_broker_and_join_have_recovered_with_the_first_frame_that_settles_after_it(kind: Kind, seconds: float) -> None:
    world = World(6)
    found = times([world.told], world.rows, world.heard, [struck(kind, 2.8, 3.1, "broker")], since=0.0, service=0.0)
    assert found.recovery[kind.value] == spread([seconds])


def test_frames_around_a_fault_of_the_network_are_counted_until_the_consumer_has_them() -> None:
    world = World(8)  # captured at 0, 1, 2...
    world.heard.at = {key(seq): seq + 0.5 for seq in range(8)}
    world.heard.at[key(2)] = 3.0
    world.rows.frames[key(2)].answers["left"] = answer(2, tries=2)
    cut = [struck(Kind.NET_CUT, 2.2, 4.2, "")]
    found = times([world.told], world.rows, world.heard, cut, since=0.0, service=0.0)
    assert found.around["net-cut"] == spread([0.8, 0.5, 0.5])  # frame 2 from the cut on, frames 3 and 4
    assert found.again["net-cut"] == spread([0.8])
    assert found.recovery == {}
    beyond = times([world.told], world.rows, world.heard, cut, since=0.0, service=0.0, far=["cam1"])
    assert beyond.around == beyond.again == {"net-cut": spread([0.8])}


def test_frames_away_from_outages_are_counted_apart_and_poison_in_neither() -> None:
    world = World(6, poison={5: "left"})
    outage = [struck(Kind.JOIN_KILL, 2.8, 3.1, "join")]  # until frame 3 settles, at 3.5
    found = times([world.told], world.rows, world.heard, outage, since=1.0, service=0.0)
    assert (found.settled.count, found.clear.count, found.poison.count) == (4, 3, 1)


# --- the cast --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cast(tmp_path: Path) -> Iterator[Cast]:
    def explain(player: Player, code: int) -> str:
        return "poison" if code == EXIT_CODE else ""

    with Cast(tmp_path, explain) as instance:
        yield instance


def turn_until(cast: Cast, done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30.0
    while not done():
        assert time.monotonic() < end
        cast.turn(time.monotonic())
        time.sleep(0.01)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


#: Waits in slices: a signal that another thread of a process takes does not wake the main thread.
_WAITS = """
import threading
from broker.ending import when_asked_to_end
end = threading.Event()
when_asked_to_end({heed})
print("here", flush=True)
while not end.wait(0.05):
    pass
"""
ENDS = python(_WAITS.format(heed="end.set"))
DEAF = python(_WAITS.format(heed="lambda: None"))


def test_what_ends_starts_again_and_what_no_fault_explains_is_a_crash(cast: Cast) -> None:
    cast.add("poisoned", "worker", python(f"import os; os._exit({EXIT_CODE})"))
    cast.add("broken", "worker", python("import os; print('this is why', flush=True); os._exit(3)"))
    turn_until(cast, lambda: cast.exits["poison"] >= 2 and len(cast.crashes) >= 2)
    assert all("broken exit code 3" in crash and "this is why" in crash for crash in cast.crashes)


def test_who_is_killed_starts_again_and_who_is_asked_ends_in_order(cast: Cast) -> None:
    cast.add("one", "worker", ENDS)
    player = cast.players["one"]
    first = player.since
    cast.kill("one")
    assert player.running and player.since > first
    turn_until(cast, lambda: player.spoke)
    player.stop()
    cast.end("one")  # it has to run again to heed that
    turn_until(cast, lambda: not cast.running("worker"))
    assert (cast.crashes, dict(cast.exits)) == ([], {})


def test_who_does_not_end_is_killed_and_named(cast: Cast) -> None:
    cast.add("deaf", "worker", DEAF)
    turn_until(cast, lambda: cast.players["deaf"].spoke)
    cast.end("deaf", 0.05)
    turn_until(cast, lambda: not cast.running("worker"))
    assert "did not end in order" in cast.crashes[0]


def test_a_fault_waits_for_its_victim_to_serve_and_strikes_it_then(cast: Cast, tmp_path: Path) -> None:
    cast.add("left-0", "worker", python(_WAITS.format(heed="end.set").replace('"here"', """'"session open"'""")))
    director = Director(cast, tmp_path, Equipment())
    director.take([Fault(at=0.0, kind=Kind.WORKER_KILL, victim="left-0")], time.monotonic())
    first = cast.players["left-0"].since

    def turn() -> bool:
        director.turn(time.monotonic())
        return director.idle

    turn_until(cast, turn)
    assert [(one.kind, one.victim, one.serving) for one in director.struck] == [(Kind.WORKER_KILL, "left-0", True)]
    assert director.struck[0].at > first and cast.players["left-0"].since >= director.struck[0].back_at


def test_a_poison_order_that_no_camera_takes_is_given_up_and_counted(cast: Cast, tmp_path: Path) -> None:
    director = Director(cast, tmp_path, Equipment())
    director.take([Fault(at=at, kind=Kind.POISON, victim="cam1", model="left") for at in (0.0, 1.0, 2.0)], 100.0)
    for now in range(100, 120):
        director.turn(float(now))
    assert [one.kind for one in director.struck] == [Kind.POISON], "the first lies there"
    assert director.idle and director.given_up == {Kind.POISON: 2}
    order(tmp_path, "cam1").unlink()
    director.take([Fault(at=0.0, kind=Kind.POISON, victim="cam1", model="left")], 130.0)
    director.turn(130.0)
    assert len(director.struck) == 2


def test_an_order_to_hang_that_no_worker_takes_is_counted(cast: Cast, tmp_path: Path) -> None:
    cast.add("left-0", "worker", ENDS)  # it never serves
    director = Director(cast, tmp_path, Equipment())
    director.take([Fault(at=0.0, kind=Kind.WORKER_STUCK, victim="left-0", seconds=1.0)], 100.0)
    for now in range(100, 120):
        director.turn(float(now))
    assert director.idle and not director.struck and director.given_up == {Kind.WORKER_STUCK: 1}


def test_a_full_disk_takes_nothing_and_then_takes_it_again(tmp_path: Path) -> None:
    if reason := Disk.missing():
        pytest.skip(reason)
    disk, file = Disk(tmp_path / "disk", 1 << 20), tmp_path / "disk" / "file"
    try:
        disk.__enter__()
    except OSError as error:
        pytest.skip(str(error))
    try:
        disk.fill()
        with pytest.raises(OSError):
            file.write_bytes(bytes(8192))
        disk.free()
        file.write_bytes(bytes(8192))
    finally:
        disk.__exit__()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--faults", "earthquake"],
        ["--faults", "poison:few"],
        ["--each", "kill"],
        ["--size", "big"],
        ["--size", "10"],
        ["--retain", "30"],
    ],
)
def test_wrong_options_are_refused_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["chaos", *arguments]).exit_code == 2


def test_help_names_examples() -> None:
    assert "gongwei chaos --each" in CliRunner().invoke(app, ["chaos", "--help"]).output


#: In 75 s, on two cores that others use as well.
STRIKES = {
    "worker-kill": 60,
    "worker-stop": 8,
    "worker-stuck": 12,
    "poison": 9,
    "broker-kill": 8,
    "join-kill": 8,
    "camera-kill": 8,
    "consumer-kill": 8,
    "join-stop": 1,
    "broker-stop": 1,
    "worker-restart": 2,
    "broker-restart": 1,
    "disk-full": 1,
    "net-cut": 1,
    "net-half": 1,
    "net-delay": 1,
    "net-loss": 1,
    "net-slow": 1,
    "clock-jump": 6,
}
#: What needs more than a machine may have.
NEEDY = ("disk-full", "net-cut", "net-half", "net-delay", "net-loss", "net-slow", "clock-jump")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_line_that_is_struck_for_75_seconds_loses_nothing_and_says_nothing_untrue(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    options = ["--seconds", "75", "--seed", "11", "--rate", "12", "--size", "12k", "--report", str(path)]
    options += ["--retain", "45"]  # of what is older the ledger keeps the account alone
    faults = ",".join(f"{kind}:{count}" for kind, count in STRIKES.items())
    done = CliRunner().invoke(app, ["chaos", *options, "--faults", faults, "--keep", str(tmp_path / "run")])
    report = json.loads(path.read_text(encoding="utf-8"))
    verdict = msgspec.convert(report["verdict"], Verdict)
    assert (report["crashes"], report["unfinished"], verdict.findings) == ([], [], [])
    assert done.exit_code == 0 and report["passed"]
    # How many come through is the machine's affair: where others take both cores it was a quarter of 1,700.
    assert verdict.promised > 200 and verdict.rows >= verdict.promised
    assert 0 < verdict.purged < verdict.rows
    assert verdict.poison_flagged + verdict.poison_unjudged == verdict.poison_sent
    assert verdict.poison_flagged > 0
    struck = {kind: report["faults"].get(kind, 0) for kind in STRIKES.keys() - report["skipped"].keys()}
    # An order waits for a call, or a picture; in a bad moment none comes for long: it is given up, and counted.
    assert all(struck[kind] + report["given_up"].get(kind, 0) >= STRIKES[kind] for kind in struck if STRIKES[kind] > 2)
    assert struck["worker-stuck"] >= 2 and struck["poison"] >= 2
    assert report["exits"]["poison"] >= 3
    assert report["skipped"].keys() <= set(NEEDY)
    assert all(struck[kind] == STRIKES[kind] for kind in NEEDY if kind in struck)
    assert report["times"]["settled"]["count"] > 200


def test_a_fault_is_replayed_by_its_seed() -> None:
    settings = Settings(seed=5, kinds=dict.fromkeys(Kind, 3))
    faults: list[Fault] = settings.schedule({})
    again = msgspec.json.decode(msgspec.json.encode(settings), type=Settings).schedule({})
    assert again == faults and len(faults) == 3 * len(Kind)


def test_an_order_makes_one_call_hang_and_is_taken_away(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    engine = FakeEngine(Fake.parse(f"orders={orders}"))
    engine.close()  # its waits are over at once: what counts is that the order is gone
    batch = batch_of(picture("cam1", 0, "", 64))
    engine.infer(batch)
    orders.write_text("0.8", encoding="ascii")
    engine.infer(batch)
    assert not orders.exists()
