from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.pace import Pace

GATHER = 0.001
BUSY = 2000.0


def paced(turns: int, every: float, messages: int) -> tuple[Pace, float]:
    """A loop that took `messages` in each of so many turns, and the beginning of the last one."""
    pace, now = Pace(GATHER, BUSY), 100.0
    for _ in range(turns):
        now += every
        pace.turned(now, messages)
    return pace, now


def test_a_loop_with_time_never_pauses() -> None:
    pace, now = paced(turns=100, every=0.0011, messages=2)
    assert pace.pause(now) == 0.0


def test_a_busy_loop_lets_messages_gather() -> None:
    pace, now = paced(turns=100, every=0.0009, messages=2)
    assert pace.pause(now) == pytest.approx(GATHER)


def test_the_turn_itself_counts_as_gathering() -> None:
    pace, now = paced(turns=100, every=0.0009, messages=2)
    assert pace.pause(now + 0.0004) == pytest.approx(GATHER - 0.0004)
    assert pace.pause(now + 2 * GATHER) == 0.0


def test_a_few_turns_say_nothing() -> None:
    pace, now = paced(turns=3, every=0.0001, messages=1000)
    assert pace.pause(now) == 0.0


def test_a_rush_that_is_over_is_forgotten() -> None:
    pace, now = paced(turns=100, every=0.0005, messages=100)
    for _ in range(16):
        now += 0.05
        pace.turned(now, 0)
    assert pace.pause(now) == 0.0


@given(st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 500)), max_size=60), st.floats(0, 0.1))
def test_a_pause_is_short_and_only_for_a_busy_loop(turns: list[tuple[float, int]], later: float) -> None:
    pace, now = Pace(GATHER, BUSY), 0.0
    for elapsed, messages in turns:
        now += elapsed
        pace.turned(now, messages)
    pause = pace.pause(now + later)
    assert 0.0 <= pause <= GATHER + 1e-9
    if pause:
        recent = turns[-15:]
        assert sum(messages for _, messages in recent) >= BUSY * sum(elapsed for elapsed, _ in recent) * 0.999
