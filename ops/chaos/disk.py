"""A small disk for the ledger that can be filled to the last byte, and emptied again: a tmpfs of the run's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from ops.chaos.remains import MOUNT

_BLOCK: Final = 1 << 20
_COMMAND_SECONDS: Final = 10.0


class Disk:
    """Mounted over the folder while the context lasts."""

    def __init__(self, folder: Path, size: int) -> None:
        """`size` in bytes."""
        self.folder = folder
        self._size = size
        self._filler = folder / "filler"

    @staticmethod
    def missing() -> str:
        """Why this machine cannot do it, or empty."""
        if sys.platform != "linux":
            return "needs a tmpfs, which only Linux has"
        if os.geteuid() != 0:
            return "needs root, to mount a tmpfs"
        return "" if shutil.which("mount") and shutil.which("umount") else "needs the commands mount and umount"

    def __enter__(self) -> Disk:
        """Raises OSError when the system refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size}", f"{MOUNT}{os.getpid()}", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        """What lay there is gone: the run has copied the ledger."""
        _run("umount", "--lazy", str(self.folder))

    def fill(self) -> None:
        """Take every byte that is free."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(_BLOCK))

    def free(self) -> None:
        """Give them back."""
        self._filler.unlink(missing_ok=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
