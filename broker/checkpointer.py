"""Moves what was written from the ledger's log into its file, in a thread of its own: the join never waits for that.

What comes while it works is left, and is little: the join's own commits move it once the log is long (SQLite's
automatic checkpoint), so that the log begins anew and does not grow.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final, Self

from broker.reserve import Reserve

#: Least seconds between two rounds.
EVERY: Final = 0.25
#: Steps of retention that may wait for a round.
AHEAD: Final = 16


class Checkpointer:
    """A context manager around a thread. `failures`: rounds that did not work; the next one tries again. `reserve`: to
    be filled when there is room."""

    def __init__(self, path: Path, reserve: Reserve | None = None) -> None:
        self.failures = 0
        #: Held during a round.
        self.lock = threading.Lock()
        self._path = path
        self._reserve = reserve
        self._steps = 0
        self._wrote = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger checkpoints", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._wrote.set()
        self._thread.join()

    @property
    def behind(self) -> bool:
        """So much was deleted since the last round that more has to wait for the next one."""
        return self._steps >= AHEAD

    def wrote(self, step: bool = False) -> None:
        """Something was committed; `step`: a step of retention."""
        self._steps += step
        self._wrote.set()

    def _run(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=0.0, isolation_level=None)) as db:
            while not self._end.wait(EVERY):
                if self._reserve is not None:
                    self._reserve.fill()
                self._wrote.wait()
                self._wrote.clear()
                self._steps = 0
                try:
                    with self.lock:
                        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                except sqlite3.Error:  # a full disk, or a file that is locked: the commits meet it too, and say so
                    self.failures += 1
