"""`model.describe`: what a file says of itself. NUL separates shapes, then key, value, key, value of the metadata."""

from __future__ import annotations

import math
from typing import Final

from tests.fuzz import corpus
from workers.engine import Shape, Signature
from workers.errors import ModelError
from workers.model import Hints, describe
from workers.registration import class_names

SIDE: Final = 1 << 16


def seeds() -> list[bytes]:
    detect = b"\x00".join([b"1,3,640,640;1,25200,85", b"names", b"['person', 'bicycle']", b"stride", b"32"])
    return [
        detect,
        b"1,3,-,-;1,-,7\x00names\x00{0: 'scratch', 1: 'dent'}\x00imgsz\x00[640, 480]\x00task\x00detect",
        b"1,3,640,640;1,25200,117;1,32,160,160",
        b"1,3,224,224;1,3\x00gongwei.mean\x00123.675,116.28,103.53\x00gongwei.std\x0058.4\x00gongwei.fit\x00crop"
        b"\x00names\x00['a','b','c']",
        b"-,3,224,224;1,2\x00task\x00classify\x00names\x00['ok', 'ng']",
        *corpus.files("model"),
    ]


def target(data: bytes) -> None:
    """A model that can be used, or a ModelError."""
    shapes, *texts = data.split(b"\x00")
    first, *outputs = [_shape(text) for text in shapes.split(b";")]
    words = [text.decode(errors="surrogateescape") for text in texts]
    metadata = dict(zip(words[::2], words[1::2], strict=False))
    signature = Signature((*first, *(None,) * 4)[:4], tuple(outputs), "", metadata)
    try:
        found = describe(signature, Hints(), "file")
    except ModelError:
        return
    assert all(0 < side <= SIDE for side in found.size) or found.size == first[2:4], found.size
    assert found.names
    assert all(math.isfinite(value) for value in (*found.scaling.mean, *found.scaling.std)), found.scaling
    "".join(class_names(found.names)).encode()


def _shape(text: bytes) -> Shape:
    """As onnxruntime tells it: a positive number, or None for whatever is not fixed."""
    sides = text.split(b",")[:8]
    return tuple(int(side) if side.isdigit() and int(side[:9]) > 0 else None for side in sides)
