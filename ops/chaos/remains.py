"""What a run that was killed at once (SIGKILL) has left behind: network namespaces, mounts and its folder.

All of them carry the process id of their run in their names. The next run takes away those whose process is gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

#: What the names begin with; the process id follows.
NAMESPACE: Final = "gongwei-"
MOUNT: Final = "gongwei-chaos-"
FOLDER: Final = "gongwei-chaos-"

_NAMESPACES: Final = Path("/run/netns")
_MOUNTS: Final = Path("/proc/self/mounts")
_COMMAND_SECONDS: Final = 10.0


def sweep() -> list[str]:
    """Take them away; what was taken, for people. Only on Linux; what cannot be taken away stays."""
    if sys.platform != "linux":
        return []
    return [*_sweep_mounts(), *_sweep_namespaces(), *_sweep_folders()]


def left(names: Iterable[str], prefix: str, is_alive: Callable[[int], bool]) -> list[str]:
    """The names of those whose run is gone."""
    shape = re.compile(rf"{re.escape(prefix)}(\d+)(?:-\w+)?")
    found = ((name, shape.fullmatch(name)) for name in names)
    return [name for name, match in found if match is not None and not is_alive(int(match[1]))]


def mounted(table: str) -> list[tuple[str, str]]:
    """(source, folder) of a table of mounts as the kernel writes it: blanks and the like are octal in it."""
    rows = [line.split(" ") for line in table.splitlines()]
    return [
        (row[0], re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), row[1])) for row in rows if len(row) > 1
    ]


def _is_alive(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


def _sweep_mounts() -> Iterator[str]:
    for source, folder in mounted(_MOUNTS.read_text(encoding="utf-8", errors="replace")):
        if left([source], MOUNT, _is_alive) and _done("umount", "--lazy", folder):
            yield f"mount {folder}"


def _sweep_namespaces() -> Iterator[str]:
    names = [path.name for path in _NAMESPACES.iterdir()] if _NAMESPACES.is_dir() else []
    for name in left(names, NAMESPACE, _is_alive):
        if _done("ip", "netns", "delete", name):
            yield f"network namespace {name}"


def _sweep_folders() -> Iterator[str]:
    place = Path(tempfile.gettempdir())
    for name in left([path.name for path in place.iterdir()], FOLDER, _is_alive):
        with contextlib.suppress(OSError):
            if (place / name).lstat().st_uid == os.geteuid():
                shutil.rmtree(place / name)
                yield f"folder {place / name}"


def _done(*command: str) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
