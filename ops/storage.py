"""Checks of `gongwei doctor --line`: whether this machine's disks hold what the line keeps, and how quick they are."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from broker import ledger_file, reserve
from broker import retention as kept
from broker.ledger_file import LedgerError
from broker.line import Ledger
from broker.report import oldest_at
from ops.doctor import Check, State
from ops.machine import gigabytes

#: A commit waits for the disk: above this median (s), acceptance of a frame is felt in its deadline.
SLOW_SYNC: Final = 0.02
#: Less free disk than this is a warning, less than a quarter of it a failure.
LEAST_DISK: Final = 1 << 30
#: SQLite's WAL needs shared memory, which these do not give.
NETWORK_FILESYSTEMS: Final = ("nfs", "nfs4", "cifs", "smb", "smbfs", "smb3", "9p", "fuse.sshfs")
#: Seconds that a ledger must have run before it tells how much a day takes.
LEAST_AGE: Final = 3600.0


def space(name: str, folder: Path, asked: int) -> Check:
    """Free bytes where `folder` is or will be."""
    free = shutil.disk_usage(existing(folder)).free
    found = f"{gigabytes(free)} free in {existing(folder)}"
    if free >= asked + LEAST_DISK:
        return Check(name=f"{name} disk", state="ok", found=found)
    state: State = "failed" if free < LEAST_DISK // 4 else "warning"
    return Check(name=f"{name} disk", state=state, found=found, advice="free space, or choose another disk")


def disk(name: str, folder: Path) -> list[Check]:
    """Space, file system and the time of a synchronous write where the ledger goes."""
    return [space(name, folder, 0), filesystem(name, existing(folder)), sync_time(name, existing(folder))]


def filesystem(name: str, folder: Path) -> Check:
    """The kind of file system that holds `folder`."""
    partitions = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    kind = max(partitions, key=lambda part: len(part.mountpoint)).fstype if partitions else ""
    if kind.lower() in NETWORK_FILESYSTEMS:
        advice = "SQLite's write-ahead log does not work over a network: put the ledger on a local disk"
        return Check(name=f"{name} file system", state="failed", found=kind, advice=advice)
    return Check(name=f"{name} file system", state="ok", found=kind or "not told by the system")


def sync_time(name: str, folder: Path) -> Check:
    """How long a commit waits for this disk: 20 times 4 KB and fsync."""
    times = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(20):
                began = time.perf_counter()
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - began)
    except OSError as error:
        advice = "the join must be able to write there"
        return Check(name=f"{name} fsync", state="failed", found=f"{folder}: {error}", advice=advice)
    median, worst = statistics.median(times), max(times)
    found = f"median {median * 1e3:.2f} ms, worst {worst * 1e3:.2f} ms"
    if median <= SLOW_SYNC:
        return Check(name=f"{name} fsync", state="ok", found=found)
    advice = "every frame is accepted with a commit: use an SSD, or allow longer deadlines"
    return Check(name=f"{name} fsync", state="warning", found=found, advice=advice)


def existing(folder: Path) -> Path:
    """`folder`, or its nearest parent that exists."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder


def retention(ledger: Ledger, file: Path, now: float) -> Check:
    """Whether the disk holds what `[ledger]` keeps. `now`: unix seconds, to which the age of what is kept refers."""
    keep = kept.keep(ledger.keep_days, ledger.keep_gb)
    free = shutil.disk_usage(existing(file.parent)).free
    has = ledger_file.size(file)
    if keep.for_ever:
        found = f"every result is kept for ever: the ledger has {gigabytes(has)}, {gigabytes(free)} are free"
        advice = "give keep_days or keep_gb in [ledger]: without a limit nothing is accepted once the disk is full"
        return Check(name="retention", state="warning", found=found, advice=advice)
    limits = [f"{ledger.keep_days:g} days"] * bool(keep.seconds) + [f"{ledger.keep_gb:g} GB"] * bool(keep.bytes)
    growth = grows_by(keep, file, has, now)
    if growth is None:
        found = f"{limits[0]}: what that takes is known when the ledger is an hour old; {gigabytes(free)} are free"
        return Check(name="retention", state="ok", found=found)
    found = f"{' and '.join(limits)}: the ledger has {gigabytes(has)} and may grow by {gigabytes(growth)}, "
    found += f"{gigabytes(free)} are free"
    if growth <= free:
        return Check(name="retention", state="ok", found=found)
    advice = "keep less ([ledger] keep_days, keep_gb), or use a larger disk: on a full one the oldest goes first"
    return Check(name="retention", state="warning", found=found, advice=advice)


def grows_by(keep: kept.Keep, file: Path, has: int, now: float) -> int | None:
    """Bytes by which the ledger at `file`, which `has` some, may still grow within `keep`; None: nobody can know yet.

    By days it is as much a day as so far.
    """
    spare = 0 if reserve.Reserve(file).path.exists() else reserve.SIZE
    by_size = max(0, keep.limit - has) + spare if keep.limit else None
    try:
        began = oldest_at(file) if file.exists() else None
    except LedgerError:  # whoever uses it will say so
        began = None
    if not keep.seconds or began is None or now - began < LEAST_AGE:
        return by_size
    by_days = round(has * max(0.0, keep.seconds / (now - began) - 1)) + spare
    return by_days if by_size is None else min(by_days, by_size)
