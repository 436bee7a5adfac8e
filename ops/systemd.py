"""A line as systemd units: one service for each process of `ops.plan`, with a limit of memory, and a target for all.

Pure. Formats: systemd.unit(5), systemd.service(5), systemd.resource-control(5); quoting: systemd.syntax(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from broker.line import Line
from ops.supervisor import Restart, Spec, Stage

#: Bytes that a process may take beyond what the line file lets it hold.
BESIDE: Final = 512 << 20
#: Bytes of a join: what it keeps is bounded by counts (docs/limits.md), not by bytes.
JOIN: Final = 1 << 30
#: Seconds from the end of a process to its next start: at first, and at most where systemd (254 and later) can wait
#: longer from time to time. A line file that cannot be used would else keep a core busy with starts.
AGAIN: Final = 0.2
AGAIN_AT_MOST: Final = 5
AGAIN_STEPS: Final = 6
#: Seconds beyond its grace until a process that was asked to end is killed.
PATIENCE: Final = 5.0
#: Seconds in which a loop must have gone round once; else the process is ended and started again. Far more than a turn
#: may take: the broker reads a line file in 1 s at most; the join's commit and the recorder's pictures wait for a disk;
#: a worker and a camera beat ten and three times a second, and a model thread that hangs is its own watchdog's affair.
WATCHDOG: Final = {Stage.BROKER: 10, Stage.JOIN: 60, Stage.RECORDER: 30, Stage.WORKER: 30, Stage.CAMERA: 30}
#: Seconds in which a process must serve; systemd's 90 where none are named. A join that takes over a ledger of an older
#: schema is never broken off: it would begin anew. A recorder looks through its folder. A worker asks for so many more
#: at each model (LOADING, workers/worker.py).
START: Final = {Stage.JOIN: "infinity", Stage.RECORDER: "600", Stage.WORKER: "600"}
#: Sockets and files of one process: the last bound of connections.
FILES: Final = 65_536
#: What a process is started after, and so ends before.
_AFTER: Final = {
    Stage.JOIN: (),
    Stage.BROKER: (Stage.JOIN,),
    Stage.RECORDER: (Stage.BROKER,),
    Stage.WORKER: (Stage.BROKER,),
    Stage.CAMERA: (Stage.BROKER, Stage.RECORDER, Stage.WORKER),
}


def units(line: Line, path: Path, specs: Iterable[Spec], *, user: str = "") -> dict[str, str]:
    """File name -> text of all units of the line file at `path` (absolute). `user`: who runs them; "": root.

    They are named after the line, or after its file; "" where neither gives a name (see `name_of`).
    """
    line = replace(line, name=name_of(line, path))
    planned = list(specs)
    services = {_name(line, spec): _service(line, path, spec, planned, user) for spec in planned}
    return {_target(line): _target_text(line, path, services), **services}


def name_of(line: Line, path: Path) -> str:
    """The line's name, or one made of its file's stem; "" where none can be."""
    return line.name or re.sub(r"[^a-z0-9_.-]+", "-", path.stem.lower()).strip("_.-")[:64]


def foreign(text: str, path: Path) -> str:
    """The line file that the unit `text` was made from, where that is another than `path`; "": it may be replaced.

    A service of before there was a SourcePath names its line file in its command; a target of then names none.
    """
    said = re.search(r"^SourcePath=(.*)$", text, re.MULTILINE)
    if said is not None:
        return "" if said[1] == _source(path) else said[1].replace("%%", "%")
    ours = "ExecStart=" not in text or _word(str(path).replace("$", "$$")) in text
    return "" if ours else "another line file"


def memory(line: Line, stage: Stage) -> int | None:
    """Bytes that a process may take before it is ended and started again; None: what the model and its engine need is
    not ours to say, and nobody but the broker reaches it."""
    match stage:
        case Stage.BROKER:
            return line.limits.queue_bytes + 2 * line.limits.max_frame * len(line.cameras) + BESIDE
        case Stage.RECORDER:
            return (line.recorder.memory << 20) + BESIDE
        case Stage.JOIN:
            return JOIN
        case _:
            return None


def _target(line: Line) -> str:
    return f"gongwei-{line.name}.target"


def _name(line: Line, spec: Spec) -> str:
    return f"gongwei-{line.name}-{spec.name.replace('/', '-')}.service"


def _target_text(line: Line, path: Path, services: Iterable[str]) -> str:
    return _text(
        {
            "Unit": [
                ("Description", f"Gongwei line {line.name}"),
                ("SourcePath", _source(path)),
                *(("Wants", name) for name in services),
            ],
            "Install": [("WantedBy", "multi-user.target")],
        }
    )


def _service(line: Line, path: Path, spec: Spec, planned: Iterable[Spec], user: str) -> str:
    after = [_name(line, other) for other in planned if other.stage in _AFTER[spec.stage]]
    most = memory(line, spec.stage)
    return _text(
        {
            "Unit": [
                ("Description", f"Gongwei line {line.name}: {spec.name}"),
                ("SourcePath", _source(path)),
                ("PartOf", _target(line)),
                # Retention goes by the wall clock; without a battery it is right only when the network has set it.
                ("Wants", "time-sync.target"),
                ("After", " ".join(["network.target", "time-sync.target", *after])),
                ("StartLimitIntervalSec", "0"),  # a line is never given up on
            ],
            "Service": [
                ("Type", "notify"),
                ("NotifyAccess", "main"),
                ("WatchdogSec", str(WATCHDOG[spec.stage])),
                *([("TimeoutStartSec", START[spec.stage])] if spec.stage in START else []),
                ("ExecStart", " ".join(_word(word.replace("$", "$$")) for word in spec.argv)),
                ("WorkingDirectory", str(path.parent).replace("%", "%%")),
                *(("Environment", _word(f"{key}={value}")) for key, value in spec.env.items()),
                ("Environment", "PYTHONFAULTHANDLER=1"),  # what the watchdog ends says first where it was
                *([("User", user)] if user else []),
                ("Restart", "always" if spec.restart is Restart.ALWAYS else "on-failure"),
                ("RestartSec", f"{AGAIN:g}"),
                ("RestartSteps", str(AGAIN_STEPS)),
                ("RestartMaxDelaySec", str(AGAIN_AT_MOST)),
                ("TimeoutStopSec", f"{spec.grace + PATIENCE:g}"),
                # Without swap: a broker that is flooded ends before the machine swaps itself to death.
                *([("MemoryMax", str(most)), ("MemorySwapMax", "0")] if most is not None else []),
                ("LimitCORE", "0"),  # a core dump of gigabytes keeps a dead worker's connections open meanwhile
                ("LimitNOFILE", str(FILES)),
                ("NoNewPrivileges", "yes"),
                ("ProtectSystem", "full"),
                ("ReadWritePaths", _word(str(path.parent))),  # ledger and pictures, also of a line file in /etc
            ],
            "Install": [("WantedBy", _target(line))],
        }
    )


def _source(path: Path) -> str:
    return str(path).replace("%", "%%")


def _text(sections: dict[str, list[tuple[str, str]]]) -> str:
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key}={value}\n" for key, value in entries)
        for section, entries in sections.items()
    )


def _word(word: str) -> str:
    """A word of a setting: `%` stands for itself, and what separates words does not."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if not escaped or any(character in escaped for character in " \t'\"\\;") else escaped
