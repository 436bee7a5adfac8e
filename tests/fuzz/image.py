"""`image.decode`: two bytes choose encoding, shape and stride, the rest is the payload."""

from __future__ import annotations

from typing import Final

import numpy as np

from broker.picture_file import raw_picture
from broker.wire import Copy, Encoding, Key
from tests.fuzz import corpus
from workers.errors import ImageError
from workers.image import REASONS, decode, pixel_limit, sniff

#: Larger pictures are right to be decoded, but slow: they are only looked at.
PIXELS: Final = 1 << 18
ENCODINGS: Final[tuple[Encoding, ...]] = ("jpeg", "png", "bgr8", "mono8", "bayer_rg8")


def seeds() -> list[bytes]:
    import cv2

    picture = np.indices((24, 32)).sum(axis=0).astype(np.uint8)
    colour = np.dstack([picture, picture[::-1], picture * 5])
    flags = [int(cv2.IMWRITE_JPEG_PROGRESSIVE), 1, int(cv2.IMWRITE_JPEG_RST_INTERVAL), 1]
    return [
        b"\x00\x00" + cv2.imencode(".jpg", colour)[1].tobytes(),
        b"\x00\x00" + cv2.imencode(".jpg", colour, flags)[1].tobytes(),
        b"\x01\x00" + cv2.imencode(".png", colour)[1].tobytes(),
        b"\x01\x00" + cv2.imencode(".png", picture)[1].tobytes(),
        b"\x02\x45" + bytes(4 * 5 * 3),
        b"\x03\x45" + bytes(4 * 5),
        b"\x04\x44" + bytes(4 * 4),
        *corpus.files("image"),
    ]


def target(data: bytes) -> None:
    """A picture of the declared shape, or an ImageError with a known reason."""
    if len(data) < 2:
        return
    encoding, payload = ENCODINGS[data[0] % len(ENCODINGS)], data[2:]
    shape, stride = _declared(encoding, data[0], data[1])
    try:
        if encoding in ("jpeg", "png"):
            encoding, *shape = sniff(payload)
            if PIXELS < shape[0] * shape[1] <= pixel_limit():
                return
        picture = decode(payload, encoding, shape, stride)
    except ImageError as error:
        assert error.reason in REASONS, error.reason
    else:
        assert picture.dtype == np.uint8
        assert list(picture.shape[:2]) == shape[:2]
        picture.sum()  # every byte is there to be read
    if encoding in ("bgr8", "mono8", "bayer_rg8"):
        _kept(encoding, shape, stride, payload)


def _declared(encoding: str, first: int, second: int) -> tuple[list[int], int | None]:
    sides = [second >> 4, second & 15]
    shape = [*sides, 3] if encoding == "bgr8" or first & 0x80 else sides
    stride = [None, 0, second, 3 * second, 16, 2**31, 2**62, 2**63 - 1][first >> 4 & 7]
    return shape, stride


def _kept(encoding: Encoding, shape: list[int], stride: int | None, payload: bytes) -> None:
    """The recorder's own reading of the same declaration."""
    picture = raw_picture(Copy(key=Key("c", "b", 0), encoding=encoding, shape=shape, stride=stride), payload)
    if picture is not None:
        picture.sum()
