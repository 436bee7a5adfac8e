"""What the metadata of a model's file says, key by key. Pure.

Each function raises ModelError, with `where` and what to do, for a value that is none.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, TypeVar

from workers.errors import ModelError

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
Word = TypeVar("Word", bound=str)

#: Metadata keys of our own, beside Ultralytics' `task`, `names` and `imgsz`; `workers describe` writes them.
MEAN: Final = "gongwei.mean"
STD: Final = "gongwei.std"
FIT: Final = "gongwei.fit"
#: What the weights are: `random` where nobody trained them; and where the file came from, for people.
WEIGHTS: Final = "gongwei.weights"
RANDOM: Final = "random"
SOURCE: Final = "gongwei.source"
#: The sha256 of each file that a model came from (SOURCE has their names).
SOURCE_SHA256: Final = "gongwei.source_sha256"
#: What the graph computes in, where an import, the zoo or `workers quantise` wrote it.
PRECISION: Final = "gongwei.precision"
#: From how many pictures int8 learnt its ranges, where `workers` made it so.
CALIBRATION: Final = "gongwei.calibration"
#: Longest `names` that is read from a file's metadata, in characters.
NAMES_LIMIT: Final = 1 << 20
#: Classes of one name that a note numbers.
NAMESAKES: Final = 5


def names_in(metadata: Mapping[str, str], where: str) -> tuple[str, ...] | None:
    """The class names in a file's metadata: Ultralytics writes a Python list, or a dict from number to name. None where
    it has none. Raises ModelError."""
    text = metadata.get("names")
    if text is None:
        return None
    try:
        names = _listed(ast.literal_eval(text)) if len(text) <= NAMES_LIMIT else ()
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        names = ()
    if not names:
        raise ModelError(f"{where}: its metadata's names cannot be read: {text[:80]!r}; give them with --labels FILE")
    # '\ud800' is ASCII in the file, and a lone surrogate once read: no message can carry it, and no font draw it.
    broken = next((name for name in names if name.encode(errors="replace").decode() != name), None)
    if broken is not None:
        raise ModelError(f"{where}: its metadata's name {broken[:80]!a} is no text; give the names with --labels FILE")
    return names


def namesakes(names: Sequence[str]) -> str:
    """What a person should know of classes that have one name; "": each has its own."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not twice:
        return ""
    same = [str(number) for number, name in enumerate(names) if name == twice[0]]
    numbers = ", ".join(same[:NAMESAKES]) + (", ..." if len(same) > NAMESAKES else "")
    more = f" (further names of several classes: {len(twice) - 1})" if len(twice) > 1 else ""
    return (
        f"classes {numbers} are all called {twice[0][:80]!r}{more}: rules and counts, which go by the name, take them"
        " for one; --labels gives them other names"
    )


def _listed(value: object) -> tuple[str, ...]:
    """The names in a list, or in a dict of 0, 1, 2, ...; none of anything else."""
    if isinstance(value, dict) and value.keys() == set(range(len(value))):
        value = [value[number] for number in range(len(value))]
    # ValueError: a hexadecimal number of more digits than Python writes in decimal.
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def word_in(metadata: Mapping[str, str], key: str, known: tuple[Word, ...], where: str, cure: str) -> Word | None:
    """Which of the `known` words the file says at `key`, if any. `cure`: what to do where it is another."""
    said = metadata.get(key)
    if said is not None and said not in known:
        raise ModelError(f"{where}: its metadata says {key} {said[:80]!r}; known: {', '.join(known)}; {cure}")
    return next((word for word in known if word == said), None)


def numbers_in(metadata: Mapping[str, str], key: str, where: str) -> tuple[float, ...] | None:
    """Finite numbers with commas between them, in brackets or without; None where there is no `key`."""
    text = metadata.get(key)
    if text is None:
        return None
    try:
        numbers = tuple(float(number) for number in text.strip("[]() ").split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise ModelError(f"{where}: its metadata's {key} {text[:80]!r} is not a list of numbers")
    return numbers
