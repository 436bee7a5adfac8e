"""Checks of `gongwei doctor --line`: what a line file asks of this machine, and whether its rules can hold."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from broker import classes
from broker.classes import Unknown
from broker.line import Line
from clients.live import without_password
from ops import facts, inputs, ports
from ops.doctor import Check, State
from ops.facts import Facts
from ops.machine import gigabytes, memory

#: A commit waits for the disk: above this median (s), acceptance of a frame is felt in its deadline.
SLOW_SYNC: Final = 0.02
#: Less free disk than this is a warning, less than a quarter of it a failure.
LEAST_DISK: Final = 1 << 30
#: What to do about a model that workers cannot load; their error says what is wrong with it.
_REFUSED: Final = "no worker can start with it: put a whole model there, or do what the error says"
#: SQLite's WAL needs shared memory, which these do not give.
NETWORK_FILESYSTEMS: Final = ("nfs", "nfs4", "cifs", "smb", "smbfs", "smb3", "9p", "fuse.sshfs")


def for_line(line: Line, path: Path) -> list[Check]:
    """What the line file at `path` asks of the machine."""
    folder = path.parent
    recorder = folder / line.recorder.folder
    found = facts.of_line(line, folder)
    return [
        *ports.checks(line),
        *models(line, path, found),
        *sources(line, path),
        *rules(line, found),
        *disk("ledger", (folder / line.ledger.path).parent),
        space("pictures", recorder, line.recorder.disk << 20),
        memory(line.limits.queue_bytes + (line.recorder.memory << 20)),
    ]


def models(line: Line, path: Path, found: Mapping[str, Facts]) -> Iterator[Check]:
    """The model files that `gongwei up` would load; `found`: what workers make of them."""
    for name, model in line.models.items():
        label, told = f"model {name}", found.get(name, Facts())
        if not model.file:
            yield Check(name=label, state="ok", found="no file: its workers are started elsewhere")
        elif problem := inputs.model_problem(model, path):
            advice = f"correct models.{name}.file in the line file, or put the file there"
            yield Check(name=label, state="failed", found=problem, advice=advice)
        elif told.refused:
            yield Check(name=label, state="failed", found=told.refused, advice=_REFUSED)
        elif told.unread:
            yield Check(name=label, state="warning", found=told.unread, advice=f"try it: workers check {model.file}")
        else:
            yield Check(name=label, state="ok", found=f"{model.file}: {told.task}, {len(told.names)} classes")


def sources(line: Line, path: Path) -> Iterator[Check]:
    """Where the cameras that `gongwei up` starts take their pictures; a live one is not asked for any."""
    for name, entry in line.cameras.items():
        if problem := inputs.source_problem(entry, path):
            advice = f"correct cameras.{name}.source in the line file, or put the file there"
            yield Check(name=f"camera {name}", state="failed", found=problem, advice=advice)
        else:
            found = without_password(entry.source) or "no source: it is started elsewhere"
            yield Check(name=f"camera {name}", state="ok", found=found)


def rules(line: Line, found: Mapping[str, Facts]) -> Iterator[Check]:
    """The classes that the stations' rules name, against those that the models know."""
    names = facts.class_names(found)
    unknown = list(classes.unknown(line, names))
    for station, entry in line.stations.items():
        if entry.rules is None:
            continue
        label = f"rules of {station}"
        if not any(model in names for model in classes.seen_by(line, station)):
            yield Check(name=label, state="ok", found="not compared: the classes of its models are not known here")
        elif not any(one.station == station for one in unknown):
            yield Check(name=label, state="ok", found="every class is known to a model of its cameras")
        yield from (rule_check(label, one) for one in unknown if one.station == station)


def rule_check(label: str, one: Unknown) -> Check:
    """A class that no model knows: a failure, unless a model may know it whose classes are not known here."""
    if one.doubtful:
        found = f"{one.text}; whether {' or '.join(one.doubtful)} does is not known here"
        return Check(name=label, state="warning", found=found, advice="compare it with the names of that model")
    advice = "correct it in the line file: what no model knows is never seen"
    return Check(name=label, state="failed", found=one.text, advice=advice)


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
