from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from broker.timetable import Timetable


def frame(deadline: float) -> Any:
    return SimpleNamespace(deadline=deadline)


@example([(0.35, False)], [0.35])  # 0.35 / 0.01 * 0.01 > 0.35
@given(st.lists(st.tuples(st.floats(0, 2), st.booleans())), st.lists(st.floats(0, 3)))
def test_each_frame_is_due_once_at_its_deadline_unless_removed(
    frames: list[tuple[float, bool]], moments: list[float]
) -> None:
    table = Timetable()
    left = []
    for deadline, removed in frames:
        one = frame(deadline)
        table.add(one)
        if removed:
            table.remove(one)
        else:
            left.append(one)
    for now in sorted([*moments, 4.0]):
        first = table.next(9.0)
        assert first == min((one.deadline for one in left), default=None)
        due = list(table.due(now))
        assert sorted(map(id, due)) == sorted(id(one) for one in left if one.deadline <= now)
        left = [one for one in left if one.deadline > now]
    assert table.next(9.0) is None


def test_a_removed_frame_wakes_nobody() -> None:
    table = Timetable()
    one = frame(5.0)
    table.add(one)
    table.remove(one)
    assert table.next(9.0) is None
    table.add(one)
    assert table.next(9.0) == 5.0
    assert table.next(5.0) is None
