"""What goes wrong when: from a seed to timed faults. Pure, so that a seed that fails can be replayed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal

import msgspec
from msgspec import Struct

from ops.chaos.pictures import MODELS


class Kind(StrEnum):
    """A kind of fault, as the command line names it."""

    #: SIGKILL; started again at once.
    WORKER_KILL = "worker-kill"
    BROKER_KILL = "broker-kill"
    JOIN_KILL = "join-kill"
    CAMERA_KILL = "camera-kill"
    CONSUMER_KILL = "consumer-kill"
    #: SIGSTOP for longer than the limit of beats; then SIGCONT, or SIGKILL and a start.
    WORKER_STOP = "worker-stop"
    BROKER_STOP = "broker-stop"
    JOIN_STOP = "join-stop"
    CAMERA_STOP = "camera-stop"
    CONSUMER_STOP = "consumer-stop"
    #: An orderly end and a start.
    WORKER_RESTART = "worker-restart"
    BROKER_RESTART = "broker-restart"
    JOIN_RESTART = "join-restart"
    CAMERA_RESTART = "camera-restart"
    CONSUMER_RESTART = "consumer-restart"
    #: One call of a model hangs for longer than exec_timeout.
    WORKER_STUCK = "worker-stuck"
    #: A picture that kills every worker process of one model that takes it.
    POISON = "poison"
    #: No byte is left under the ledger.
    DISK_FULL = "disk-full"
    #: Between two hosts: nothing goes through; in one direction nothing does; everything is late; some packets are
    #: lost; the link is slower than what is to go through.
    NET_CUT = "net-cut"
    NET_HALF = "net-half"
    NET_DELAY = "net-delay"
    NET_LOSS = "net-loss"
    NET_SLOW = "net-slow"
    #: The wall clock of one process jumps, and jumps back.
    CLOCK_JUMP = "clock-jump"

    @property
    def role(self) -> str:
        """The kind of process that it strikes; empty for what strikes none."""
        role, _, what = self.value.partition("-")
        return role if what in ("kill", "stop", "restart", "stuck") else ""


#: Faults in a minute, where the command line does not say how many.
RATES: Final[Mapping[Kind, float]] = {
    Kind.WORKER_KILL: 30,
    Kind.BROKER_KILL: 4,
    Kind.JOIN_KILL: 4,
    Kind.CAMERA_KILL: 4,
    Kind.CONSUMER_KILL: 4,
    Kind.WORKER_STOP: 5,
    Kind.BROKER_STOP: 1,
    Kind.JOIN_STOP: 1,
    Kind.CAMERA_STOP: 1,
    Kind.CONSUMER_STOP: 1,
    Kind.WORKER_RESTART: 2,
    Kind.BROKER_RESTART: 1,
    Kind.JOIN_RESTART: 1,
    Kind.CAMERA_RESTART: 1,
    Kind.CONSUMER_RESTART: 1,
    Kind.WORKER_STUCK: 4,
    Kind.POISON: 4,
    Kind.DISK_FULL: 1,
    Kind.NET_CUT: 2,
    Kind.NET_HALF: 1,
    Kind.NET_DELAY: 1,
    Kind.NET_LOSS: 1,
    Kind.NET_SLOW: 1,
    Kind.CLOCK_JUMP: 4,
}
#: Seconds that a fault lasts, least and most; what is not here is over at once. A worker is missed after 0.35 s, a call
#: is stuck after 0.5 s, and 1 s later its process ends itself.
LASTS: Final[Mapping[Kind, tuple[float, float]]] = {
    Kind.WORKER_STOP: (0.5, 2.0),
    Kind.BROKER_STOP: (0.5, 1.5),
    Kind.JOIN_STOP: (0.5, 1.5),
    Kind.CAMERA_STOP: (0.5, 1.5),
    Kind.CONSUMER_STOP: (0.5, 1.5),
    Kind.WORKER_STUCK: (0.8, 3.0),
    Kind.DISK_FULL: (0.5, 1.5),
    Kind.NET_CUT: (0.5, 2.0),
    Kind.NET_HALF: (0.5, 2.0),
    Kind.NET_DELAY: (1.0, 3.0),
    Kind.NET_LOSS: (1.0, 3.0),
    Kind.NET_SLOW: (1.0, 3.0),
    Kind.CLOCK_JUMP: (1.0, 3.0),
}
#: What is done to the cable between two hosts.
NET: Final = tuple(kind for kind in Kind if kind.value.startswith("net-"))
#: Seconds by which a wall clock jumps.
JUMPS: Final = (3600.0, -3600.0, 5.0, -5.0)
#: Of the processes that were stopped, the share that is killed instead of continued.
KILLED: Final = 0.3
#: Seconds from the end of one fault to the next where a kind is measured by itself: everything is well by then.
SPACING: Final[Mapping[Kind, float]] = {
    Kind.WORKER_KILL: 1.5,
    Kind.WORKER_STOP: 2.0,
    Kind.WORKER_STUCK: 2.0,
    **dict.fromkeys(NET, 6.0),  # connections that gave up are tried again every second
}
SPACING_OF_OTHERS: Final = 3.0


class Victims(Struct, frozen=True, kw_only=True):
    """Who can be struck: names of processes by role."""

    cameras: tuple[str, ...]
    workers: tuple[str, ...]
    consumers: tuple[str, ...] = ("consumer",)

    @property
    def roles(self) -> tuple[str, ...]:
        return ("broker", "join", "camera", "worker", "consumer")

    def of(self, role: str) -> tuple[str, ...]:
        """Names of the processes of a role."""
        match role:
            case "camera":
                return self.cameras
            case "worker":
                return self.workers
            case "consumer":
                return self.consumers
            case _:
                return (role,)


class Fault(Struct, frozen=True, kw_only=True):
    """One fault, `at` seconds after the start, for `seconds`. `victim`: a process, the camera that sends a poison
    picture, or empty; `model`: the one that it kills; `kill`: what was stopped is killed at the end; `towards`: the
    direction that is silent; `jump`: seconds by which a wall clock is set forward."""

    at: float
    kind: Kind
    victim: str = ""
    seconds: float = 0.0
    model: str = ""
    kill: bool = False
    towards: Literal["", "near", "far"] = ""
    jump: float = 0.0


def counts(kinds: Mapping[Kind, int | None], seconds: float) -> dict[Kind, int]:
    """How often each kind strikes in a run of `seconds`; None: as often as `RATES` says, once at least."""
    return {
        kind: max(1, round(RATES[kind] * seconds / 60)) if count is None else count for kind, count in kinds.items()
    }


def mixed(seed: int, seconds: float, wanted: Mapping[Kind, int], victims: Victims) -> list[Fault]:
    """`wanted` faults of each kind, in order of time. Those of a kind are spread over the run: one in each of as many
    equal spans, anywhere in it."""
    faults = []
    for kind in sorted(wanted):
        rng = random.Random(f"{seed}/{kind}")  # of its own: to leave a kind out changes nothing about the others
        for number in range(wanted[kind]):
            at = (number + rng.random()) * seconds / wanted[kind]
            faults.append(_fault(rng, kind, at, victims))
    return sorted(faults, key=lambda fault: (fault.at, fault.kind))


def alone(seed: int, kind: Kind, times: int, victims: Victims, lasts: float | None = None) -> list[Fault]:
    """`times` faults of one kind, so far apart that none disturbs another where starts are quick; a run waits besides
    until the line is well again. Each lasts `lasts` seconds; None: as long as `LASTS` says."""
    rng = random.Random(f"{seed}/{kind}")
    faults: list[Fault] = []
    at = 0.0
    for _ in range(times):
        fault = _fault(rng, kind, at + 0.2 * rng.random(), victims, kill=False)
        faults.append(fault if lasts is None else msgspec.structs.replace(fault, seconds=lasts))
        at = faults[-1].at + faults[-1].seconds + SPACING.get(kind, SPACING_OF_OTHERS)
    return faults


def _fault(rng: random.Random, kind: Kind, at: float, victims: Victims, kill: bool | None = None) -> Fault:
    seconds = rng.uniform(*LASTS[kind]) if kind in LASTS else 0.0
    victim = rng.choice(_candidates(rng, kind, victims))
    killed = kind.value.endswith("-stop") and rng.random() < KILLED
    return Fault(
        at=round(at, 3),
        kind=kind,
        victim=victim,
        seconds=round(seconds, 3),
        model=rng.choice(_models()) if kind is Kind.POISON else "",
        kill=killed if kill is None else kill,
        towards=rng.choice(("near", "far")) if kind is Kind.NET_HALF else "",
        jump=rng.choice(JUMPS) if kind is Kind.CLOCK_JUMP else 0.0,
    )


def _candidates(rng: random.Random, kind: Kind, victims: Victims) -> Sequence[str]:
    """Who can be the victim: of a clock, a process of a role that is drawn first, or most would be workers."""
    if kind is Kind.CLOCK_JUMP:
        return victims.of(rng.choice(victims.roles))
    return victims.cameras if kind is Kind.POISON else victims.of(kind.role) if kind.role else ("",)


def _models() -> Sequence[str]:
    return tuple(MODELS)
