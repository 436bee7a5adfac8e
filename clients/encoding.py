"""From an image to the payload and shape of a frame, and back: JPEG and PNG files are taken as they are."""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from broker.wire import Encoding
from clients.errors import ImageError

#: JPEG quality, 1 to 100, of arrays that are sent compressed.
JPEG_QUALITY: Final = 90

#: Raw encodings of two-dimensional arrays.
_MONO: Final = ("mono8", "bayer_rg8")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
#: Channels by PNG colour type; a palette decodes to three.
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 3, 4: 1, 6: 4}
#: Markers with the size of the picture: every SOF except DHT (C4), JPG (C8) and DAC (CC).
_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Encoded(NamedTuple):
    """A payload that is ready to send. `shape` is [height, width] or [height, width, channels] in pixels."""

    payload: bytes | memoryview
    encoding: Encoding
    shape: list[int]


def encode_image(
    image: NDArray[Any] | bytes | bytearray | memoryview, encoding: Encoding | None = None, quality: int = JPEG_QUALITY
) -> Encoded:
    """Make a payload of an image.

    An array is uint8, height x width x 3 in BGR order or height x width. By default the first goes as `jpeg` (of
    `quality`), the second raw as `mono8`; `encoding` says otherwise. Bytes of a JPEG or PNG file go as they are. A raw
    array is copied unless it is read-only, for the frame is held until it is settled. Raises ImageError.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _as_is(bytes(image), encoding)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"dtype {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"cannot send {kind}: give a uint8 array, or the bytes of a JPEG or PNG file")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or image.size == 0:
        raise ImageError(f"cannot send shape {image.shape}: height x width x 3 (BGR) or height x width is needed")
    colour = image.ndim == 3
    chosen: Encoding = encoding or ("jpeg" if colour else "mono8")
    if chosen in ("jpeg", "png"):
        return Encoded(_compress(image, chosen, quality), chosen, list(image.shape))
    if colour != (chosen == "bgr8"):
        fit = "bgr8" if colour else " or ".join(_MONO)
        raise ImageError(f"cannot send shape {image.shape} as {chosen}: raw, it is {fit}")
    return Encoded(_raw(image), chosen, list(image.shape))


def decode_image(payload: bytes, encoding: Encoding, shape: list[int], stride: int | None = None) -> NDArray[np.uint8]:
    """The picture of a payload as somebody keeps it: uint8, BGR or grey. `shape` matters for raw ones only.

    Raises ImageError when the bytes are not what they are said to be.
    """
    if encoding in ("jpeg", "png"):
        image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise ImageError(f"the {encoding} of {len(payload)} bytes cannot be decoded")
        return image.view(np.uint8)
    channels = 3 if encoding == "bgr8" else 1
    try:
        height, width = shape[:2]
        rows = np.frombuffer(payload, np.uint8).reshape(height, stride or width * channels)
        pixels = rows[:, : width * channels].reshape(height, width, channels)
        mosaic = encoding == "bayer_rg8"
        return cv2.cvtColor(pixels, cv2.COLOR_BayerRGGB2BGR).view(np.uint8) if mosaic else pixels
    except (ValueError, cv2.error) as error:
        raise ImageError(f"{len(payload)} bytes are no {encoding} picture of shape {shape}: {error}") from error


def picture_shape(data: bytes) -> tuple[Encoding, list[int]]:
    """Encoding and shape of a JPEG or PNG file, read from its header; raises ImageError for anything else."""
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 26:
        width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
        return "png", _shape(height, width, _PNG_CHANNELS.get(colour, 3))
    if data[:2] == b"\xff\xd8":
        return "jpeg", _jpeg_shape(data)
    raise ImageError(f"bytes that start with {data[:4].hex() or 'nothing'} are neither JPEG nor PNG: decode them first")


def _as_is(data: bytes, encoding: Encoding | None) -> Encoded:
    found, shape = picture_shape(data)
    if encoding is not None and encoding != found:
        raise ImageError(f"the bytes are {found}, not {encoding}: decode them, or leave the encoding out")
    return Encoded(data, found, shape)


def _compress(image: NDArray[np.uint8], encoding: Encoding, quality: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if encoding == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    try:
        done, data = cv2.imencode(".jpg" if encoding == "jpeg" else ".png", image, options)
    except cv2.error as error:
        raise ImageError(f"cannot encode shape {image.shape} as {encoding}: {error}") from error
    if not done:
        raise ImageError(f"cannot encode shape {image.shape} as {encoding}")
    return data.tobytes()


def _raw(image: NDArray[np.uint8]) -> bytes | memoryview:
    if image.flags.c_contiguous and not image.flags.writeable:
        return image.data.cast("B")
    return image.tobytes()


def _jpeg_shape(data: bytes) -> list[int]:
    """Walk the segments up to the start of frame."""
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a length
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _SOF:
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            return _shape(height, width, channels)
        at += 2 + length
    raise ImageError("the JPEG has no frame header: it is cut off or damaged")


def _shape(height: int, width: int, channels: int) -> list[int]:
    if not height or not width:
        raise ImageError(f"the picture is {height} x {width} pixels by its header")
    return [height, width] if channels == 1 else [height, width, channels]
