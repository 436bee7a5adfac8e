"""Inputs made of others: bytes flipped, cut, repeated, spliced, and lengths that lie. Repeatable by its seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

#: No input grows beyond this, in bytes.
LONGEST: Final = 1 << 16
#: What parsers stumble over: msgpack's headers with lengths that lie, limits of integers, markers, encodings, TOML.
TOKENS: Final = (
    *(bytes([first]) for first in (0x00, 0x7F, 0x80, 0x8F, 0x90, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xC3, 0xE0, 0xFF)),
    *(bytes([first]) + b"\xff" * 4 for first in (0xC4, 0xC6, 0xC7, 0xC9, 0xCE, 0xD2, 0xD9, 0xDB, 0xDD, 0xDF)),
    *(b"\xcf" + number.to_bytes(8, "big") for number in (2**63 - 1, 2**63, 2**64 - 1)),
    b"\xd3\x80" + bytes(7),
    b"\xcb\x7f\xf8" + bytes(6),
    b"\xcb\x7f\xf0" + bytes(6),
    b"\xd6\xff" + b"\xff" * 4,
    b"\x91" * 1100,
    b"\x81\xa1a" * 400,
    b"\xa2\xed\xa0",
    b"\xff\xd8\xff",
    b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03",
    b"\xff\xda",
    b"\xff\xd9",
    b"IHDR\x7f\xff\xff\xff\x7f\xff\xff\xff",
    b"nan",
    b"-inf",
    b"1e999",
    b"[]{}",
    b"[[",
    b'"""',
    b"9" * 400,
    b"../../x",
    "\u202e\U0001f600\u0000".encode(),
)


def mutated(random: Random, corpus: Sequence[bytes]) -> bytes:
    """One of `corpus`, changed one to eight times."""
    data = bytearray(random.choice(corpus))
    for _ in range(1 << random.randrange(4)):
        _mutate(random, data, corpus)
    return bytes(data[:LONGEST])


def _mutate(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    match random.randrange(8):
        case 0 | 1 if at < len(data):
            data[at] = random.randrange(256)
        case 2 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case 3:
            del data[at : at + 1 + random.randrange(16)]
        case 4:
            data[at:at] = random.randbytes(1 + random.randrange(8))
        case 5:
            data[at:at] = random.choice(TOKENS)
        case 6:
            other = random.choice(corpus)
            start = random.randrange(len(other) + 1)
            data[at : at + random.randrange(64)] = other[start : start + random.randrange(256)]
        case _:
            piece = data[at : at + 1 + random.randrange(32)]
            data[at:at] = piece * (1 + random.randrange(4))
