"""How results are shown: a live table on a terminal, a line of text each where there is none, or JSON lines."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Self, TextIO

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.plural import counted
from clients.joined import Joined
from clients.watch import Result

#: Style of a verdict; the word is always shown too.
STYLES: Final = {"ok": "green", "ng": "bold red", "incomplete": "bold yellow", "none": "dim"}
#: Results that a table shows at most.
ROWS: Final = 200
#: Columns that the name of a frame or part may take.
NAME_WIDTH: Final = 28
#: Names of classes that a line shows; more are counted.
CLASSES_SHOWN: Final = 4

_ENCODER: Final = msgspec.json.Encoder()


class JsonLines:
    """One JSON object per result and line, in UTF-8."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def show(self, result: Result, body: dict[str, Any]) -> None:
        self._out.write(_ENCODER.encode(body) + b"\n")
        self._out.flush()


class Lines:
    """One line of text per result."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def show(self, result: Result, body: dict[str, Any]) -> None:
        self._out.write("  ".join(cell for cell in cells(result, body) if cell) + "\n")
        self._out.flush()


class Board:
    """The newest results in a table that fits the terminal, with counts of the verdicts below it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: deque[tuple[str, ...]] = deque(maxlen=ROWS)
        self._verdicts: Counter[str] = Counter()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=5)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, result: Result, body: dict[str, Any]) -> None:
        self._rows.append(cells(result, body))
        if isinstance(result, Joined):
            self._verdicts[result.verdict] += 1

    def _render(self) -> Group:
        rows = list(self._rows)[-max(1, self._console.size.height - 4) :]
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        name_width = min(NAME_WIDTH, max((len(row[1]) for row in rows), default=0))
        for heading, width in (("time", 8), ("frame or part", max(13, name_width)), ("verdict", 10), ("ms", 7)):
            justify: Literal["left", "right"] = "right" if heading == "ms" else "left"
            table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis", min_width=width)
        table.add_column("what", no_wrap=True, overflow="ellipsis", ratio=1)
        for moment, name, verdict, milliseconds, what in rows:
            shown = Text(verdict, STYLES.get(verdict.lower(), ""))
            table.add_row(moment, Text(name), shown, milliseconds, Text(what))
        return Group(table, self._summary())

    def _summary(self) -> Text:
        total = self._verdicts.total()
        if not total:
            return Text("waiting for results", "dim")
        counts = [
            Text(f"{count} {verdict}", STYLES.get(verdict, "")) for verdict, count in self._verdicts.most_common()
        ]
        return Text("  ").join([Text(counted(total, "frame")), *counts])


def cells(result: Result, body: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Time of publication, frame or part, verdict, milliseconds, and what there is to say."""
    moment = time.strftime("%H:%M:%S", time.localtime(result.published_at))
    if isinstance(result, Joined):
        name = f"{result.key.camera}/{result.key.seq}"
        what = [f"part {result.part}"] if result.part else []
        what += [*_missing(body), *_random(body), *_found(body)]
        return moment, name, result.verdict.upper(), f"{result.seconds * 1e3:.1f}", ", ".join(what) or "nothing found"
    what = [counted(len(result.frames), "frame"), *_missing(body)]
    return moment, f"{result.station} part {result.part}", result.verdict.upper(), "", ", ".join(what)


def _missing(body: Mapping[str, Any]) -> Iterator[str]:
    for one in body["missing"]:
        who = one.get("model") or one.get("camera")
        yield f"no {who} ({one['status']}: {one['reason']})" if "status" in one else f"no {who} ({one['reason']})"


def _random(body: Mapping[str, Any]) -> Iterator[str]:
    """The models whose answers are no answers."""
    for model, answer in body["results"].items():
        if answer.get("random"):
            yield f"{model}: random weights"


def _found(body: Mapping[str, Any]) -> Iterator[str]:
    """The classes that were found, the most certain first: name, how many, best score."""
    best: dict[str, float] = {}
    count: Counter[str] = Counter()
    for answer in body["results"].values():
        for one in [*(answer.get("detections") or ()), *(answer.get("classes") or ())[:1]]:
            name, score = str(one.get("name", one.get("class"))), float(one.get("score") or 0.0)
            best[name] = max(best.get(name, 0.0), score)
            count[name] += 1
    names = sorted(best, key=lambda name: -best[name])
    for name in names[:CLASSES_SHOWN]:
        times = f"{count[name]} × " if count[name] > 1 else ""
        yield f"{times}{name} {best[name]:.2f}"
    if len(names) > CLASSES_SHOWN:
        yield f"{len(names) - CLASSES_SHOWN} more"
