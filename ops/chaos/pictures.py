"""Pictures that tell which frame they are of, so that an answer shows which frame a worker looked at. Pure."""

from __future__ import annotations

import math
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engine.fake import Marker, poison_picture

#: Grey levels that pictures have; the fake engine reports the mean as a score, and under 0.25 it would report nothing.
DARKEST: Final = 80
LEVELS: Final = 160
#: By how much a score may differ from what the picture holds: a score has four decimals, and levels lie 1/255 apart.
TOLERANCE: Final = 0.0015

#: The models of the line, and the marker of the picture that kills the workers of each.
MODELS: Final[dict[str, Marker]] = {"left": "magenta", "right": "cyan"}


def side(size: int) -> int:
    """Width and height in pixels of a square BGR picture of about `size` bytes."""
    return max(8, math.isqrt(size // 3))


def level(camera: str, seq: int) -> int:
    """The grey level of a frame: it differs from that of the `LEVELS` - 1 frames before."""
    return DARKEST + (7 * seq + zlib.crc32(camera.encode())) % LEVELS


def picture(camera: str, seq: int, poison: str, pixels: int) -> NDArray[np.uint8]:
    """The picture of a frame, [pixels, pixels, 3] uint8 BGR; `poison`: the model that it is to kill, or empty."""
    if poison:
        return poison_picture(pixels, pixels, MODELS[poison])
    return np.full((pixels, pixels, 3), level(camera, seq), np.uint8)


def score(camera: str, seq: int, poison: str) -> float:
    """What a worker that looked at this frame answers (0 to 1)."""
    if poison:
        return 2 / 3  # two of three channels are full, whichever the marker is
    return level(camera, seq) / 255


def shows(found: float | None, camera: str, seq: int, poison: str) -> bool:
    """Whether a score is that of this frame."""
    return found is not None and abs(found - score(camera, seq, poison)) <= TOLERANCE
