"""Text on pictures: OpenCV 5 brings real fonts, also for Chinese; OpenCV 4 has its stroke font for ASCII only."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

_FACE: Final[Any] = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
_WEIGHT: Final = 500
_STROKES: Final = cv2.FONT_HERSHEY_SIMPLEX
#: Height of a capital letter of the stroke font at scale 1, and of the real font as a share of its size; in pixels.
_STROKE_HEIGHT: Final = 22
_CAPITALS: Final = 0.72


def width(text: str, size: int) -> int:
    """How wide `text` is, in pixels, at a font size in pixels."""
    if _FACE is not None:
        return int(cv2.getTextSize((0, 0), _whole(text), (0, 0), _FACE, size, _WEIGHT)[2]) + 1
    return int(cv2.getTextSize(_plain(text), _STROKES, _scale(size), _thickness(size))[0][0]) + 1


def line_height(size: int) -> int:
    """Height of a line with room above and below the letters."""
    return round(size * 1.35)


def write(image: Image, text: str, x: int, y: int, size: int, colour: Colour) -> None:
    """Write one line whose upper left corner, room included, is (x, y)."""
    base = y + round((line_height(size) + size * _CAPITALS) / 2)
    if _FACE is not None:
        cv2.putText(image, _whole(text), (x, base), colour, _FACE, size, _WEIGHT)
    else:
        cv2.putText(image, _plain(text), (x, base), _STROKES, _scale(size), colour, _thickness(size), cv2.LINE_AA)


def fit(text: str, size: int, room: int) -> str:
    """`text`, cut with an ellipsis so that it is no wider than `room` pixels; "" if not even one letter fits."""
    if width(text, size) <= room:
        return text
    ellipsis = "…" if _FACE is not None else "..."
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width(text[:middle] + ellipsis, size) <= room else (low, middle - 1)
    return text[:low].rstrip() + ellipsis if low else ""


def wrap(text: str, size: int, room: int) -> list[str]:
    """`text` in lines of at most `room` pixels, broken at spaces where there are some."""
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(fit(word, size, room))
    return lines


def ink(ground: Colour) -> Colour:
    """Black or white, whichever reads better on `ground`."""
    blue, green, red = ground
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 125 else (255, 255, 255)


def _whole(text: str) -> str:
    """With `?` for lone surrogates (of a file's name, or of JSON): the font ends the process at one."""
    return text.encode(errors="replace").decode()


def _plain(text: str) -> str:
    return text.replace("…", "...").encode("ascii", "replace").decode("ascii")


def _scale(size: int) -> float:
    return size * _CAPITALS / _STROKE_HEIGHT


def _thickness(size: int) -> int:
    return max(1, round(size / 14))
