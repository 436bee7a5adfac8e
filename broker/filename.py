"""Names and boots as parts of file names: whatever a peer called itself, the file lies where it should, everywhere."""

from __future__ import annotations

import hashlib
import re
from typing import Final

#: Up to so many letters of a safe alphabet stand for themselves.
_SAFE: Final = re.compile(r"[a-z0-9_-][a-z0-9_.-]{0,63}")
#: Devices on Windows, also with a suffix: `nul.jpg` is no file.
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")


def is_device(text: str) -> bool:
    """Whether Windows takes a file of this name, with any suffix, for a device."""
    return _DEVICES.fullmatch(text.lower()) is not None


def part(text: str) -> str:
    """`text` where it is a safe name on every system, else `~` and a digest of it: the same text, the same name.

    Not safe are paths, control characters, what Windows takes for a device or changes (capital letters, a dot at the
    end), and what is longer than 64 characters.
    """
    if _SAFE.fullmatch(text) and not is_device(text) and not text.endswith("."):
        return text
    return "~" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]
