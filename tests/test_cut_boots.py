"""Boots that were cut: a camera that starts again and again fills no ledger, and one that comes back is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from broker.report import report
from broker.retention import CUT_FOR, Keep, Retention, Tidy
from broker.wire import BootNote, Key, Note, SkipNote
from tests.join_world import EPOCH, WALL, Bench, Items
from tests.test_retention import delete, holding, joined

DAY = 86400.0
A_DAY = Keep(seconds=DAY)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "ledger.sqlite")
    yield bench
    bench.close()


def name(number: int) -> str:
    return f"{number:012x}"


def noted(bench: Bench, items: Items, number: int, state: Literal["open", "ended", "cut"] = "cut") -> None:
    note = BootNote(ticket=items.next(), camera="lone", boot=name(number), state=state, last_seq=-1)
    bench.turn(Note(epoch=EPOCH, boots=[note]))


def tidied(bench: Bench, keep: Keep = A_DAY) -> None:
    """What retention has done of itself."""
    step = Retention(keep).decide(0.0, WALL + bench.now, holding(oldest=None), idle=True)
    assert isinstance(step, Tidy)
    delete(bench, step)


def kept(bench: Bench) -> list[str]:
    assert bench.ledger._db is not None
    return [name for (name,) in bench.ledger._db.execute("SELECT name FROM boots ORDER BY boot")]


@pytest.mark.parametrize(
    ("keep", "seconds"),
    [(Keep(seconds=DAY), DAY + CUT_FOR), (Keep(bytes=1 << 30), CUT_FOR), (Keep(DAY, 1 << 30), CUT_FOR)],
)
def test_a_camera_that_starts_again_and_again_fills_no_ledger(bench: Bench, keep: Keep, seconds: float) -> None:
    items = Items()
    for number in range(600):
        noted(bench, items, number)
    bench.now += seconds
    tidied(bench, keep)
    assert len(kept(bench)) == 600
    bench.now += 1.0
    tidied(bench, keep)
    assert kept(bench) == [name(599)], "the newest stays"
    counts = report(bench.path)
    assert counts["boots"] == {"cut": 600} and counts["deleted"]["boots"] == 599
    noted(bench, items, 600, "open")
    assert len(kept(bench)) == 2


def test_a_boot_that_holds_something_stays(bench: Bench) -> None:
    items = Items()
    joined(bench, items, Key("lone", name(0), 0))
    skip = SkipNote(ticket=items.next(), key=Key("lone", name(1), 0), reason="no_credit")
    bench.turn(Note(epoch=EPOCH, skips=[skip]))
    for number in range(4):
        noted(bench, items, number, "open" if number == 2 else "cut")
    bench.now += 9 * DAY
    tidied(bench)
    assert kept(bench) == [name(number) for number in range(4)]
    delete(bench)
    tidied(bench)
    assert kept(bench) == [name(2), name(3)]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_camera_that_comes_back_in_a_cut_boot_is_not_accepted_twice(bench: Bench, restarted: bool) -> None:
    """Its frame is deleted, its camera has started anew since, and then the old process comes back with the frame."""
    items = Items()
    joined(bench, items, Key("lone", name(0), 0))
    noted(bench, items, 0)
    noted(bench, items, 1)
    delete(bench)
    bench.now += DAY + CUT_FOR - 1.0
    tidied(bench)
    if restarted:
        bench.restart()
    joined(bench, items, Key("lone", name(0), 0))
    counts = report(bench.path)
    assert (counts["accepted"], counts["joined"], counts["frames"]) == (1, 1, 0)
    noted(bench, items, 0, "open")
    bench.now += 2.0
    noted(bench, items, 0)
    tidied(bench)
    assert kept(bench) == [name(0), name(1)], "it counts from when it was cut again"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_frame_of_a_boot_that_was_deleted_has_a_boot_again(bench: Bench, restarted: bool) -> None:
    """The join remembers no number that has no row any more."""
    items = Items()
    for number in range(2):
        noted(bench, items, number)
    bench.now += 9 * DAY
    tidied(bench)
    assert kept(bench) == [name(1)]
    if restarted:
        bench.restart()
    joined(bench, items, Key("lone", name(0), 5))
    assert kept(bench) == [name(1), name(0)]
    counts = report(bench.path)
    assert (counts["accepted"], counts["cameras"]["lone"]["joined"]) == (1, 1)


def test_a_boot_of_a_clock_that_was_not_set_counts_from_now_on(bench: Bench) -> None:
    items = Items()
    now, bench.now = bench.now, -WALL
    for number in range(2):
        noted(bench, items, number)
    bench.now = now
    tidied(bench)
    assert len(kept(bench)) == 2
    bench.now += DAY + CUT_FOR + 1.0
    tidied(bench)
    assert kept(bench) == [name(1)]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_skip_that_was_deleted_is_not_counted_again(bench: Bench, restarted: bool) -> None:
    """No frame of its boot lies above it."""
    items = Items()
    skip = SkipNote(ticket=items.next(), key=Key("lone", name(0), 20), reason="no_credit")
    bench.turn(Note(epoch=EPOCH, skips=[skip]))
    if restarted:
        bench.restart()
    delete(bench)
    turn = bench.turn(Note(epoch=EPOCH, skips=[skip]))
    assert turn.tickets[EPOCH] == [skip.ticket] and report(bench.path)["skips"] == {"lone": 1}
