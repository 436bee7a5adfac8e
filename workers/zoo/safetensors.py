"""Reads safetensors files: eight bytes of length, a JSON header, raw data. Bad files are refused, not trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from workers.errors import ModelError

#: Longest header that is read, in bytes; the format's own limit is 100 MB.
_HEADER_LIMIT: Final = 1 << 24
_DIMENSIONS: Final = 8
_KINDS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of numbers by its name, as float32. Raises ModelError saying what is wrong with the file."""
    try:
        return parse(path.read_bytes(), str(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


def parse(content: bytes, where: str) -> dict[str, NDArray[np.float32]]:
    """What `read` gives, of the bytes of a file (`where`, for error texts). Raises ModelError."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= length <= min(_HEADER_LIMIT, len(content) - 8):
        raise ModelError(f"{where}: is no safetensors file, or is cut short: its header cannot be {length} bytes long")
    entries = _entries(content[8 : 8 + length], where)
    data = memoryview(content)[8 + length :]
    if sum(max(0, end - start) for start, end in (entry.data_offsets for entry in entries.values())) > len(data):
        raise ModelError(f"{where}: its tensors take more than the {len(data)} bytes that there are; is it cut short?")
    return {name: _array(name, entry, data, where) for name, entry in entries.items() if entry.dtype in _KINDS}


def _entries(header: bytes, where: str) -> Mapping[str, _Entry]:
    try:
        decoded: dict[str, Any] = msgspec.json.decode(header, type=dict[str, Any])
        decoded.pop("__metadata__", None)
        return msgspec.convert(decoded, dict[str, _Entry])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{where}: its safetensors header cannot be read: {str(error)[:200]!r}") from None


def _array(name: str, entry: _Entry, data: memoryview, where: str) -> NDArray[np.float32]:
    kind = np.dtype(_KINDS[entry.dtype])
    start, end = entry.data_offsets
    fits = len(entry.shape) <= _DIMENSIONS and all(side >= 0 for side in entry.shape)
    fits = fits and end - start == math.prod(entry.shape) * kind.itemsize
    if not (fits and 0 <= start <= end <= len(data)):
        shape = f"{entry.dtype} {str(entry.shape)[:80]}"
        raise ModelError(f"{where}: {name[:80]!r} is {shape} in bytes {start} to {end} of {len(data)}: it does not fit")
    raw = np.frombuffer(data[start:end], kind)
    if entry.dtype == "BF16":
        raw = (raw.astype("<u4") << 16).view("<f4")
    return raw.astype(np.float32).reshape(entry.shape)
