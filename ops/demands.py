"""Checks of `gongwei doctor --line`: what a line file asks of this machine (ports, model files, disk, memory)."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

from broker.line import Line
from ops.doctor import Check, State
from ops.machine import gigabytes, memory

#: A commit waits for the disk: above this median (s), acceptance of a frame is felt in its deadline.
SLOW_SYNC: Final = 0.02
#: Less free disk than this is a warning, less than a quarter of it a failure.
LEAST_DISK: Final = 1 << 30
#: SQLite's WAL needs shared memory, which these do not give.
NETWORK_FILESYSTEMS: Final = ("nfs", "nfs4", "cifs", "smb", "smbfs", "smb3", "9p", "fuse.sshfs")


def for_line(line: Line, folder: Path) -> list[Check]:
    """What this line asks of the machine; relative paths are those of `folder`, where the line file is."""
    recorder = folder / line.recorder.folder
    return [
        *ports(line),
        *models(line, folder),
        *disk("ledger", (folder / line.ledger.path).parent),
        space("pictures", recorder, line.recorder.disk << 20),
        memory(line.limits.queue_bytes + (line.recorder.memory << 20)),
    ]


def ports(line: Line) -> list[Check]:
    """The tcp ports that the line binds here: free, or whose."""
    wanted: list[tuple[str, str, int]] = []
    for name in ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control"):
        scheme, _, rest = getattr(line.endpoints, name).partition("://")
        host, _, port = rest.rpartition(":")
        if scheme == "tcp" and port.isdigit():
            wanted.append((name, host, int(port)))
    if line.endpoints.metrics:
        processes = 3 + sum(model.workers for model in line.models.values())
        wanted += [("metrics", "127.0.0.1", line.endpoints.metrics + offset) for offset in range(processes)]
    if line.endpoints.backend.startswith("tcp://"):
        host = line.endpoints.backend.removeprefix("tcp://").rpartition(":")[0]
        low, high = line.endpoints.sessions
        wanted += [("session", host, port) for port in range(low, high + 1)]
    taken = [check for name, host, port in wanted if (check := port_check(name, host, port)) is not None]
    if taken:
        return taken
    return [Check(name="ports", state="ok", found=f"{len(wanted)} ports of the line are free")]


def port_check(name: str, host: str, port: int) -> Check | None:
    """None: the port can be bound. An interface name (`tcp://eth0:7001`) is not looked at."""
    address = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host).strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":  # there, the option would let two programs share one port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
        return None
    except socket.gaierror:
        return None
    except OSError as error:
        label = f"{name} port {port}"
        if error.errno == errno.EADDRNOTAVAIL:
            advice = "use 0.0.0.0, or an address of the machine that runs the broker"
            return Check(name=label, state="failed", found=f"{host} is no address of this machine", advice=advice)
        if error.errno == errno.EADDRINUSE:
            advice = "end that program (a line that runs already?), or give the line file other ports"
            return Check(name=label, state="failed", found=f"taken by {port_owner(port)}", advice=advice)
        return Check(name=label, state="failed", found=str(error), advice="give the line file other ports")


def port_owner(port: int) -> str:
    """The program that listens on `port`, as far as the system tells."""
    try:
        connections = psutil.net_connections(kind="tcp")
        owner = next(c.pid for c in connections if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN)
        process = psutil.Process(owner) if owner else None
        return f"{process.name()} (pid {owner})" if process else "another user's program"
    except (StopIteration, psutil.Error, OSError):
        return "a program that the system does not name"


def models(line: Line, folder: Path) -> Iterable[Check]:
    """The model files that `gongwei up` would load."""
    for name, model in line.models.items():
        path = folder / model.file
        if not model.file:
            yield Check(name=f"model {name}", state="ok", found="no file: its workers are started elsewhere")
        elif path.is_file():
            yield Check(name=f"model {name}", state="ok", found=f"{model.file}, {path.stat().st_size / 1e6:.1f} MB")
        else:
            advice = f"correct models.{name}.file in the line file, or put the file there"
            yield Check(name=f"model {name}", state="failed", found=f"no file {path}", advice=advice)


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
