"""A picture of a soak: resident memory of every process over time, as a PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ops.bench.soak import Record

_WIDTH, _HEIGHT = 1200, 600
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 170, 40, 50
_COLOURS = ((40, 40, 200), (180, 100, 0), (60, 140, 40), (160, 40, 160), (0, 140, 220), (110, 110, 110))
_BLACK, _GREY = (0, 0, 0), (215, 215, 215)

Canvas = NDArray[np.uint8]


def draw(record: Record, file: Path) -> None:
    """Write the picture to `file`; raises OSError when that cannot be written."""
    canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    lines = {name: [rss / 1e6 for rss in series.rss] for name, series in record.processes.items()}
    lines["in flight"] = [held / 1e6 for held in record.in_flight]
    most = _round_up(max(max(values) for values in lines.values()))
    _axes(canvas, record.times[-1], most)
    for values, colour in zip(lines.values(), _COLOURS * len(lines), strict=False):
        points = [
            (_x(time, record.times[-1]), _y(value, most)) for time, value in zip(record.times, values, strict=True)
        ]
        cv2.polylines(canvas, [np.array(points, np.int32)], False, colour, 1, cv2.LINE_AA)
    for row, (name, values) in enumerate(sorted(lines.items(), key=lambda item: -item[1][-1])):
        colour = _COLOURS[list(lines).index(name) % len(_COLOURS)]
        _write(canvas, f"{name} {values[-1]:.0f} MB", (_WIDTH - _RIGHT + 10, _TOP + 20 + 22 * row), colour)
    encoded, data = cv2.imencode(".png", canvas)
    assert encoded
    file.write_bytes(data.tobytes())


def _axes(canvas: Canvas, seconds: float, most: float) -> None:
    for step in range(6):
        y = _y(most * step / 5, most)
        cv2.line(canvas, (_LEFT, y), (_WIDTH - _RIGHT, y), _GREY, 1)
        _write(canvas, f"{most * step / 5:g}", (_LEFT - 55, y + 5), _BLACK)
        x = _x(seconds * step / 5, seconds)
        _write(canvas, f"{seconds * step / 300:.1f}", (x - 12, _HEIGHT - _BOTTOM + 20), _BLACK)
    _write(canvas, "resident memory, MB", (_LEFT - 55, _TOP - 15), _BLACK)
    _write(canvas, "minutes", (_WIDTH - _RIGHT - 40, _HEIGHT - 10), _BLACK)


def _write(canvas: Canvas, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def _x(time: float, seconds: float) -> int:
    return _LEFT + round((_WIDTH - _LEFT - _RIGHT) * time / max(seconds, 1e-9))


def _y(value: float, most: float) -> int:
    return _HEIGHT - _BOTTOM - round((_HEIGHT - _TOP - _BOTTOM) * value / most)


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten, so that the axis has round figures."""
    power = 10.0 ** np.floor(np.log10(max(value, 1.0)))
    return float(next(power * step for step in (1, 2, 5, 10) if power * step >= value))
