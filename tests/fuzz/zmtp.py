"""ZMTP 3.0 by hand: what a peer that is no libzmq can put on a broker's port."""

from __future__ import annotations

import socket
import struct
from typing import Final

#: Signature, version 3.0, mechanism NULL, no server, filler.
GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MORE: Final = 1


def ready(kind: bytes = b"DEALER", identity: bytes = b"") -> bytes:
    """The READY command that ends a NULL handshake."""
    body = b"\x05READY" + _property(b"Socket-Type", kind) + _property(b"Identity", identity)
    return bytes([4, len(body)]) + body


def segment(data: bytes, more: bool = False) -> bytes:
    """One segment of a message as it is framed on the wire."""
    if len(data) < 256:
        return bytes([MORE * more, len(data)]) + data
    return bytes([MORE * more | 2]) + struct.pack(">Q", len(data)) + data


def message(*segments: bytes) -> bytes:
    last = len(segments) - 1
    return b"".join(segment(data, number < last) for number, data in enumerate(segments))


def connect(endpoint: str, timeout: float = 2.0) -> socket.socket:
    """A raw connection to a tcp or ipc endpoint. Raises OSError."""
    scheme, _, place = endpoint.partition("://")
    if scheme == "tcp":
        host, _, port = place.rpartition(":")
        return socket.create_connection((host, int(port)), timeout)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    connection.connect(place)
    return connection


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
