"""Checks of `gongwei doctor` that look at the machine: cores, memory, limits, clocks, GPU."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
import time
from typing import Final

import psutil

from ops.doctor import Check

LEAST_MEMORY: Final = 1 << 30
LEAST_FILES: Final = 1024


def machine() -> list[Check]:
    """What holds for any line."""
    return [processors(), memory(0), open_files(), monotonic_clock(), time_sync(), graphics()]


def processors() -> Check:
    """Cores that this process may use."""
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1
    if cores < 2:
        advice = "every worker takes a core while it computes, the broker part of one: expect late answers"
        return Check(name="cores", state="warning", found=str(cores), advice=advice)
    return Check(name="cores", state="ok", found=str(cores))


def memory(asked: int) -> Check:
    """`asked`: what the queues of the line may take, in bytes."""
    free = psutil.virtual_memory().available
    name, found = ("memory for queues", f"{gigabytes(asked)} of ") if asked else ("memory", "")
    found += f"{gigabytes(free)} available"
    if free >= asked + LEAST_MEMORY:
        return Check(name=name, state="ok", found=found)
    advice = "lower limits.queue_bytes or recorder.memory in the line file" if asked else "close other programs"
    return Check(name=name, state="warning", found=found, advice=advice)


def open_files() -> Check:
    """Sockets are open files; a line with many cameras and sessions needs a few hundred in one process."""
    if sys.platform == "win32":
        return Check(name="open files", state="ok", found="no limit that matters on Windows")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= LEAST_FILES:
        return Check(name="open files", state="ok", found="unlimited" if soft == resource.RLIM_INFINITY else str(soft))
    advice = f"ulimit -n {LEAST_FILES}, or LimitNOFILE={LEAST_FILES} in the systemd unit"
    return Check(name="open files", state="warning", found=f"{soft} (at most {hard})", advice=advice)


def monotonic_clock() -> Check:
    """Deadlines run on it: a tick must be far below a millisecond."""
    clock = time.get_clock_info("monotonic")
    steps: set[float] = set()
    began = time.monotonic()
    while len(steps) < 20 and time.monotonic() - began < 0.5:
        steps.add(time.monotonic())
    seen = sorted(steps)
    tick = min((b - a for a, b in itertools.pairwise(seen)), default=float("inf"))
    found = f"tick of {tick * 1e6:.1f} us seen ({clock.implementation})"
    if tick <= 1e-3:
        return Check(name="clock", state="ok", found=found)
    return Check(name="clock", state="warning", found=found, advice="deadlines are only as exact as this tick")


def time_sync() -> Check:
    """The wall clock is a label only, but one that people compare between machines."""
    synced = _windows_synced() if sys.platform == "win32" else _kernel_synced()
    if synced is None:
        return Check(name="time sync", state="warning", found="this system does not say", advice="use an NTP client")
    if synced:
        return Check(name="time sync", state="ok", found="the wall clock is synchronised")
    advice = (
        "times in results will differ between machines (deadlines will not): use an NTP client, or chrony or w32time"
    )
    return Check(name="time sync", state="warning", found="the wall clock is not synchronised", advice=advice)


def _kernel_synced() -> bool | None:
    """Linux: STA_UNSYNC of adjtimex(2), which asks nobody and costs nothing."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    timex = (ctypes.c_byte * 512)()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
        return None
    status = int.from_bytes(bytes(timex)[40:44], sys.byteorder)
    return not status & 0x40


def _windows_synced() -> bool | None:
    try:
        done = subprocess.run(["w32tm", "/query", "/status"], capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode == 0


def graphics() -> Check:
    """NVIDIA GPUs and their driver, by NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError) as error:
        return _no_graphics(str(error))
    except pynvml.NVMLError as error:
        return _no_graphics(str(error))
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        names = [
            f"{_text(pynvml.nvmlDeviceGetName(handle))} ({gigabytes(pynvml.nvmlDeviceGetMemoryInfo(handle).total)})"
            for handle in handles
        ]
        return Check(name="gpu", state="ok", found=f"{', '.join(names)}, driver {driver}")
    except pynvml.NVMLError as error:
        return Check(name="gpu", state="warning", found=f"NVML says: {error}", advice="look at the driver: nvidia-smi")
    finally:
        pynvml.nvmlShutdown()


def _no_graphics(why: str) -> Check:
    return Check(name="gpu", state="warning", found=f"none ({why})", advice="models run on the CPU, which is slower")


def gigabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / (1 << 30):.1f} GiB"


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
