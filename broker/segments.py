"""The segments of a message as they are read: kept as they came, taken apart, or thrown away."""

from __future__ import annotations

from typing import Any, Final

import zmq

from broker import wire
from broker.wire import WireError

#: Segments of a message that are kept: one more than any has.
SEGMENTS: Final = 4


def rest_of(socket: zmq.Socket[Any]) -> list[zmq.Frame]:
    """The rest of the message whose identity was just read; its payload is not copied. Surplus segments are let go."""
    frame: zmq.Frame = socket.recv(copy=False)
    segments = [frame]
    while frame.more:
        frame = socket.recv(copy=False)
        if len(segments) < SEGMENTS:
            segments.append(frame)
    return segments


def payload_of(message: wire.Frame, segments: list[zmq.Frame]) -> tuple[bytes | zmq.Frame, int]:
    """The payload and its length: small ones as bytes (cheaper to send as a copy), large ones as they came."""
    if len(segments) > 3 or (len(segments) == 3 and message.payload is not None):
        raise WireError(
            "segments", f"{len(segments)} segments and {'a' if message.payload else 'no'} payload in the header"
        )
    if len(segments) == 2:
        payload = message.payload or b""
        return payload, len(payload)
    segment = segments[2]
    size = len(segment.buffer)
    return (segment, size) if size >= wire.COPY_THRESHOLD else (segment.bytes, size)


def discard(socket: zmq.Socket[Any]) -> None:
    """Throw away the rest of the message whose identity was just read."""
    while socket.recv(copy=False).more:
        pass
