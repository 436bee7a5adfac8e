"""How a process is asked to end: Ctrl-C, SIGTERM (Windows: Ctrl-Break), or the death of its supervisor."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from broker import parent


def when_asked_to_end(stop: Callable[[], None]) -> None:
    """From now on each of those requests calls `stop`, in a thread of its own, for the rest of the process.

    Not in the signal handler: that runs between two instructions of the main thread, which may hold the very lock that
    `stop` needs.
    """

    def on_signal(number: int, frame: Any) -> None:
        threading.Thread(target=stop, name="stop", daemon=True).start()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    parent.watch(stop)
