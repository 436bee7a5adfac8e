"""Is a payload what its header says? Cheap checks that the broker makes on every frame; it never decodes an image."""

from __future__ import annotations

from typing import Final

from broker.wire import Frame

#: The first bytes of the compressed encodings (JPEG: SOI and a marker; PNG: its signature).
MAGIC: Final = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
#: Channels of the raw encodings; one byte per channel.
CHANNELS: Final = {"bgr8": 3, "mono8": 1, "bayer_rg8": 1}
#: No side of an image is longer, in pixels.
SIDE_LIMIT: Final = 1 << 16


def fault(frame: Frame, payload: bytes | memoryview, size: int, limit: int) -> str:
    """The reason to reject this frame, or "" when header and payload (of `size` bytes) agree."""
    if size == 0:
        return "payload_empty"
    if size > limit:
        return "payload_too_large"
    if size != frame.len:
        return "length_mismatch"
    if not _shape_ok(frame):
        return "shape_invalid"
    if frame.encoding in MAGIC:
        magic = MAGIC[frame.encoding]
        return "" if bytes(memoryview(payload)[: len(magic)]) == magic else "not_an_image"
    return _raw_fault(frame, size)


def _shape_ok(frame: Frame) -> bool:
    shape = frame.shape
    if not 2 <= len(shape) <= 3 or not (0 < shape[0] <= SIDE_LIMIT and 0 < shape[1] <= SIDE_LIMIT):
        return False
    if frame.encoding == "bgr8":
        return len(shape) == 3 and shape[2] == 3
    if frame.encoding in CHANNELS:
        return len(shape) == 2
    return len(shape) == 2 or shape[2] in (1, 3, 4)


def _raw_fault(frame: Frame, size: int) -> str:
    row = frame.shape[1] * CHANNELS[frame.encoding]
    stride = row if frame.stride is None else frame.stride
    if stride < row:
        return "shape_invalid"
    return "" if stride * frame.shape[0] == size else "length_mismatch"
