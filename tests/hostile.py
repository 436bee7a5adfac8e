"""ZMTP by hand: what a peer sends that keeps to no rule of libzmq."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

#: Bytes of a part.
PART: Final = 1 << 20
_MORE: Final = b"\x03"
_COMMAND: Final = b"\x06"


def greeting(mechanism: str) -> bytes:
    """The 64 bytes of ZMTP 3.1 with which a client begins."""
    signature = b"\xff" + bytes(8) + b"\x7f"
    return signature + b"\x03\x01" + mechanism.encode().ljust(20, b"\0") + bytes(32)


def ready(kind: str) -> bytes:
    """The NULL mechanism's only command, from a socket of this kind."""
    name, value = b"Socket-Type", kind.encode()
    body = b"\x05READY" + bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value
    return bytes([4, len(body)]) + body


def long_frame(flags: bytes, size: int) -> bytes:
    """The head of a frame of `size` bytes."""
    return flags + size.to_bytes(8, "big")


def endless_parts() -> Iterator[bytes]:
    """One message that never ends: after each part, there is more."""
    part = long_frame(_MORE, PART) + bytes(PART)
    while True:
        yield part


def endless_command(size: int) -> Iterator[bytes]:
    """One command that says it has `size` bytes."""
    yield long_frame(_COMMAND, size)
    while True:
        yield bytes(PART)


def pour(endpoint: str, beginning: bytes, stream: Iterator[bytes], most: int) -> int:
    """Connect, and send until the other side hangs up or `most` bytes are out. Returns how many were."""
    sent = 0
    with connected(endpoint) as peer:
        peer.settimeout(5.0)
        try:
            peer.sendall(beginning)
            for piece in stream:
                peer.sendall(piece)
                sent += len(piece)
                if sent >= most:
                    break
        except OSError:  # it hung up, or reads no more
            pass
    return sent


def connected(endpoint: str) -> socket.socket:
    """A stream socket at a tcp or ipc endpoint."""
    if endpoint.startswith("ipc://"):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(endpoint.removeprefix("ipc://"))
        return peer
    address = urlsplit(endpoint)
    return socket.create_connection((str(address.hostname), int(address.port or 0)))
