"""The machine that a benchmark runs on, and whether it had anything else to do."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import zmq
from msgspec import Struct
from rich.console import Console

_LIBRARIES = ("pyzmq", "msgspec", "numpy", "onnxruntime")
#: From this load on, at the start, figures are disturbed by what else runs.
_IDLE_LOAD = 0.5


class Machine(Struct, frozen=True, kw_only=True):
    """Where figures come from. `load`: the mean of running processes in the minute before the start; None: unknown."""

    cpu: str
    cores: int
    memory: int
    system: str
    python: str
    libzmq: str
    libraries: dict[str, str]
    load: float | None

    def __str__(self) -> str:
        libraries = ", ".join(f"{name} {number}" for name, number in self.libraries.items())
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory / 1e9:.0f} GB, {self.system}, "
            f"Python {self.python}, libzmq {self.libzmq}, {libraries}"
        )


def this_machine() -> Machine:
    """The machine that this process runs on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return Machine(
        cpu=_cpu_name(),
        cores=psutil.cpu_count() or 0,
        memory=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libzmq=zmq.zmq_version(),
        libraries={name: version(name) for name in _LIBRARIES},
        load=load,
    )


def print_busy_warning(console: Console, machine: Machine) -> None:
    """Say so when the machine was not idle."""
    if machine.load is not None and machine.load > _IDLE_LOAD:
        console.print(f"[yellow]The machine is not idle (load {machine.load:.2f}): figures will be disturbed.[/]")


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform == "linux" and cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
