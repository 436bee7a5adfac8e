"""A TOML document held against Struct types: every problem at once, each with its key, its line and what is allowed."""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import math
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, Meta, Struct

#: Problems that are told of a document at most: the rest is seen when these are mended.
PROBLEMS: Final = 50
#: Characters of one of them.
LONGEST: Final = 1000
#: Words that are listed to choose from, and compared with a slip, at most.
WORDS: Final = 20
COMPARED: Final = 256
#: Dots in one line outside of comments: a key of so many parts takes the TOML parser time by their square.
DOTS: Final = 64
#: The keys from the top of the document down to a value.
KeyPath = tuple[str, ...]

_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEYS: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER: Final = re.compile(rf"\s*\[\[?\s*({_KEYS})\s*\]")
_ASSIGNMENT: Final = re.compile(rf"\s*({_KEYS})\s*=")
_BASES: Final[dict[Any, str]] = {str: "text", int: "a whole number", float: "a number", dict: "a table"}


class Problem(NamedTuple):
    """What is wrong with the value at `path`, and what is allowed there."""

    path: KeyPath
    text: str


def problems(document: Mapping[str, Any], kind: type[Struct]) -> Iterator[Problem]:
    """Everything in `document` that cannot be converted to `kind`."""
    return _check((), document, kind)


def located(where: str, text: str, found: Iterable[Problem]) -> list[str]:
    """One line of words per problem, in the order of the text: `where:line: dotted.key: what is wrong`. Of many
    problems the first `PROBLEMS`, and a line that there are more."""
    at = _lines(text)
    few = list(itertools.islice(found, PROBLEMS + 1))
    numbered = [(_line_of(at, problem.path), problem) for problem in few[:PROBLEMS]]
    lines = [
        ": ".join(filter(None, [f"{where}:{number}" if number else where, dotted(problem.path), problem.text]))[
            :LONGEST
        ]
        for number, problem in sorted(numbered, key=lambda pair: pair[0])
    ]
    return lines if len(few) <= PROBLEMS else [*lines, f"{where}: and more"]


def too_deep(text: str) -> int:
    """The line of a TOML text, counted from 1, that may hold a key of more than `DOTS` parts; 0: none."""
    lines = enumerate(text.split("\n"), start=1)
    return next((number for number, line in lines if line.partition("#")[0].count(".") > DOTS), 0)


