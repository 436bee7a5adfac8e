"""What a model computed, to an answer: the bytes are an engine's float32 output, the first one the classes."""

from __future__ import annotations

import struct
from typing import Final

import msgspec
import numpy as np

from broker.joined import read
from broker.line import Rules
from broker.verdict import judge
from broker.wire import MAX_DETECTIONS
from tests.fuzz import corpus
from workers.errors import OutputError
from workers.layout import HEADS, Layout
from workers.yolo import detect

RULES: Final = Rules(ng=["a"], least_score=0.0)


def seeds() -> list[bytes]:
    row = struct.pack("<7f", 10.0, 12.0, 4.0, 6.0, 0.9, 0.8, 0.1)
    worst = struct.pack("<7f", float("nan"), float("inf"), -1.0, 3e38, 1.0, 1e-45, 2.0)
    return [b"\x02" + row * 6, b"\x02" + row + worst, b"\x01" + row[:24] * 40, *corpus.files("outputs")]


def target(data: bytes) -> None:
    """Finite detections that can be sent and judged, or an OutputError."""
    if not data:
        return
    classes = 1 + data[0] % 8
    numbers = np.frombuffer(data[1 : 1 + (len(data) - 1) // 4 * 4], np.float32)
    layout: Layout = "yolov8" if data[0] & 32 else "yolov5"
    width = HEADS[layout] + classes + data[0] // 64
    rows = numbers[: len(numbers) // width * width].reshape(-1, width)
    try:
        with np.errstate(all="ignore"):
            found = detect(rows if layout == "yolov5" else rows.T, classes, 0.25, 0.45, layout)
    except OutputError:
        return
    assert len(found) <= MAX_DETECTIONS
    assert ((found.classes >= 0) & (found.classes < classes)).all()
    boxes = found.boxes.tolist()
    detections = [
        {"name": "abcdefgh"[number], "score": score, "box": box, "area": 1.0}
        for number, score, box in zip(found.classes.tolist(), found.scores.tolist(), boxes, strict=True)
    ]
    body = read(msgspec.msgpack.encode({"task": "detect", "detections": detections}))
    assert judge(RULES, {"model": body}, []) in ("ok", "ng", "incomplete")
