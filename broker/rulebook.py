"""The line files that the join was told, by digest: whose rules judge a frame, and which cameras make up a part."""

from __future__ import annotations

from typing import Final

from broker import line as line_file
from broker.line import Line, Rules

#: Line files that are remembered, the newest.
REMEMBERED: Final = 8


class Rulebook:
    """A frame is judged by the line file that its EXPECT names; one that nobody told of, by the newest."""

    def __init__(self, line: Line | None = None) -> None:
        """`line`: what holds until the broker tells of one."""
        self.unknown_total = 0
        self._newest = line
        self._lines: dict[str, Line] = {}
        self._rules: dict[tuple[str, str], tuple[Rules | None, bool]] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._lines

    def add(self, digest: str, text: str) -> None:
        """Remember a line file, now the newest. Raises LineError where it cannot be used."""
        if self._newest is not None and self._lines.get(digest) is self._newest:
            return
        line = self._lines.pop(digest, None) or line_file.parse(text, f"line {digest}")
        self._lines[digest] = self._newest = line
        if len(self._lines) > REMEMBERED:
            del self._lines[next(iter(self._lines))]
        self._rules.clear()

    def recall(self, digest: str, text: str) -> None:
        """Remember a line file of the past: the newest only where there is no other. Raises LineError."""
        newest = self._newest
        self.add(digest, text)
        self._newest = newest or self._newest

    @property
    def newest(self) -> Line | None:
        """The line file that the broker told of last; before, the join's own."""
        return self._newest

    def line(self, digest: str) -> Line | None:
        found = self._lines.get(digest)
        if found is None:
            self.unknown_total += 1
            return self._newest
        return found

    def rules(self, digest: str, station: str) -> tuple[Rules | None, bool]:
        """(the station's rules or None, whether a single camera sees its parts)."""
        found = self._rules.get((digest, station))
        if found is None:
            found = self._look_up(digest, station)
            if digest in self._lines:
                self._rules[digest, station] = found
        return found

    def part_plan(self, digest: str, station: str) -> tuple[list[str], float]:
        """(cameras that make up a part of the station, seconds from its first frame to its deadline)."""
        line = self.line(digest)
        if line is None or station not in line.stations:
            return [], line_file.Station().part_deadline
        return line.cameras_at(station), line.stations[station].part_deadline

    def _look_up(self, digest: str, station: str) -> tuple[Rules | None, bool]:
        line = self.line(digest)
        if line is None or station not in line.stations:
            return None, True
        return line.stations[station].rules, len(line.cameras_at(station)) <= 1
