"""Numbers of things, in words."""

from __future__ import annotations

import pytest

from broker.plural import counted


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [(0, "frame", "0 frames"), (1, "class", "1 class"), (2, "best class", "2 best classes"), (3, "box", "3 boxes")],
)
def test_only_one_is_singular(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said
