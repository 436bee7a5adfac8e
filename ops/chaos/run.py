"""A chaos run from its first process to its verdict."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from broker.ledger import LedgerError
from broker.line import to_toml
from ops.chaos import purged, rows
from ops.chaos.camera import diaries
from ops.chaos.cast import Cast, Player
from ops.chaos.diary import Received, Settled, last, read
from ops.chaos.director import Director
from ops.chaos.equipment import Equipment, equipped
from ops.chaos.heard import Heard
from ops.chaos.reconcile import reconcile
from ops.chaos.recovery import by_kind, times
from ops.chaos.report import Report
from ops.chaos.schedule import SPACING, SPACING_OF_OTHERS, Fault, Kind
from ops.chaos.settings import (
    CONSUMER,
    ChaosError,
    Settings,
    commands,
    diary,
    is_far,
    make_chaos_line,
)
from ops.chaos.told import Told
from workers.engine.fake import EXIT_CODE

TURN: Final = 0.005
#: Seconds for a whole line to come up, for what is unfinished at the end, and between two looks at that.
_UP: Final = 60.0
_DONE: Final = 30.0
_LOOK: Final = 0.2
#: Exit code of a worker that its watchdog ended, or whose control thread found a model thread gone.
_WATCHDOG: Final = 1


class Run:
    """One run in `folder`. `on_fault` is told of each fault."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        on_fault: Callable[[Fault], None] = lambda fault: None,
    ) -> None:
        self.settings = settings
        self.folder = folder.resolve()
        self.skipped: dict[Kind, str] = {}
        self._on_fault = on_fault
        self._unfinished: list[str] = []
        self._start = 0.0
        self._stack = contextlib.ExitStack()
        self._cast: Cast
        self._director: Director
        self._ledger: Path

    def run(self) -> Report:
        """Raises ChaosError when the line does not come up."""
        began = time.monotonic()
        with self._stack:
            self._open()
            faults = self.settings.schedule(self.skipped)
            self._wait_up()
            self._start = time.monotonic()
            if self.settings.each is None:
                self._strike(faults)
            else:
                self._strike_alone(faults, self.settings.each)
            self._finish()
            return self._report(time.monotonic() - began)

    # --- the line ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        equipment = self._stack.enter_context(equipped(self.settings.wanted({}), self.folder, self.settings.seed))
        self.skipped = equipment.skipped
        place = "disk/ledger.sqlite" if equipment.disk is not None else "ledger.sqlite"
        host = equipment.network.here if equipment.network is not None else "127.0.0.1"
        line = make_chaos_line(self.settings, self.folder, host, place)
        self._ledger = self.folder / place
        file = self.folder / "line.toml"
        file.write_text(to_toml(line), encoding="utf-8")
        if equipment.disk is not None:
            self._stack.callback(self._save_ledger)
        self._cast = self._stack.enter_context(Cast(self.folder, _explain))
        self._director = Director(self._cast, self.folder, equipment, self._on_fault)
        self._cast.before_start(self._director.tidy)
        for name, (role, argv) in commands(self.settings, self.folder, file, line).items():
            self._add(name, role, argv, equipment)

    def _add(self, name: str, role: str, argv: tuple[str, ...], equipment: Equipment) -> None:
        if equipment.network is not None and is_far(self.settings, name):
            argv = equipment.network.wrap(argv)
        self._cast.add(name, role, argv, equipment.clocks.environment(name) if equipment.clocks is not None else {})

    def _save_ledger(self) -> None:
        """All processes have ended, and the small disk is about to go."""
        for file in self._ledger.parent.glob(f"{self._ledger.name}*"):
            shutil.copy2(file, self.folder)

    # --- time --------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        now = time.monotonic()
        self._director.turn(now)
        self._director.came_back(self._cast.turn(now))
        time.sleep(TURN)

    def _strike(self, faults: list[Fault]) -> None:
        """The whole schedule, one fault upon another."""
        self._director.take(faults, self._start)
        end = self._start + self.settings.seconds
        while not self._director.idle or time.monotonic() < end:
            if time.monotonic() > end + _UP:
                raise ChaosError(f"{_UP:g} s after its time a fault could not strike yet: the line stands still")
            self._turn()

    def _strike_alone(self, faults: list[Fault], kind: Kind) -> None:
        """One fault after another: each when the line has been well for a while since its start, or the one before."""
        spacing = SPACING.get(kind, SPACING_OF_OTHERS)
        self._rest(spacing, _UP)
        for fault in faults:
            self._director.take([msgspec.structs.replace(fault, at=0.0)], time.monotonic())
            self._rest(spacing, _UP + fault.seconds)

    def _rest(self, seconds: float, most: float) -> None:
        """Until nothing has been amiss for `seconds`; not for longer than `most`."""
        began = well_since = time.monotonic()
        while (now := time.monotonic()) - well_since < seconds and now - began < most:
            self._turn()
            if not (self._director.idle and self._cast.is_well()):
                well_since = now

    def _wait_up(self) -> None:
        """Every worker serves, and every camera has a settled frame."""
        if not self._wait(self._is_up, _UP):
            raise ChaosError(f"the line did not come up within {_UP:g} s; run it with --keep FOLDER to see its logs")

    def _is_up(self) -> bool:
        workers = [player for player in self._cast.players.values() if player.role == "worker"]
        if not all(worker.serving for worker in workers):
            return False
        settled = [any(isinstance(entry, Settled) for entry in read(path)) for path in diaries(self.folder)]
        return len(settled) >= self.settings.cameras and all(settled)

    def _finish(self) -> None:
        """Let all settle: cameras end in order, the join closes what is open, the consumer catches up."""
        for name in self.settings.camera_names:
            self._cast.end(name, self.settings.deadline + 20.0)
        self._expect("cameras ended", lambda: not self._cast.running("camera"), self.settings.deadline + 25.0)
        self._expect("all frames joined and all boots closed", self._is_joined, self.settings.deadline + _DONE)
        self._expect("the consumer has everything", self._is_received, _DONE)
        for role in (CONSUMER, "worker", "broker", "join"):
            for name in self._cast.running(role):
                self._cast.end(name)
            self._expect(f"{role} ended", lambda role=role: not self._cast.running(role), _DONE)  # type: ignore[misc]

    def _is_joined(self) -> bool:
        return rows.unfinished(self._ledger)[:2] == (0, 0)

    def _is_received(self) -> bool:
        entry = last(diary(self.folder))
        seq = entry.seq if isinstance(entry, Received) else 0
        return seq == rows.unfinished(self._ledger)[2]

    def _expect(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        if not self._wait(done, seconds):
            self._unfinished.append(f"not within {seconds:g} s: {what}")

    def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        end, look = time.monotonic() + seconds, 0.0
        while (now := time.monotonic()) < end:
            self._turn()
            if now >= look:
                look = now + _LOOK
                with contextlib.suppress(LedgerError):  # it is busy: look again
                    if done():
                        return True
        return False

    # --- the verdict -------------------------------------------------------------------------------------------------

    def _report(self, seconds: float) -> Report:
        told = [Told.of(read(path)) for path in diaries(self.folder)]
        heard = Heard.of(read(diary(self.folder)))
        found = purged.completed(rows.read(self._ledger), heard.outcomes, heard.answers)
        struck = self._director.struck
        far = [name for name in self.settings.camera_names if is_far(self.settings, name)]
        return Report(
            settings=msgspec.to_builtins(self.settings),
            seconds=round(seconds, 1),
            faults=by_kind(struck),
            serving=by_kind(one for one in struck if one.serving),
            given_up={kind.value: count for kind, count in sorted(self._director.given_up.items())},
            exits=dict(sorted(self._cast.exits.items())),
            crashes=self._cast.crashes,
            skipped={kind.value: reason for kind, reason in self.skipped.items()},
            unfinished=self._unfinished,
            verdict=reconcile(told, found, heard, self.settings.deadline),
            times=times(told, found, heard, struck, since=self._start, service=self.settings.delay, far=far),
            struck=struck,
        )


def _explain(player: Player, code: int) -> str:
    """The fault that ended a process, which nobody killed: a poison picture, or its own watchdog after a hang."""
    if player.role == "worker" and code == EXIT_CODE:
        return "poison"
    ended = code == _WATCHDOG or (player.dumping and code == -signal.SIGSEGV)
    return "watchdog" if player.role == "worker" and player.strained and ended else ""
