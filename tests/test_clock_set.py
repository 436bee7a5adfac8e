"""Clocks that are wrong: what is old goes in the end, and nothing that is young goes with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from broker.instants import AHEAD
from broker.keeper import Keeper
from broker.ledger import Ledger
from broker.retention import Delete, Holding, Keep, Retention, keep
from broker.rows import SEQ_BITS, BootRow, PublishedRow, Rows, SkipRow, TopicRow
from broker.turn import Counts
from broker.wall_clock import STEADY, WallClock
from tests.join_world import BOOT, WALL

DAY = 86400.0
HOUR = 3600.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as made:
        made.commit(Rows(boots=[BootRow(1, "lone", BOOT, "open", -1, "e")], topics=[TopicRow(1, "part/press/", 0)]))
        yield made


def publish(ledger: Ledger, *instants: float, first: int = 1) -> None:
    """Publications of parts, which say when they were."""
    heads = [msgspec.msgpack.encode({"published_at": instant}) for instant in instants]
    ledger.commit(Rows(published=[PublishedRow(first + n, None, 1, None, head) for n, head in enumerate(heads)]))


def deleted(ledger: Ledger, before: float, wall: float = WALL) -> int:
    return ledger.step(Delete(before, 60.0, latest=wall + AHEAD)).rows["published", "", ""]


# --- what the wall clock is believed --------------------------------------------------------------------------------


def run(clock: WallClock, first: float, last: float, lead: float) -> list[float]:
    """Read it each minute; what is believed, in excess of a clock that was right from the start."""
    return [clock.read(now, WALL + now + lead) - WALL - now for now in map(float, range(int(first), int(last), 60))]


def test_a_clock_that_is_set_right_is_believed_when_it_has_stayed_so() -> None:
    clock = WallClock()
    assert set(run(clock, 0, 60, -WALL)) == {-WALL}
    assert set(run(clock, 60, 60 + STEADY, 0.0)) == {-WALL}
    clock.read(60 + STEADY, WALL + 60 + STEADY)
    assert clock.moved == pytest.approx(WALL)
    assert set(run(clock, 120 + STEADY, 30 * DAY, 0.0)) == {0.0} and clock.moved == 0.0


@pytest.mark.parametrize("lead", [DAY, 365 * DAY])
def test_a_clock_that_jumps_ahead_for_less_is_not_believed(lead: float) -> None:
    clock = WallClock()
    for number in range(20):
        begin = number * STEADY
        assert set(run(clock, begin, begin + 60, 0.0) + run(clock, begin + 60, begin + STEADY, lead)) == {0.0}


def test_a_clock_that_is_set_again_and_again_is_not_believed() -> None:
    clock = WallClock()
    clock.read(0.0, WALL)
    assert {run(clock, now, now + 600, now)[0] for now in range(600, 40 * 600, 600)} == {0.0}


def test_a_clock_that_was_ahead_at_the_start_is_not_believed_a_second_time() -> None:
    """It is set back, and stays so; then it jumps to where it was."""
    clock = WallClock()
    run(clock, 0, 60, DAY)
    assert set(run(clock, 60, 2 * STEADY, 0.0)) == {0.0}
    assert set(run(clock, 2 * STEADY, 2.5 * STEADY, DAY)) == {0.0}


def test_a_machine_that_starts_in_1970_deletes_by_age_when_its_clock_was_set(ledger: Ledger) -> None:
    retention = Retention(keep(7.0, 0.0))
    keeper = Keeper(ledger, retention, Counts())
    publish(ledger, 5.0, 6.0)
    keeper.turn(0.0, 5.0, idle=True)
    publish(ledger, WALL + 100.0, first=3)
    with capture_logs() as logs:
        for now in range(100, int(2 * HOUR), 60):
            keeper.turn(float(now), WALL + now, idle=True)
    assert [line["seconds"] for line in logs] == [round(WALL - 5.0)]
    assert ledger.oldest_seq() == 1, "what is labelled 1970 is not two hours old"
    keeper.turn(7 * DAY, WALL + 7 * DAY, idle=True)
    assert ledger.oldest_seq() == 1
    for late in (101.0, 102.0):
        keeper.turn(7 * DAY + late, WALL + 7 * DAY + late, idle=True)
    assert ledger.oldest_seq() == 4, "they go with the one after them"


def test_while_the_clock_is_not_believed_nothing_is_deleted(ledger: Ledger) -> None:
    retention = Retention(Keep(seconds=DAY))
    publish(ledger, WALL)
    held = Holding(pages=10, free=0, page=4096, shrinks=True, oldest=WALL)
    retention.decide(0.0, WALL, held, idle=True)
    assert not isinstance(retention.decide(1.0, WALL + 365 * DAY, held, idle=True), Delete)


# --- publications of a wrong clock ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [WALL + 365 * DAY, 5.0, math.inf, math.nan], ids=["ahead", "1970", "inf", "nan"])
@pytest.mark.parametrize("count", [1, 40, 1000])
def test_a_publication_of_a_wrong_clock_goes_with_its_successors(ledger: Ledger, wrong: float, count: int) -> None:
    publish(ledger, *[wrong] * count, WALL - 30 * DAY, WALL - 29 * DAY, WALL - 28 * DAY, WALL)
    assert ledger.holding(WALL + AHEAD).oldest == WALL - 30 * DAY
    assert deleted(ledger, WALL - 7 * DAY) == count + 3 and ledger.oldest_seq() == count + 4


@pytest.mark.parametrize("wrong", [WALL + 365 * DAY, 5.0])
@pytest.mark.parametrize("count", [1, 40, 1000])
def test_a_publication_of_a_wrong_clock_does_not_go_before_its_successors(
    ledger: Ledger, wrong: float, count: int
) -> None:
    publish(ledger, *[wrong] * count)
    assert ledger.holding(WALL + AHEAD).oldest == math.inf and deleted(ledger, WALL - 7 * DAY) == 0, "nothing is known"
    publish(ledger, *[WALL - 6 * DAY] * count, WALL, first=count + 1)
    assert deleted(ledger, WALL - 7 * DAY) == 0
    assert deleted(ledger, WALL - 6 * DAY + 1) == 2 * count


def test_a_young_one_holds_up_what_came_after(ledger: Ledger) -> None:
    """Its own word counts where it can be true, though one after it says that it is older."""
    publish(ledger, WALL - 8 * DAY, WALL - DAY, WALL - 30 * DAY)
    assert deleted(ledger, WALL - 7 * DAY) == 1


def test_where_the_size_counts_instants_do_not(ledger: Ledger) -> None:
    publish(ledger, WALL + 365 * DAY, 5.0, WALL)
    assert deleted(ledger, math.inf) == 3


def test_skips_of_a_clock_that_was_not_set_count_from_now_on(ledger: Ledger) -> None:
    ledger.commit(Rows(skips=[SkipRow((1 << SEQ_BITS) + n, "no_credit", 5.0 + n) for n in range(100)]))
    step = Delete(WALL - DAY, 60.0, latest=WALL + AHEAD)
    assert not ledger.step(step) and ledger.holding().oldest == WALL
    assert ledger.step(step._replace(before=WALL + 1)).rows["skips", "lone", ""] == 100
