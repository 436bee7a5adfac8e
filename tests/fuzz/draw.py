"""`draw.annotate`: the bytes are a worker's answer, drawn as `clients watch --save` draws it."""

from __future__ import annotations

import numpy as np

from broker.joined import read
from clients.draw import annotate
from clients.watch import NOT_DRAWN
from tests.fuzz import corpus, joined


def seeds() -> list[bytes]:
    return [*joined.seeds(), *corpus.files("draw")]


def target(data: bytes) -> None:
    """A picture, or an error that the watching counts and survives."""
    body = read(data)
    if body is None:
        return
    try:
        picture = annotate(
            np.zeros((8, 8, 3), np.uint8), {"verdict": "ng", "results": {"model": {"status": "ok"} | {**body}}}
        )
    except NOT_DRAWN:
        return
    assert picture.ndim == 3
