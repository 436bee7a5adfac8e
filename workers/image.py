"""Payloads to pictures, with limits: nothing is decoded before its own header agrees with what the frame declared.

A picture is uint8, [height, width, 3] in BGR or [height, width] in grey. Raw encodings are views of the payload.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from broker.wire import Encoding
from workers import DEFAULT_PIXELS, PIXELS_VARIABLE
from workers.errors import ImageError

Picture: TypeAlias = NDArray[np.uint8]
Buffer: TypeAlias = bytes | bytearray | memoryview

#: Every reason of an ImageError.
REASONS: Final = (
    "payload_empty",
    "not_an_image",
    "shape_mismatch",
    "too_many_pixels",
    "truncated",
    "too_many_scans",
    "decode_failed",
    "encoding_unknown",
)
#: JPEG segments that are looked through for the frame header; a real file has a few dozen.
SEGMENTS: Final = 512
#: Scans of a JPEG at most: a progressive one has about ten, and each costs a pass over the whole picture, even an empty
#: one of 14 bytes.
SCANS: Final = 100
#: Chunks of a PNG that are looked through; a large one has a few thousand.
CHUNKS: Final = 1 << 16
#: Bytes at the end of a JPEG in which its end marker must lie (cameras pad, and append a little of their own).
TAIL: Final = 4096

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
_JPEG_END: Final = b"\xff\xd9"
_JPEG_SCAN: Final = b"\xff\xda"
#: SOF0-3, 5-7, 9-11, 13-15: the markers whose segment holds the size.
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: TEM, RST0-7, SOI: markers without a length.
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_CHANNELS: Final[dict[str, int]] = {"bgr8": 3, "mono8": 1, "bayer_rg8": 1}
# Orientation tags are ignored: coordinates are those of the frame as captured.
_FLAGS: Final = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def pixel_limit() -> int:
    """The largest picture that is decoded, in pixels. Raises ValueError when the environment's value is no number."""
    return int(os.environ.get(PIXELS_VARIABLE, DEFAULT_PIXELS))


def decode(payload: Buffer, encoding: str, shape: Sequence[int], stride: int | None = None) -> Picture:
    """The picture in `payload`, which must have exactly the declared `shape` ([height, width] and maybe channels).

    `stride` is bytes per row of a raw encoding. `bgr8` and `mono8` are views of the payload, not copies; `mono8` is
    [height, width]. Raises ImageError, before decoding wherever the reason can be seen before.
    """
    if len(payload) == 0:
        raise ImageError("payload_empty", "the frame has no payload")
    height, width = _declared(encoding, shape)
    if encoding in ("jpeg", "png"):
        return _decode_file(payload, encoding, height, width)
    if encoding not in _CHANNELS:
        raise ImageError("encoding_unknown", f"encoding {encoding!r}; known: jpeg, png, {', '.join(_CHANNELS)}")
    return _view(payload, encoding, height, width, stride)


def load(path: Path) -> Picture:
    """The picture in a file of any format that OpenCV reads. Raises ImageError naming the file."""
    try:
        payload = path.read_bytes()
        if bytes(payload[:2]) != _JPEG and bytes(payload[:8]) != _PNG:
            return _imdecode(payload, path.suffix or "file")
        encoding, height, width = sniff(payload)
        return decode(payload, encoding, [height, width])
    except OSError as error:
        raise ImageError("not_an_image", f"{path}: {error.strerror}") from None
    except ImageError as error:
        raise ImageError(error.reason, f"{path}: {error.detail}") from None


def sniff(payload: Buffer) -> tuple[Encoding, int, int]:
    """Encoding, height and width that a JPEG or PNG claims. Raises ImageError `not_an_image` or `truncated`."""
    if bytes(payload[:2]) == _JPEG:
        return ("jpeg", *_jpeg_size(payload))
    if bytes(payload[:8]) == _PNG:
        return ("png", *_png_size(payload))
    raise ImageError("not_an_image", f"neither JPEG nor PNG: begins with {bytes(payload[:8]).hex()}")


def _declared(encoding: str, shape: Sequence[int]) -> tuple[int, int]:
    channels = {_CHANNELS[encoding]} if encoding in _CHANNELS else {1, 3, 4}
    if len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] not in channels):
        raise ImageError("shape_mismatch", f"shape {list(shape)} is impossible for {encoding}")
    if shape[0] * shape[1] > pixel_limit():
        raise ImageError("too_many_pixels", f"{shape[0]}x{shape[1]}, limit {pixel_limit()} pixels ({PIXELS_VARIABLE})")
    return shape[0], shape[1]


