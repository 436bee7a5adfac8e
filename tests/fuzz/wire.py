"""`wire.decode`: byte 0 chooses the type, the rest is the header."""

from __future__ import annotations

from typing import Final

from broker import wire
from broker.wire import MESSAGES, WireError
from tests.fuzz import corpus

REASONS: Final = frozenset({"unknown_type", "header_too_large", "not_msgpack", "header_invalid"})


def seeds() -> list[bytes]:
    short = [segments for segments in corpus.vectors() if len(segments) >= 2 and len(segments[1]) < 4096]
    return [bytes([_number(segments[0])]) + segments[1] for segments in short] + corpus.files("wire")


def target(data: bytes) -> None:
    """A message, which encodes to what decodes to it, or a WireError that fits a label and a REJECT."""
    number, header = data[:1], data[1:]
    kind = MESSAGES[number[0] % len(MESSAGES)].TYPE if number and number[0] < 0xF0 else number
    try:
        message = wire.decode(kind, header)
    except WireError as error:
        assert error.reason in REASONS, error.reason
        assert len(error.detail) <= 256
        return
    again = wire.encode(message)
    assert wire.decode(*again) == message, message


def _number(kind: bytes) -> int:
    """Byte 0 that chooses this type; one above 0xF0 stands for itself, an unknown type."""
    return next((number for number, message in enumerate(MESSAGES) if kind == message.TYPE), 0xFF)
