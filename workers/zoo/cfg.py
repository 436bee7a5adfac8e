"""Darknet's cfg text as typed sections that know their lines: pure, and bounded whatever the text is.

A refusal names the file, the line and the section, as in
`yolov4.cfg:57: [convolutional] activation=gelu: not supported; known: leaky, ...`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from workers.errors import ModelError

#: Bounds of a file: bytes, sections, keys in a section, characters of a key and of a value. The largest known cfg, of
#: yolov4-p7, has 22 KB and 460 sections.
FILE_LIMIT: Final = 1 << 20
SECTION_LIMIT: Final = 1000
KEY_LIMIT: Final = 200
NAME_LENGTH: Final = 64
VALUE_LENGTH: Final = 4096
#: Numbers in a list (layers, anchors, masks) at most.
LIST_LIMIT: Final = 256
#: Characters of somebody's text in an error.
SHOWN: Final = 60

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,9}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?")
_HEADER: Final = re.compile(r"\[([A-Za-z0-9_]{1,64})\]")


class Option(NamedTuple):
    """A value, without blanks, and its line."""

    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Section:
    """`[kind]` at `line` of `file`, and its keys. The getters raise ModelError for a value that they cannot take."""

    kind: str
    line: int
    file: str
    options: dict[str, Option] = field(default_factory=dict)

    def refuse(self, why: str, key: str = "") -> NoReturn:
        """Raise ModelError about this section, or about `key` in it."""
        option = self.options.get(key)
        line = self.line if option is None else option.line
        about = "" if option is None else f" {key}={shown(option.value)}:"
        raise ModelError(f"{self.file}:{line}: [{self.kind}]{about} {why}")

    def integer(self, key: str, default: int | None, least: int, most: int) -> int:
        """A whole number from `least` to `most`; `default` None: it must be there."""
        text = self._text(key, None if default is None else str(default))
        if _INTEGER.fullmatch(text) is None or not least <= int(text) <= most:
            self.refuse(f"a whole number from {least} to {most} is needed", key)
        return int(text)

    def number(self, key: str, default: float, least: float, most: float) -> float:
        text = self._text(key, str(default))
        if _NUMBER.fullmatch(text) is None or not least <= float(text) <= most:
            self.refuse(f"a number from {least:g} to {most:g} is needed", key)
        return float(text)

    def word(self, key: str, default: str | None, known: Sequence[str]) -> str:
        text = self._text(key, default)
        if text not in known:
            self.refuse(f"not supported; known: {', '.join(known)}", key)
        return text

    def integers(self, key: str) -> tuple[int, ...]:
        items = self._items(key)
        if not all(map(_INTEGER.fullmatch, items)):
            self.refuse("whole numbers between commas are needed", key)
        return tuple(map(int, items))

    def numbers(self, key: str) -> tuple[float, ...]:
        items = self._items(key)
        if not all(map(_NUMBER.fullmatch, items)):
            self.refuse("numbers between commas are needed", key)
        numbers = tuple(float(item) for item in items)
        if not all(map(math.isfinite, numbers)):
            self.refuse("the numbers are not finite", key)
        return numbers

    def _items(self, key: str) -> list[str]:
        """The items of a list; a comma at its end is as in Darknet no item."""
        items = self._text(key, None).removesuffix(",").split(",", LIST_LIMIT)
        if len(items) > LIST_LIMIT:
            self.refuse(f"more than {LIST_LIMIT} numbers", key)
        return items

    def _text(self, key: str, default: str | None) -> str:
        option = self.options.get(key)
        if option is not None:
            return option.value
        if default is None:
            self.refuse(f"has no {key}=: say it")
        return default


def load(path: Path) -> list[Section]:
    """The sections of a file. Raises ModelError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    # Comments come in any encoding; what matters is ASCII.
    return parse(data.decode("utf-8-sig", errors="replace"), str(path))


def parse(text: str, file: str) -> list[Section]:
    """The sections of a cfg's text, [net] first; `file` is for error texts. Raises ModelError."""
    if len(text) > FILE_LIMIT:
        raise ModelError(f"{file}: longer than {FILE_LIMIT} bytes: no Darknet cfg")
    sections: list[Section] = []
    for number, line in enumerate(text.split("\n"), 1):
        # Darknet takes blanks out everywhere, and so its files have them anywhere.
        bare = "".join(line.split("#", 1)[0].split(";", 1)[0].split())
        if bare.startswith("["):
            sections.append(_header(bare, number, file, len(sections)))
        elif bare:
            _key(bare, number, file, sections)
    if not sections or sections[0].kind not in ("net", "network"):
        raise ModelError(f"{file}: does not begin with [net]: no Darknet cfg")
    return sections


def shown(text: str) -> str:
    """Somebody's text, short and on one line."""
    cut = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    return cut if cut.isprintable() else repr(cut)


def _header(text: str, number: int, file: str, count: int) -> Section:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ModelError(f"{file}:{number}: {shown(text)}: no [section]")
    if count >= SECTION_LIMIT:
        raise ModelError(f"{file}:{number}: more than {SECTION_LIMIT} sections")
    return Section(match[1], number, file)


def _key(text: str, number: int, file: str, sections: list[Section]) -> None:
    key, equals, value = text.partition("=")
    if not sections:
        raise ModelError(f"{file}:{number}: {shown(text)}: stands before the first [section]")
    section = sections[-1]
    if not (equals and key) or len(key) > NAME_LENGTH or len(value) > VALUE_LENGTH:
        raise ModelError(f"{file}:{number}: [{section.kind}] {shown(text)}: no key=value, or a very long one")
    if len(section.options) >= KEY_LIMIT:
        raise ModelError(f"{file}:{number}: [{section.kind}] more than {KEY_LIMIT} keys")
    before = section.options.setdefault(key, Option(value, number))
    # Darknet takes the first, OpenCV the last: whoever trained it must say which.
    if before.value != value:
        raise ModelError(f"{file}:{number}: [{section.kind}] {shown(text)}: line {before.line} says it differently")
