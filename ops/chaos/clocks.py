"""Wall clocks of single processes that can be set while they run; their monotonic clocks go on.

libfaketime would be the usual means; version 0.9.10, which Debian 12 has, makes `time.sleep` of Python 3.11 and
newer fail with EINVAL where it is to leave the monotonic clock alone. So a few lines of C are compiled and preloaded.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

_SOURCE: Final = Path(__file__).with_name("wallclock.c")
_FILE: Final = "GONGWEI_CLOCK"
_PRELOAD: Final = "LD_PRELOAD"
_COMPILED_WITHIN: Final = 60.0
_NANOSECONDS: Final = struct.Struct("=q")


class Clocks:
    """Clocks by the name of a process, in `folder`, while the context lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = folder / "wallclock.so"

    @staticmethod
    def missing() -> str:
        """Why this machine cannot do it, or empty."""
        if sys.platform != "linux":
            return "needs LD_PRELOAD, which is tried on Linux only"
        return "" if _compiler() else "needs a C compiler (Debian: apt-get install gcc libc6-dev)"

    def __enter__(self) -> Clocks:
        """Raises OSError when it cannot be compiled."""
        command = (_compiler(), "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE), "-ldl")
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILED_WITHIN, check=False)
        if done.returncode:
            raise OSError(f"{_SOURCE.name} does not compile (Debian: apt-get install libc6-dev): {done.stderr.strip()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """The clocks stay in the folder: processes may still look at them."""

    def environment(self, name: str) -> dict[str, str]:
        """What process `name` is to be started with; its clock is right at first."""
        self.set(name, 0.0)
        preloaded = [str(self._library), *filter(None, [os.environ.get(_PRELOAD)])]
        return {_PRELOAD: ":".join(preloaded), _FILE: str(self._file(name))}

    def set(self, name: str, seconds: float) -> None:
        """From now on the wall clock of process `name` is ahead by so many seconds, through new starts as well."""
        file = os.open(self._file(name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, _NANOSECONDS.pack(round(seconds * 1e9)))
        finally:
            os.close(file)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"


def _compiler() -> str:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), "")
