"""A table that leaves out its least important columns where the terminal is too narrow for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

#: Blanks between two columns.
GAP: Final = 2

Row = Sequence[str | Text]


class Columns:
    """Rows under headings; `spare`: headings that may be left out, the first one first.

    The first column names the row: it is on the left, and is cut when nothing else can be left out.
    """

    def __init__(self, headings: Sequence[str], spare: Sequence[str] = ()) -> None:
        self._headings = tuple(headings)
        self._spare = tuple(spare)
        self._rows: list[Row] = []

    def add_row(self, *cells: str | Text) -> None:
        """A cell for each heading."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = fitting(self._widths(), options.max_width, self._spare)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
        for index, heading in enumerate(shown):
            if index == 0:
                table.add_column(heading, overflow="ellipsis")
            else:
                table.add_column(heading, justify="right", no_wrap=True)
        places = [self._headings.index(heading) for heading in shown]
        for row in self._rows:
            table.add_row(*(_text(row[place]) for place in places))
        yield table

    def _widths(self) -> dict[str, int]:
        """The cells of the terminal that each column takes."""
        columns = zip(self._headings, *(map(_plain, row) for row in self._rows), strict=True)
        return {column[0]: max(map(cell_len, column)) for column in columns}


def fitting(widths: Mapping[str, int], room: int, spare: Sequence[str]) -> list[str]:
    """The columns that are shown in `room` cells: without as few of `spare`, from its first on, as it takes."""
    shown = list(widths)
    for heading in spare:
        if sum(widths[one] + GAP for one in shown) - GAP <= room:
            break
        shown.remove(heading)
    return shown


def _text(cell: str | Text) -> Text:
    """What peers call themselves is no markup."""
    return cell if isinstance(cell, Text) else Text(cell)


def _plain(cell: str | Text) -> str:
    return cell.plain if isinstance(cell, Text) else cell
