"""A peer that does not answer is told of once, and once more when it is back."""

from __future__ import annotations

import pytest

from broker.silence import LIMIT, Silence, Word

Turn = tuple[float, bool]


def said(turns: list[Turn], limit: float = 3.0) -> list[tuple[float, Word]]:
    """What is said, and when."""
    silence = Silence(limit)
    words = [(now, silence.turn(heard, now)) for now, heard in turns]
    return [(now, word) for now, word in words if word is not None]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([(100, False), (102.9, False)], []),
        ([(100, False), (103, False)], [(103, "warn")]),
        ([(100, False), (103, False), (104, False), (900, False)], [(103, "warn")]),
        ([(100, False), (102, True), (104.9, False)], []),
        ([(100, False), (102, True), (105, False)], [(105, "warn")]),
        ([(100, True), (200, True)], []),
        ([(100, False), (103, False), (104, True), (104.1, True)], [(103, "warn"), (104, "back")]),
        (
            [(100, False), (103, False), (104, True), (106, False), (107, False), (108, True)],
            [(103, "warn"), (104, "back"), (107, "warn"), (108, "back")],
        ),
    ],
    ids=[
        "not yet",
        "at the limit",
        "once only",
        "heard in between",
        "counted from the last word",
        "slow turns of a peer that is there",
        "back once",
        "every outage",
    ],
)
def test_what_is_said_and_when(turns: list[Turn], expected: list[tuple[float, Word]]) -> None:
    assert said(turns) == expected


def test_the_limit_is_a_parameter() -> None:
    turns: list[Turn] = [(0, False), (0.5, False), (LIMIT, False)]
    assert said(turns, 0.5) == [(0.5, "warn")]
    assert said(turns, LIMIT) == [(LIMIT, "warn")]