def _decode_file(payload: Buffer, encoding: str, height: int, width: int) -> Picture:
    found, *size = sniff(payload)
    if found != encoding:
        raise ImageError("not_an_image", f"declared {encoding}, is {found}")
    if size != [height, width]:
        raise ImageError("shape_mismatch", f"declared {height}x{width}, the {encoding} says {size[0]}x{size[1]}")
    if encoding == "jpeg":
        _check_jpeg(payload)
    else:
        payload = memoryview(payload)[: _png_length(payload)]
    picture = _imdecode(payload, encoding)
    if picture.shape != (height, width, 3):
        raise ImageError("shape_mismatch", f"declared {height}x{width}, decoded to {picture.shape}")
    return picture


def _imdecode(payload: Buffer, what: str) -> Picture:
    try:
        picture = cv2.imdecode(np.frombuffer(payload, np.uint8), _FLAGS)
    except cv2.error as error:
        raise ImageError("decode_failed", f"{what}: {str(error).strip()}") from None
    if picture is None:
        raise ImageError("decode_failed", f"{what} of {len(payload)} bytes is broken, or of no known format")
    return picture.view(np.uint8)


def _check_jpeg(payload: Buffer) -> None:
    """A cut-off file decodes to a picture with a grey rest, which a model would find free of defects."""
    if _JPEG_END not in bytes(payload[-TAIL:]):
        raise ImageError("truncated", f"the jpeg of {len(payload)} bytes has no end marker")
    # Inside a scan 0xFF is followed by 0x00: this counts nothing else there.
    scans = (payload.tobytes() if isinstance(payload, memoryview) else payload).count(_JPEG_SCAN)
    if scans > SCANS:
        raise ImageError("too_many_scans", f"{scans} scans, limit {SCANS}")


def _png_length(payload: Buffer) -> int:
    """Bytes up to the end chunk, within which every chunk must lie: OpenCV first takes the memory that a chunk's length
    asks for, up to 4 GB for a file of 100 bytes, and looks for chunks behind the end chunk too."""
    at = len(_PNG)
    for _ in range(CHUNKS):
        if at + 12 > len(payload):
            break
        kind = bytes(payload[at + 4 : at + 8])
        length = int.from_bytes(payload[at : at + 4], "big")
        at += 12 + length
        if kind == b"IEND" and length == 0 and at <= len(payload):
            return at
    raise ImageError("truncated", f"the png of {len(payload)} bytes has no end chunk, or a chunk that is longer")


def _jpeg_size(payload: Buffer) -> tuple[int, int]:
    at = 2
    for _ in range(SEGMENTS):
        if at + 9 > len(payload) or payload[at] != 0xFF:
            break
        marker = payload[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", payload, at + 5)
            return height, width
        else:
            at += 2 + int.from_bytes(payload[at + 2 : at + 4], "big")
    raise ImageError("truncated", f"no frame header in the first {at} bytes of the jpeg")


def _png_size(payload: Buffer) -> tuple[int, int]:
    if len(payload) < 24 or bytes(payload[12:16]) != b"IHDR":
        raise ImageError("truncated", "the png does not begin with an image header")
    width, height = struct.unpack_from(">II", payload, 16)
    return height, width


def _view(payload: Buffer, encoding: str, height: int, width: int, stride: int | None) -> Picture:
    channels = _CHANNELS[encoding]
    row = width * channels
    step = row if stride is None else stride
    # The last row may come without its padding.
    if step < row or not step * (height - 1) + row <= len(payload) <= step * height:
        raise ImageError("shape_mismatch", f"{len(payload)} bytes, not {height} rows of {row} bytes at stride {step}")
    if channels == 3:
        return np.ndarray((height, width, 3), np.uint8, payload, strides=(step, 3, 1))
    picture: Picture = np.ndarray((height, width), np.uint8, payload, strides=(step, 1))
    if encoding == "bayer_rg8":
        return _demosaic(picture)
    return picture


def _demosaic(mosaic: Picture) -> Picture:
    """BGR of a mosaic whose first row begins red, green (GenICam BayerRG8)."""
    if min(mosaic.shape) < 3:
        raise ImageError("shape_mismatch", f"a Bayer mosaic of {mosaic.shape} is too small")
    return cv2.cvtColor(mosaic, cv2.COLOR_BayerRGGB2BGR).view(np.uint8)
