"""One line that says how it goes: kept up to date on a terminal, printed now and then where there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from clients.stats import Stats

#: Seconds between two lines where no terminal is.
PLAIN_EVERY: Final = 10.0


class Progress:
    """Shows `line()` on stderr while the block runs, and once more at its end."""

    def __init__(self, line: Callable[[], str], *, every: float = PLAIN_EVERY, console: Console | None = None) -> None:
        self._line = line
        self._every = every
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=5)
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._print_on, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()
            self._print()

    def _render(self) -> Text:
        return Text(self._line(), no_wrap=True, overflow="ellipsis")

    def _print_on(self) -> None:
        while not self._ended.wait(self._every):
            self._print()

    def _print(self) -> None:
        self._console.print(self._line(), markup=False, soft_wrap=True)


def describe(name: str, stats: Stats, seconds: float) -> str:
    """A camera's state in about 80 columns; what did not happen is left out, rejects are by reason."""
    ended = stats.complete + stats.incomplete
    words = [f"{name}  {ended} settled" if stats.connected or ended else f"{name}  waiting for a broker"]
    if seconds > 0 and ended:
        words.append(f"{ended / seconds:.1f}/s")
    if stats.latency_p50 is not None and stats.latency_p99 is not None:
        words.append(f"p50 {stats.latency_p50 * 1e3:.0f} ms p99 {stats.latency_p99 * 1e3:.0f} ms")
    rejected, skipped = sum(stats.rejected.values()), sum(stats.skipped.values())
    reasons = {"rejected": f" ({_reasons(stats.rejected)})"}
    counts = {
        "unsettled": stats.unsettled,
        "incomplete": stats.incomplete,
        "skipped": skipped,
        "superseded": stats.superseded,
        "rejected": rejected,
        "lost": stats.lost,
        "sent again": stats.resent,
    }
    words += [f"{count} {what}{reasons.get(what, '')}" for what, count in counts.items() if count]
    if ended and not stats.connected:
        words.append("NOT CONNECTED")
    return "  ".join(words)


def _reasons(counts: Mapping[str, int]) -> str:
    """The most frequent first: `part_duplicate 7, too_large 2`."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda pair: -pair[1]))
