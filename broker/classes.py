"""The classes that a line's rules name, against those that its models know. Pure.

A misspelt class in `ng` is never seen, so that every bad part passes as good; in `required`, no part ever does.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from broker.document import dotted, shown
from broker.line import Line

#: Known names that are listed where none is close.
_LISTED: Final = 10


class Unknown(NamedTuple):
    """Class `name` in `rules.<key>` of a station, which none of the models knows that see the station's cameras.

    `known`: all names; `models`: those that see the cameras; `doubtful`: those of them whose names are not known here:
    one of them may know the class.
    """

    station: str
    key: str
    name: str
    known: tuple[str, ...]
    models: tuple[str, ...]
    doubtful: tuple[str, ...]

    @property
    def closest(self) -> str:
        """The name that may be meant, "" for none. Takes a while with many names."""
        return closest(self.name, self.known)

    @property
    def hint(self) -> str:
        """`did you mean scratch?`, or what there is to choose from."""
        meant = self.closest
        if meant:
            return f"did you mean {meant}?"
        more = ", ..." if len(self.known) > _LISTED else ""
        return f"known are {', '.join(self.known[:_LISTED])}{more}"

    @property
    def text(self) -> str:
        where = dotted(("stations", self.station, "rules", self.key))
        return f"{where}: no model of its cameras knows the class {shown(self.name)}; {self.hint}"


def unknown(line: Line, names: Mapping[str, Collection[str]]) -> Iterator[Unknown]:
    """Every class of the rules that no model knows. `names`: the classes of the models, as far as they are known."""
    for station, entry in line.stations.items():
        models = seen_by(line, station)
        known = tuple(dict.fromkeys(name for model in models for name in names.get(model, ())))
        if entry.rules is None or not known:
            continue
        doubtful = tuple(model for model in models if model not in names)
        for key, words in (("ng", entry.rules.ng), ("required", entry.rules.required)):
            for name in words:
                if name not in known:
                    yield Unknown(station, key, name, known, tuple(models), doubtful)


def seen_by(line: Line, station: str) -> list[str]:
    """The models that see any camera of the station."""
    cameras = [name for name, entry in line.cameras.items() if entry.station == station]
    return list(dict.fromkeys(model for camera in cameras for model in line.route(camera)[0]))


def closest(name: str, known: Collection[str]) -> str:
    """The known name that `name` is most likely a slip of, whatever its case; "" if none is close."""
    folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[near[0]] if near else ""
