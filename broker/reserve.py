"""Room on the disk that the ledger can let go of: on a full disk even deleting needs some."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

#: Bytes: what the log may hold when the disk is found full, and has to find room in the file.
SIZE: Final = 24 << 20
#: It is made again once the disk has so many times its size to spare.
PLENTY: Final = 3
_CHUNK: Final = 1 << 20


class Reserve:
    """A file beside the ledger. `held`: it is there. `fill` and `release` may be called from different threads."""

    def __init__(self, ledger: Path) -> None:
        self.path = Path(f"{ledger}.reserve")
        self.held = False

    def fill(self) -> None:
        """Make the file if it is not there and the disk has plenty of room; never an error."""
        if self.held:
            return
        with contextlib.suppress(OSError):
            self.held = self.path.exists() and self.path.stat().st_size >= SIZE
            if not self.held and shutil.disk_usage(self.path.parent).free >= PLENTY * SIZE:
                self._write()
                self.held = True

    def release(self) -> None:
        """Give its room back to the disk."""
        self.held = False
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        """Zeros, written out: a hole would hold no room."""
        with self.path.open("wb") as file:
            for _ in range(SIZE // _CHUNK):
                file.write(bytes(_CHUNK))
            file.flush()
            os.fsync(file.fileno())
