"""What one step of retention deleted, and the account that the ledger keeps of it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from broker.wire import Key

_ADD: Final = "INSERT INTO deleted VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"


@dataclass(slots=True)
class Purged:
    """What a step deleted. `rows`: (what, name, kind) -> how many, as in the table `deleted`; `keys`: frames; `boots`:
    (camera, boot); `pages`: given back to the disk."""

    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    keys: list[Key] = field(default_factory=list)
    boots: list[tuple[str, str]] = field(default_factory=list)
    pages: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.pages)

    def record(self, db: sqlite3.Connection) -> None:
        """Add it to the table `deleted`."""
        db.executemany(_ADD, [(*what, count) for what, count in self.rows.items()])
