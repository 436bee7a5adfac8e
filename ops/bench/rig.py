"""A real line for a benchmark: its line file in a folder of its own, and the commands that run its processes."""

from __future__ import annotations

import random
import socket
import sys
from pathlib import Path

import msgspec

from broker import keys
from broker.curve import Credentials
from broker.line import (
    CameraEntry,
    Endpoints,
    KeyEntry,
    Ledger,
    Limits,
    Line,
    Model,
    Recorder,
    Role,
    Route,
    Security,
    Station,
    to_toml,
)
from ops.bench.crew import BenchError, Crew

#: Data sockets that a line of a benchmark may open.
SESSION_PORTS = 16
#: The keys of a line with CURVE: one for all cameras, which share a process.
KEYS: tuple[Role, ...] = ("broker", "join", "recorder", "worker", "camera")
#: The ledger's file in a line's folder.
LEDGER = "ledger.sqlite"


def make_line(
    folder: Path,
    transport: str,
    *,
    cameras: list[str],
    models: list[str],
    window: int,
    deadline: float,
    rate: float = 0.0,
) -> Line:
    """A line in which every camera's frames go to all `models`; all its files lie in `folder`."""
    return Line(
        name="bench",
        stations={"bench": Station()},
        cameras={name: CameraEntry(station="bench", deadline=deadline, rate=rate) for name in cameras},
        models={name: Model() for name in models},
        routes={name: Route(models=models) for name in cameras},
        endpoints=make_endpoints(folder, transport),
        limits=Limits(window=window, queue_bytes=2 << 30),
        ledger=Ledger(path=LEDGER),
        recorder=Recorder(folder="pictures"),
    )


def secured(folder: Path, line: Line) -> Line:
    """The line with [security], and its keys in `folder`."""
    listed: dict[str, KeyEntry] = {
        role: KeyEntry(
            role=role,
            public=keys.create(folder / "keys", role).public,
            cameras=list(line.cameras) if role == "camera" else [],
        )
        for role in KEYS
    }
    return msgspec.structs.replace(line, security=Security(keys=listed))


def credentials(folder: Path, line: Line, role: Role) -> Credentials | None:
    """What a process of that role needs for the broker; None: the line has no keys."""
    if line.security is None:
        return None
    own = keys.read(folder / "keys" / f"{role}{keys.SECRET}")
    return Credentials(own, line.security.keys["broker"].public)


def make_endpoints(folder: Path, transport: str) -> Endpoints:
    """Endpoints nobody uses: names in `folder` for ipc, free ports of the loopback interface for tcp; no metrics."""
    names = ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control")
    if transport == "ipc":
        base = 1
        addresses = {name: f"ipc://{folder / name}" for name in names}
    else:
        base = free_ports(len(names) + SESSION_PORTS)
        addresses = {name: f"tcp://127.0.0.1:{base + number}" for number, name in enumerate(names)}
    sessions = (base + len(names), base + len(names) + SESSION_PORTS - 1)
    return msgspec.convert({**addresses, "sessions": sessions, "metrics": 0}, Endpoints)


def free_ports(count: int) -> int:
    """The first of `count` consecutive tcp ports of the loopback interface that nobody uses now.

    They are sought below the range from which systems give out ports by themselves, so that they stay free.
    """
    for _ in range(100):
        base = random.randrange(20000, 31000)
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise BenchError(f"no {count} consecutive free tcp ports found between 20000 and 31000")


def start_line(crew: Crew, folder: Path, line: Line, *, recorder: bool = False, profile: Path | None = None) -> Path:
    """Write the line file and start broker and join (and recorder); returns the file. `profile`: run the broker
    under cProfile and leave its statistics there."""
    file = folder / "line.toml"
    file.write_text(to_toml(line), encoding="utf-8")
    profiler = ["-m", "cProfile", "-o", str(profile)] if profile else []
    crew.start("broker", [sys.executable, *profiler, "-m", "broker", "start", "--line", str(file)])
    for name in ("join", "recorder")[: 1 + recorder]:
        crew.start(name, [sys.executable, "-m", "broker", name, "--line", str(file)])
    return file


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
