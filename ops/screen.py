"""What the operator sees: one log of all processes, and the live table; drawn by a thread of its own.

A terminal can stand still (Ctrl-S, a selection in a Windows console). The supervisor must not stand still with it, so
it only puts lines into a bounded queue; what does not fit is counted and said.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ops import logline, table
from ops.logline import PALETTE, LogLine
from ops.snapshot import Snapshot

#: Lines that may wait to be drawn.
QUEUE: Final = 10_000
#: Lines drawn at most before the table is looked at again.
BURST: Final = 200
#: Seconds between two readings of the line, and between two plain status lines where there is no terminal.
REFRESH: Final = 1.0
PLAIN_REFRESH: Final = 5.0
#: Name under which the supervisor itself speaks.
SELF: Final = "gongwei"


class Screen:
    """A `Voice` that draws: coloured lines, or JSON lines; with a table below them on a terminal.

    `quiet`: of the children's logs only warnings, worse, and what is no log line at all. `read`: makes a snapshot of
    the line; it is called by the screen's thread, once a second.
    """

    def __init__(
        self,
        console: Console,
        names: list[str],
        read: Callable[[], Snapshot],
        *,
        json: bool = False,
        live: bool = True,
        quiet: bool = False,
    ) -> None:
        self._console = console
        self._colours = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}
        self._width = max((len(name) for name in [SELF, *names]), default=0)
        self._read = read
        self._json = json
        self._quiet = quiet
        self._live = live and not json
        self._lines: queue.Queue[LogLine] = queue.Queue(QUEUE)
        self._dropped = 0
        self._unseen = False
        self._should_stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        #: The latest reading and the one before; replaced as a pair by the screen's thread.
        self.seen: tuple[Snapshot, Snapshot] = (Snapshot(), Snapshot())

    def line(self, name: str, text: str) -> None:
        """A line of a child's log; callable from any thread."""
        line = logline.read(name, text)
        if not (self._quiet and line.level in ("debug", "info")):
            self._put(line)

    def say(self, text: str, *, level: str = "info") -> None:
        """What the supervisor has to say; callable from any thread."""
        self._put(_own(text, level))

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Draw what waits, as far as the terminal takes it in `timeout` seconds."""
        self._should_stop.set()
        self._thread.join(timeout)

    def _put(self, line: LogLine) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _run(self) -> None:
        if self._live and self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                self._loop(lambda: live.update(table.draw(*self.seen), refresh=True), REFRESH)
        elif self._live:
            self._loop(lambda: self._console.print(Text(table.plain(*self.seen)), soft_wrap=True), PLAIN_REFRESH)
        else:
            self._loop(lambda: None, REFRESH)

    def _loop(self, draw: Callable[[], None], every: float) -> None:
        read_at = drawn_at = 0.0
        while not (self._should_stop.is_set() and self._lines.empty()):
            lines = self._take_lines()
            if lines:
                self._show(partial(self._draw_lines, lines))
            now = time.monotonic()
            if now - read_at >= REFRESH and not self._should_stop.is_set():
                read_at = now
                self.seen = (self._read(), self.seen[0])
            if now - drawn_at >= every:
                drawn_at = now
                self._show(draw)

    def _show(self, draw: Callable[[], None]) -> None:
        """Draw, unless nobody looks any more: the reader of a pipe may end, and the line goes on without it."""
        if self._unseen:
            return
        try:
            draw()
        except (OSError, SystemExit):  # rich makes a SystemExit of a broken pipe
            self._unseen = True

    def _take_lines(self) -> list[LogLine]:
        """Some of the lines that wait; waits a moment for the first of them."""
        lines = []
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(_own(f"{dropped} log lines were dropped: the terminal takes them too slowly", "warning"))
        try:
            lines.append(self._lines.get(timeout=0.1))
            while len(lines) < BURST:
                lines.append(self._lines.get_nowait())
        except queue.Empty:
            pass
        return lines

    def _draw_lines(self, lines: list[LogLine]) -> None:
        """Draw lines at once: each print draws the table below them again."""
        if self._json:
            now = datetime.now(UTC).isoformat()
            self._console.out("\n".join(logline.to_json(line, now) for line in lines), highlight=False)
        else:
            self._console.print(Text("\n").join(map(self._render, lines)), soft_wrap=True)

    def _render(self, line: LogLine) -> Text:
        return logline.render(line, colour=self._colours.get(line.name, "bold"), width=self._width)


def _own(text: str, level: str) -> LogLine:
    return LogLine(SELF, text, level=level, at=datetime.now(UTC).isoformat())
