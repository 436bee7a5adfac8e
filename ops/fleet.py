"""The thin loop around `Supervisor`: its decisions carried out on real processes, and what happens told back to it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Protocol

from ops.process import NOT_STARTED, Process
from ops.supervisor import STOP_ORDER, Do, Spec, Stage, State, Supervisor

#: Seconds between two looks at the processes; a wait on Windows cannot be interrupted by Ctrl-C, so it is short.
TURN: Final = 0.05


class Voice(Protocol):
    """Who is told: lines of the children's logs, and what the supervisor itself has to say. Must not block."""

    def line(self, name: str, text: str) -> None: ...

    def say(self, text: str, *, level: str = "info") -> None: ...


class Fleet:
    """The processes of a line on this machine. All but `interrupt` and `pids` belongs to one thread."""

    def __init__(
        self,
        specs: Iterable[Spec],
        voice: Voice,
        *,
        held: Iterable[Stage] = (),
        first: Iterable[Stage] = STOP_ORDER,
    ) -> None:
        """`held`: stages that wait for `supervisor.release`; `first`: stages that the first `interrupt` ends."""
        self.supervisor = Supervisor(specs, held)
        self._voice = voice
        self._first = tuple(first)
        self._processes: dict[str, Process] = {}
        self._interrupts = 0
        self._heeded = 0

    def interrupt(self, number: int = 0, frame: FrameType | None = None) -> None:
        """A request to end (a signal handler): the first one ends in order, the second one at once."""
        self._interrupts += 1

    @property
    def interrupted(self) -> bool:
        return self._interrupts > 0

    def run(self, each_turn: Callable[[], None] = lambda: None) -> None:
        """Supervise until every process has ended for good. `each_turn` may call `supervisor.stop`."""
        try:
            while not self.supervisor.done:
                self._heed()
                self._turn(time.monotonic())
                each_turn()
                time.sleep(TURN)
        finally:
            self._kill_all()

    def pids(self) -> dict[str, int]:
        """The processes that run now; callable from any thread."""
        return {
            name: process.pid
            for name, process in dict(self._processes).items()
            if process.pid is not None and self.supervisor.children[name].state is State.RUNNING
        }

    def _heed(self) -> None:
        if self._heeded == 0 and self._interrupts:
            alive = {child.spec.stage for child in self.supervisor.children.values() if not child.over}
            names = ", ".join(stage.name.lower() for stage in STOP_ORDER if stage in self._first and stage in alive)
            self._voice.say(f"ending in order: {names} (once more: at once)")
            self.supervisor.stop(self._first)
        elif self._heeded < 2 <= self._interrupts:
            self._voice.say("ending at once", level="warning")
            self.supervisor.hurry()
        self._heeded = self._interrupts

    def _turn(self, now: float) -> None:
        for name, process in list(self._processes.items()):
            if self.supervisor.children[name].state is State.RUNNING and (code := process.poll()) is not None:
                self._reap(name, process, code, now)
        for what, name in self.supervisor.turn(now):
            self._do(what, name, now)

    def _do(self, what: Do, name: str, now: float) -> None:
        if what is Do.START:
            self._start(name, now)
        elif what is Do.ASK:
            self._processes[name].ask()
        elif what is Do.TERMINATE:
            self._voice.say(f"{name} does not end in order: terminated", level="warning")
            self._processes[name].terminate()
        else:
            self._voice.say(f"{name} does not end: killed", level="error")
            self._processes[name].kill()

    def _start(self, name: str, now: float) -> None:
        spec = self.supervisor.children[name].spec
        process = Process(spec.argv, lambda text: self._voice.line(name, text), env=spec.env, output=spec.output)
        try:
            process.start()
        except OSError as error:
            self._voice.say(f"{name} cannot be started: {error}", level="error")
            self._say_restart(name, NOT_STARTED, self.supervisor.exited(name, NOT_STARTED, now))
            return
        self._processes[name] = process
        self.supervisor.started(name, now)

    def _reap(self, name: str, process: Process, code: int, now: float) -> None:
        process.close()
        del self._processes[name]
        asked = self.supervisor.children[name].said is not None
        delay = self.supervisor.exited(name, code, now)
        if not asked or delay is not None:
            self._say_restart(name, code, delay)

    def _say_restart(self, name: str, code: int, delay: float | None) -> None:
        if delay is not None:
            count = self.supervisor.children[name].restarts + 1
            text = f"{name} ended ({describe(code)}): restart {count} in {delay:g} s"
            # Code 0: it was let go in order, by `workers stop` or because another version of its model took over.
            self._voice.say(text, level="info" if code == 0 else "warning")
        elif code == 0:
            self._voice.say(f"{name} is done")
        else:
            self._voice.say(f"{name} ended ({describe(code)}) and is not started again", level="error")

    def _kill_all(self) -> None:
        """Whatever made the loop end, nothing that it started outlives it."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.close()


def describe(code: int) -> str:
    """An exit code in words: the name of the signal on POSIX, hexadecimal for a Windows status."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code:#x}" if code > 0xFFFF else f"exit code {code}"


@contextmanager
def signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`handler` for every way in which an operator ends a program here; what was there before is put back.

    Only the main thread may use it. Windows: Ctrl-C and Ctrl-Break; closing the console window ends the supervisor
    itself, and the children then see the end of their pipe.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)
    else:
        numbers.append(signal.SIGHUP)
    before: dict[signal.Signals, Any] = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
