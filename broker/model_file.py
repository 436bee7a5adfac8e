"""Which version a model's file is: its sha256, and that of the weights that lie in files of their own.

Without the packages of a model: the broker tells versions, too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: How ONNX (protobuf) writes where weights lie: an entry of key `location`, and the length of its value.
_LOCATION: Final = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x1f])", re.DOTALL)
#: Bytes that are read at once; and more than such an entry has.
_CHUNK: Final = 1 << 20
_LONGEST: Final = 1 << 13


def version(path: Path) -> str:
    """Hex digits: of a single file its sha256. Of one with weights in files of their own the sha256 of its bytes, then
    for each of those files, by name, a zero byte, the name as it is in the file, a zero byte, and the file's sha256.
    A file that cannot be read is left out: no engine loads such a model. Raises OSError."""
    whole, names, tail = hashlib.sha256(), set[bytes](), b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            whole.update(chunk)
            names.update(_locations(tail + chunk))
            tail = (tail + chunk)[-_LONGEST:]
    for name in sorted(names):
        whole.update(_weights(path.parent, name))
    return whole.hexdigest()


def _weights(folder: Path, name: bytes) -> bytes:
    try:
        path = folder / name.decode()
        if not path.is_file():  # also what has no end: a pipe, a device
            return b""
        with path.open("rb") as file:
            return b"\0" + name + b"\0" + hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError):  # no right to it, or a name that none can have
        return b""


def _locations(content: bytes) -> Iterator[bytes]:
    """Names of files in a part of a file; an entry that is cut off is left to the next part."""
    for match in _LOCATION.finditer(content):
        low, high = (*match[1], 0)[:2]
        length = (low & 0x7F) | high << 7
        name = content[match.end() : match.end() + length]
        if len(name) == length:
            yield name
