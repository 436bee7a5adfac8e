"""What a chaos run leaves behind that was killed at once, and that the next one takes it away."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

from ops.chaos.disk import Disk
from ops.chaos.network import Network
from ops.chaos.remains import FOLDER, MOUNT, NAMESPACE, left, mounted, sweep

#: A run, as far as it makes things outside its processes.
RUN: Final = """
import os, sys, tempfile
from pathlib import Path
from ops.chaos.disk import Disk
from ops.chaos.network import Network
from ops.chaos.remains import FOLDER
folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
try:
    for needed in sys.argv[1:]:
        {"disk": lambda: Disk(folder / "disk", 1 << 20), "network": lambda: Network(1)}[needed]().__enter__()
    print(folder, flush=True)
except OSError as error:
    print(f"refused {error}", flush=True)
sys.stdin.read()
"""


def named(pid: int) -> list[str]:
    """All that carries the process id of a run."""
    namespaces = Path("/run/netns")
    names = [path.name for path in namespaces.iterdir()] if namespaces.is_dir() else []
    sources = [source for source, _ in mounted(Path("/proc/self/mounts").read_text(encoding="utf-8"))]
    names += [source for source in sources if source == f"{MOUNT}{pid}"]
    folders = [path.name for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith(FOLDER)]
    return [name for name in (*names, *folders) if str(pid) in name.split("-")]


def test_only_those_of_dead_runs_are_left() -> None:
    names = ["gongwei-7-0a1b2c", "gongwei-8-0a1b2c", "gongwei-7", "gongwei-0a1b2c", "plant-7-0a1b2c", "gongwei-7-a/b"]
    assert left(names, NAMESPACE, lambda pid: pid == 8) == ["gongwei-7-0a1b2c", "gongwei-7"]
    assert left(["gongwei-chaos-7-ab_c", "gongwei-chaos"], FOLDER, lambda pid: False) == ["gongwei-chaos-7-ab_c"]


def test_a_folder_with_a_blank_is_read_from_the_table_of_mounts() -> None:
    table = "gongwei-chaos-7 /a\\040b/disk tmpfs rw 0 0\nproc /proc proc rw 0 0\n"
    assert mounted(table) == [("gongwei-chaos-7", "/a b/disk"), ("proc", "/proc")]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has any of it")
@pytest.mark.parametrize("needed", [[], ["disk"], ["network"], ["disk", "network"]])
def test_the_next_run_takes_away_what_a_killed_one_left(needed: list[str]) -> None:
    for what, missing in (("disk", Disk.missing()), ("network", Network.missing())):
        if what in needed and missing:
            pytest.skip(missing)
    command = (sys.executable, "-c", RUN, *needed)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        said = run.stdout.readline().strip()
        sweep()
        lived = named(run.pid)
        run.kill()
    swept = [what for what in sweep() if str(run.pid) in what or said in what]
    assert not named(run.pid)
    if said.startswith("refused"):
        pytest.skip(said)
    assert len(lived) == 1 + len(needed), "what lives is left alone"
    assert len(swept) == 1 + len(needed) and not Path(said).exists()
