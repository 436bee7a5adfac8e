"""What the file of a picture holds: JPEG and PNG as they came, raw pixels as PNG."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from broker.payload import CHANNELS
from broker.wire import Copy, Encoding

#: What the payload of a picture's file is, by its suffix.
ENCODINGS: Final[dict[str, Encoding]] = {".jpg": "jpeg", ".png": "png"}


def suffix_of(encoding: Encoding) -> str:
    """Of the file that `content_of` is for."""
    return ".jpg" if encoding == "jpeg" else ".png"


def content_of(copy: Copy, payload: Any) -> bytes | memoryview | None:
    """What the file will hold: JPEG and PNG as they came, raw pictures as PNG; None where the payload is no picture."""
    buffer = payload if isinstance(payload, bytes) else payload.buffer
    if copy.encoding not in CHANNELS:
        return buffer
    picture = raw_picture(copy, buffer)
    if picture is None:
        return None
    try:
        encoded, content = cv2.imencode(".png", picture)
    except cv2.error:  # more than a PNG can hold
        return None
    return content.tobytes() if encoded else None


def raw_picture(copy: Copy, buffer: bytes | memoryview) -> NDArray[np.uint8] | None:
    """(height, width) or (height, width, 3), BGR, of pixels that came as they are; None where they are no picture."""
    channels = CHANNELS[copy.encoding]
    height, width = copy.shape[:2] if len(copy.shape) > 1 else (0, 0)
    row = width * channels
    stride = row if copy.stride is None else copy.stride
    if height < 1 or width < 1 or stride < row or len(buffer) < stride * (height - 1) + row:
        return None
    shape, strides = ((height, width, 3), (stride, 3, 1)) if channels == 3 else ((height, width), (stride, 1))
    picture: NDArray[np.uint8] = np.ndarray(shape, np.uint8, buffer, strides=strides)
    if copy.encoding != "bayer_rg8":
        return picture
    return cv2.cvtColor(picture, cv2.COLOR_BayerRGGB2BGR).view(np.uint8) if min(shape) > 2 else None
