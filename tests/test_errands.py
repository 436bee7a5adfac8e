"""Processes that answer lines with lines."""

from __future__ import annotations

import sys

import pytest

from ops.errands import ErrandError, Errands, share_out

ECHO = "import sys; from ops.errands import serve; serve(lambda line: sys.argv[1] + ':' + line[::-1])"
DIES = "import sys; sys.stdin.readline(); sys.exit(3)"


def crew(code: str, count: int) -> Errands:
    return Errands([sys.executable, "-c", code], count)


def test_every_line_is_answered_once() -> None:
    lines = [f"line {number}" for number in range(40)]
    with crew(ECHO, 2) as both:
        answers = [answer.partition(":") for answer in share_out(both, lines)]
    assert sorted(text[::-1] for _, _, text in answers) == sorted(lines)
    assert {number for number, _, _ in answers} == {"0", "1"}


def test_fewer_lines_than_processes() -> None:
    with crew(ECHO, 3) as three:
        assert list(share_out(three, ["ab"])) == ["0:ba"]
        assert list(share_out(three, [])) == []


def test_a_process_that_dies_is_an_error() -> None:
    with crew(DIES, 1) as one, pytest.raises(ErrandError, match="process 0 ended with exit code 3"):
        list(share_out(one, ["go"]))


def test_nothing_within_the_time_is_none() -> None:
    with crew(ECHO, 1) as one:
        assert one.take(timeout=0.0) is None
        one.give(0, "x")
        assert one.take(timeout=60.0) == (0, "0:x")
