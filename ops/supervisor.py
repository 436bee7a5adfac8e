"""The decisions of `gongwei up`: which process to start when, which to stop in what order. Pure: `now` is a parameter.

`Supervisor` is told what happened (`started`, `exited`, `stop`, `hurry`) and says at each `turn` what to do. It starts
nothing itself; `ops.fleet` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path
from typing import Final

#: Seconds to the first restart; each further one waits twice as long, up to `LAST_DELAY`.
FIRST_DELAY: Final = 0.1
LAST_DELAY: Final = 5.0
#: A process that lived this long has recovered: its next restart waits `FIRST_DELAY` again.
RECOVERED: Final = 10.0
#: Seconds from terminate to kill, and from kill to giving up on a process that the system cannot end.
PATIENCE: Final = 2.0
ABANDON: Final = 5.0


class Stage(IntEnum):
    """What a process is. The numbers are the order of starting."""

    JOIN = 0
    BROKER = 1
    RECORDER = 2
    CONSUMER = 3
    WORKER = 4
    CAMERA = 5


#: Cameras first, so that what is in flight settles; the join last, so that every answer is committed and published.
STOP_ORDER: Final = (Stage.CAMERA, Stage.WORKER, Stage.BROKER, Stage.CONSUMER, Stage.RECORDER, Stage.JOIN)


class Restart(Enum):
    """When a process that ended by itself is started again."""

    ALWAYS = "always"
    #: Not after exit code 0: a camera whose source is a file ends when the file does.
    FAILURE = "failure"
    NEVER = "never"


class Do(Enum):
    """What to do with a process."""

    START = "start"
    #: Ask for an orderly end (SIGTERM, CTRL_BREAK).
    ASK = "ask"
    TERMINATE = "terminate"
    KILL = "kill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A process to run: its unique name, its stage, and the command.

    `metrics`: port of its Prometheus endpoint, 0 for none. `grace`: seconds for an orderly end. `output`: file that
    takes its standard output; without one, that goes to the log as its standard error does.
    """

    name: str
    stage: Stage
    argv: tuple[str, ...]
    restart: Restart = Restart.ALWAYS
    metrics: int = 0
    grace: float = 10.0
    output: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)


class State(Enum):
    """`WAITING`: to be started; `STARTING`: START was said; `ENDED`: over for good."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True)
class Child:
    """What the supervisor knows of one process. `code`: exit code of its latest end; instants are monotonic seconds."""

    spec: Spec
    state: State = State.WAITING
    due: float = 0.0
    since: float = 0.0
    delay: float = 0.0
    restarts: int = 0
    code: int | None = None
    said: Do | None = None
    said_at: float = 0.0

    @property
    def over(self) -> bool:
        return self.state is State.ENDED


class Supervisor:
    """Keeps the processes of a line alive with exponential back-off, and ends them stage by stage."""

    def __init__(self, specs: Iterable[Spec], held: Iterable[Stage] = ()) -> None:
        """Stages in `held` are not started before `release`."""
        ordered = sorted(specs, key=lambda spec: spec.stage)
        self.children: dict[str, Child] = {spec.name: Child(spec) for spec in ordered}
        if len(self.children) != len(ordered):
            raise ValueError("two processes have the same name")
        self._stopping: frozenset[Stage] = frozenset()
        self._hurried = False
        self._held = frozenset(held)

    @property
    def done(self) -> bool:
        """Nothing runs and nothing will."""
        return all(child.over for child in self.children.values())

    @property
    def restarts(self) -> int:
        return sum(child.restarts for child in self.children.values())

    def over(self, stage: Stage) -> bool:
        """Every process of `stage` has ended for good."""
        return all(child.over for child in self._of(stage))

    def turn(self, now: float) -> list[tuple[Do, str]]:
        """What to do now: starts that are due, and the next step of an ordered end. Nothing is said twice."""
        return [*self._starts(now), *self._stops(now)]

    def started(self, name: str, now: float) -> None:
        """The process runs. (One that could not be started has `exited`.)"""
        child = self.children[name]
        child.state, child.since = State.RUNNING, now

    def exited(self, name: str, code: int, now: float) -> float | None:
        """The process is gone. Returns the seconds until it starts again, None if it does not."""
        child = self.children[name]
        lived = now - child.since if child.state is State.RUNNING else 0.0
        child.code = code
        if not self._wanted(child, code):
            child.state = State.ENDED
            return None
        child.delay = FIRST_DELAY if lived >= RECOVERED or not child.delay else min(2 * child.delay, LAST_DELAY)
        child.state, child.due = State.WAITING, now + child.delay
        return child.delay

    def release(self) -> None:
        """Start the stages that were held back."""
        self._held = frozenset()

    def stop(self, stages: Iterable[Stage] = STOP_ORDER) -> None:
        """End these stages in order; the others are kept alive meanwhile, for what is in flight needs them."""
        self._stopping |= frozenset(stages)

    def hurry(self) -> None:
        """End everything at once and without grace."""
        self.stop()
        self._hurried = True

    def _of(self, stage: Stage) -> list[Child]:
        return [child for child in self.children.values() if child.spec.stage is stage]

    def _wanted(self, child: Child, code: int) -> bool:
        if child.said is not None or child.spec.stage in self._reached():
            return False
        return child.spec.restart is Restart.ALWAYS or (child.spec.restart is Restart.FAILURE and code != 0)

    def _reached(self) -> list[Stage]:
        """The stages whose turn to end has come: all up to the first that still has a process."""
        reached = []
        for stage in STOP_ORDER:
            if stage in self._stopping:
                reached.append(stage)
                if not self._hurried and not self.over(stage):
                    break
        return reached

    def _starts(self, now: float) -> list[tuple[Do, str]]:
        barred = {*self._reached(), *self._held}
        due = []
        for name, child in self.children.items():
            if child.state is State.WAITING and child.due <= now and child.spec.stage not in barred:
                child.restarts += child.code is not None
                child.state, child.since = State.STARTING, now
                due.append((Do.START, name))
        return due

    def _stops(self, now: float) -> list[tuple[Do, str]]:
        steps = []
        for stage in STOP_ORDER:
            if stage not in self._reached():
                continue
            for child in self._of(stage):
                step = self._step(child, now)
                if step is not None:
                    child.said, child.said_at = step, now
                    steps.append((step, child.spec.name))
        return steps

    def _step(self, child: Child, now: float) -> Do | None:
        """The next step towards the end of one process: ask, terminate, kill, and at last give up on it."""
        if child.state is State.WAITING:
            child.state = State.ENDED
        if child.over:
            return None
        elapsed = now - child.said_at
        if child.said is None:
            return Do.TERMINATE if self._hurried else Do.ASK
        if child.said is Do.ASK:
            return Do.TERMINATE if self._hurried or elapsed >= child.spec.grace else None
        if child.said is Do.TERMINATE:
            return Do.KILL if elapsed >= PATIENCE else None
        if elapsed >= ABANDON:
            child.state = State.ENDED
        return None