def dotted(path: KeyPath) -> str:
    """`path` as TOML writes it: `cameras."cam.1".policy`."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key) for key in path)


def shown(value: object) -> str:
    """A value as it stands in the file, shortened."""
    if isinstance(value, Mapping):
        return "a table"
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # not finite, or an integer that is too long to be written
        text = str(value) if isinstance(value, float) else "a value out of range"
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(words: Iterable[str]) -> str:
    """`words` to choose from, the first of them."""
    first = list(itertools.islice(words, WORDS + 1))
    return ", ".join([*first[:WORDS], "..."] if len(first) > WORDS else first) or "none"


def meant(word: object, words: Iterable[str]) -> str:
    """`; did you mean ...?` when `word` looks like a slip of one of `words`, else nothing."""
    close = (
        difflib.get_close_matches(word[:64], list(itertools.islice(words, COMPARED)), n=1)
        if isinstance(word, str)
        else []
    )
    return f"; did you mean {close[0]}?" if close else ""


def _check(path: KeyPath, value: Any, kind: Any) -> Iterator[Problem]:
    kind = _without_none(kind)
    origin = get_origin(kind)
    if origin is dict or (isinstance(kind, type) and issubclass(kind, Struct)):
        if not isinstance(value, Mapping):
            yield Problem(path, f"found {shown(value)}; allowed: a table")
        elif origin is dict:
            yield from _check_table(path, value, *get_args(kind))
        else:
            yield from _check_struct(path, value, kind)
        return
    inner = [problem for item in value for problem in _check(path, item, _item(kind))] if _is_list(value, kind) else []
    yield from inner
    if not inner and not _fits(value, kind):
        choices = get_args(kind) if origin is Literal else ()
        yield Problem(path, f"found {shown(value)}; allowed: {_allowed(kind)}{meant(value, choices)}")


def _check_table(path: KeyPath, table: Mapping[str, Any], key_kind: Any, kind: Any) -> Iterator[Problem]:
    for key, value in table.items():
        if not _fits(key, key_kind):
            yield Problem((*path, key), f"bad name {shown(key)}; allowed: {_allowed(key_kind)}")
        yield from _check((*path, key), value, kind)


def _check_struct(path: KeyPath, table: Mapping[str, Any], kind: type[Struct]) -> Iterator[Problem]:
    kinds, fields = _shape(kind)
    for key, value in table.items():
        if key in fields:
            yield from _check((*path, key), value, kinds[key])
        else:
            hint = meant(key, fields) or f"; allowed: {listed(fields)}"
            if path and isinstance(value, Mapping):
                hint += f'; a name that holds a dot is written in quotes: "{path[-1]}.{key}"'
            yield Problem((*path, key), f"unknown key{hint}")
    for name, field in fields.items():
        if name not in table and field.default is NODEFAULT and field.default_factory is NODEFAULT:
            yield Problem((*path, name), f"missing; needed: {_allowed(kinds[name])}")


@functools.cache
def _shape(kind: type[Struct]) -> tuple[dict[str, Any], dict[str, msgspec.structs.FieldInfo]]:
    """The types and the fields of a Struct by name. Kept: evaluating annotations takes most of the time of a check."""
    kinds = get_type_hints(kind, include_extras=True)
    return kinds, {field.name: field for field in msgspec.structs.fields(kind)}


def _without_none(kind: Any) -> Any:
    """`X` of `X | None`: TOML has no null."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (choice for choice in get_args(kind) if choice is not type(None))
    return kind


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _is_list(value: object, kind: Any) -> bool:
    return isinstance(value, list) and get_origin(_bare(kind)) is list


def _item(kind: Any) -> Any:
    return get_args(_bare(kind))[0]


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _allowed(kind: Any) -> str:
    """What `kind` takes, in words; a Meta's `description` has the word first."""
    kind = _without_none(kind)
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        metas = [note for note in notes if isinstance(note, Meta)]
        described = [meta.description for meta in metas if meta.description]
        return described[0] if described else " ".join([_allowed(base), *map(_bounds, metas)]).rstrip()
    if get_origin(kind) is Literal:
        return " or ".join(map(shown, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list, each {_allowed(_item(kind))}"
    if get_origin(kind) is tuple:
        return f"[{', '.join(map(_allowed, get_args(kind)))}]"
    return _BASES.get(kind, "a table")


def _bounds(meta: Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f"from {meta.ge} to {meta.le}"
    named = [("above", meta.gt), ("of at least", meta.ge), ("of at most", meta.le)]
    return " and ".join(f"{word} {bound}" for word, bound in named if bound is not None)


def _lines(text: str) -> dict[KeyPath, int]:
    """Where each table and key stands, counted from 1. Reads no more of TOML than that: values are skipped, so keys
    inside inline tables are missing and a line inside a multi-line text is passed over."""
    at: dict[KeyPath, int] = {}
    table: KeyPath = ()
    quoted = False
    for number, line in enumerate(text.split("\n"), start=1):
        inside, quoted = quoted, quoted ^ ((line.count('"""') + line.count("'''")) % 2 == 1)
        if inside:
            continue
        if header := _HEADER.match(line):
            table = _split(header[1])
            for length in range(1, len(table) + 1):
                at.setdefault(table[:length], number)
        elif assignment := _ASSIGNMENT.match(line):
            at.setdefault((*table, *_split(assignment[1])), number)
    return at


def _split(keys: str) -> KeyPath:
    return tuple(key.strip().strip("\"'") for key in re.findall(_KEY, keys))


def _line_of(at: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of the key, or of the nearest table around it; 0: not in the text."""
    return next((at[path[:length]] for length in range(len(path), 0, -1) if path[:length] in at), 0)
