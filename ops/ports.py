"""The addresses that a line binds on this machine, tcp ports and ipc sockets: free, or whose.

`gongwei up` looks before it starts anything, `gongwei doctor --line` tells. A second line on the same addresses would
read the metrics of the first one, and its processes would end and start again for ever.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from broker.doors import ipc_in_use
from broker.line import Line
from ops import plan
from ops.doctor import Check

#: Keys of the line file's `endpoints` that a process of the line binds.
BOUND: Final = ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control")
#: Those of them that the broker binds: where all are taken, it is not by chance.
BROKERS: Final = ("frontend", "backend", "egress", "control")
_TAKEN: Final = "is this line running already? If not, end that program, or give the line file other endpoints"

_RUNS: Final = "end it first, or give this line file other endpoints; if it is the line you mean, it is up"


def checks(line: Line) -> list[Check]:
    """What is in the way of the line's addresses, those of its sessions too; or one check that nothing is."""
    bound, sessions = _bound(line), list(session_checks(line))
    return (
        running([*bound, *sessions], line)
        or [*bound, *alike(sessions)]
        or [Check(name="ports", state="ok", found="the endpoints, metrics and session ports of the line are free")]
    )


def unusable(line: Line) -> list[Check]:
    """Endpoints and metrics ports that `gongwei up` cannot bind here. Without one of them, the line does not run."""
    bound = _bound(line)
    return running(bound, line) or bound


def running(found: list[Check], line: Line) -> list[Check]:
    """The one check that says it all, where a line runs here already: all addresses of its broker are taken."""
    taken = [check for check in found if check.advice == _TAKEN]
    wanted = {name for name in BROKERS if not getattr(line.endpoints, name).startswith("inproc:")}
    if not wanted or not wanted <= {check.name.split()[0] for check in taken}:
        return []
    owners = dict.fromkeys(check.found.removeprefix("taken by ") for check in taken)
    found_here = f"a line runs here already: {_places(taken)}, taken by {', '.join(owners)}"
    return [Check(name="ports", state="failed", found=found_here, advice=_RUNS)]


def alike(found: list[Check]) -> list[Check]:
    """Session ports of which the same is to be said, as one check."""
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in found:
        groups.setdefault((check.found, check.advice), []).append(check)
    return [
        group[0] if len(group) == 1 else Check(name=f"session {_places(group)}", state="failed", found=why, advice=what)
        for (why, what), group in groups.items()
    ]


def _places(checks: list[Check]) -> str:
    """Where these checks looked: `ports 7001-7004, 7010, ipc:///run/live`."""
    paths = [check.name[check.name.index("ipc://") :] for check in checks if "ipc://" in check.name]
    numbers = sorted({int(check.name.rpartition(" ")[2]) for check in checks if "ipc://" not in check.name})
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return ", ".join([f"ports {', '.join(texts)}"] * bool(texts) + paths)


def _bound(line: Line) -> list[Check]:
    """What is in the way of the endpoints and metrics ports, each by itself."""
    found = [endpoint_check(name, getattr(line.endpoints, name)) for name in BOUND]
    for spec in plan.specs(line, Path()):
        if spec.metrics:
            found.append(port_check(f"metrics ({spec.name})", "127.0.0.1", spec.metrics))
    return [check for check in found if check is not None]


def refusal(found: list[Check], path: Path) -> str:
    """Why the line file at `path` is not started, a line for each address, and what to do."""
    lines = [f"{path}: {check.name}: {check.found}" for check in found]
    return "\n".join([*lines, *(f"nothing was started: {advice}" for advice in {one.advice: None for one in found})])


def session_checks(line: Line) -> Iterator[Check]:
    """Ports of the sessions' data sockets that cannot be bound here; the broker passes over those."""
    if line.endpoints.backend.startswith("tcp://"):
        host, _ = _host_and_port(line.endpoints.backend)
        low, high = line.endpoints.sessions
        for port in range(low, high + 1):
            check = port_check("session", host, port)
            if check is not None:
                yield check


def endpoint_check(name: str, endpoint: str) -> Check | None:
    """None: `endpoint` (tcp or ipc) can be bound; what lies within one process (inproc) always can."""
    if endpoint.startswith("ipc://"):
        return ipc_check(name, endpoint.removeprefix("ipc://"))
    if endpoint.startswith("tcp://"):
        host, port = _host_and_port(endpoint)
        return port_check(name, host, port)
    return None


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
            return Check(name=label, state="failed", found=f"taken by {port_owner(port)}", advice=_TAKEN)
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


def ipc_check(name: str, path: str) -> Check | None:
    """None: an ipc socket can be bound at `path` (`@name`: without a file). A file that nobody listens on is no harm:
    libzmq replaces it, but it would replace one that is in use without a word, too."""
    label = f"{name} ipc://{path}"
    if not path.startswith("@") and not Path(path).parent.is_dir():
        advice = "make that folder, or give the line file another path"
        return Check(name=label, state="failed", found=f"there is no folder {Path(path).parent}", advice=advice)
    if ipc_in_use(f"ipc://{path}"):
        return Check(name=label, state="failed", found="taken by a program that listens there", advice=_TAKEN)
    return None


def _host_and_port(endpoint: str) -> tuple[str, int]:
    """Of `tcp://HOST:PORT`, whose form the line file's checks have made sure of."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)
