"""The director: carries out the faults of a schedule on the cast, and puts right what each left behind."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

from ops.chaos.camera import order
from ops.chaos.cast import Cast
from ops.chaos.equipment import Equipment
from ops.chaos.recovery import Struck
from ops.chaos.schedule import Fault, Kind
from ops.chaos.settings import model_of, orders

#: Seconds that an order to hang waits for a call of the model, and one for a poison picture for the one before it.
_TAKEN_WITHIN = 5.0
#: Seconds that a fault waits for its victim to serve; then it strikes whatever there is. On a slow machine processes
#: would else be killed before they have begun, again and again, which proves nothing.
_SERVES_WITHIN = 5.0
#: Seconds between two looks at what a fault waits for.
_GLANCE = 0.005


class Director:
    """`turn` does what is due. `struck` has what was done, `given_up` the kinds of what could not be: nobody took the
    order in time; `on_fault` is told of each."""

    def __init__(
        self,
        cast: Cast,
        folder: Path,
        equipment: Equipment,
        on_fault: Callable[[Fault], None] = lambda fault: None,
    ) -> None:
        self.struck: list[Struck] = []
        self.given_up: Counter[Kind] = Counter()
        self._cast = cast
        self._folder = folder
        self._equipment = equipment
        self._on_fault = on_fault
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = count()
        self._ending: dict[str, Struck] = {}  # orderly restarts that have not come back

    def take(self, faults: Iterable[Fault], start: float) -> None:
        """These are to happen, from the monotonic instant `start` on."""
        for fault in faults:
            self._at(start + fault.at, lambda now, fault=fault: self._await(fault, now + _SERVES_WITHIN, now))  # type: ignore[misc]

    @property
    def idle(self) -> bool:
        """Nothing is to happen any more, and everything is put right."""
        return not (self._due or self._ending)

    def turn(self, now: float) -> None:
        """Do what is due."""
        while self._due and self._due[0][0] <= now:
            _, _, act = heapq.heappop(self._due)
            act(now)

    def came_back(self, names: Iterable[str]) -> None:
        """These processes were started again."""
        for name in names:
            struck = self._ending.pop(name, None)
            if struck is not None:
                self._record(struck.kind, name, struck.at, self._cast.players[name].since, struck.serving)

    def tidy(self, worker: str) -> None:
        """Before a process starts: an order that its predecessor did not take is not meant for it."""
        orders(self._folder, worker).unlink(missing_ok=True)

    # --- acts --------------------------------------------------------------------------------------------------------

    def _at(self, when: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (when, next(self._number), act))

    def _await(self, fault: Fault, until: float, now: float) -> None:
        if (fault.kind.role or fault.jump) and now < until and not self._serving(fault.victim):
            self._at(now + _GLANCE, lambda now: self._await(fault, until, now))
        else:
            self._begin(fault, now)

    def _begin(self, fault: Fault, now: float) -> None:
        self._on_fault(fault)
        match fault.kind.value.partition("-")[2]:
            case "kill":
                self._kill(fault, now)
            case "stop":
                self._stop(fault, now)
            case "restart":
                self._restart(fault, now)
            case "stuck":
                self._stick(fault, now)
            case "full":
                self._fill(fault, now)
            case "jump":
                self._jump(fault, now)
            case _ if fault.kind is Kind.POISON:
                self._poison(fault, now)
            case _:
                self._cut(fault, now)

    def _kill(self, fault: Fault, now: float) -> None:
        serving = self._serving(fault.victim)
        began = time.monotonic()
        self._cast.kill(fault.victim)
        self._ending.pop(fault.victim, None)
        self._record(fault.kind, fault.victim, began, self._cast.players[fault.victim].since, serving)

    def _stop(self, fault: Fault, now: float) -> None:
        player = self._cast.players[fault.victim]
        serving, since = self._serving(fault.victim), player.since
        began = time.monotonic()
        player.stop()

        def end(now: float) -> None:
            if player.since == since:  # no other fault has killed it meanwhile
                if fault.kill:
                    self._ending.pop(fault.victim, None)
                    self._cast.kill(fault.victim)
                else:
                    player.go_on()
            self._record(fault.kind, fault.victim, began, time.monotonic(), serving)

        self._at(now + fault.seconds, end)

    def _restart(self, fault: Fault, now: float) -> None:
        if fault.victim not in self._ending:
            serving = self._serving(fault.victim)
            self._ending[fault.victim] = Struck(
                kind=fault.kind, victim=fault.victim, at=time.monotonic(), back_at=now, serving=serving
            )
            self._cast.players[fault.victim].ask()

    def _stick(self, fault: Fault, now: float) -> None:
        """Order a call of this worker to hang; the fault begins when a call has taken the order. Only a worker that
        serves is given one: in a warm-up it would stretch exec_timeout."""
        path, player = orders(self._folder, fault.victim), self._cast.players[fault.victim]
        until, ordered = now + _TAKEN_WITHIN, 0.0

        def look(now: float) -> None:
            nonlocal ordered
            if player.serving and player.since != ordered:
                ordered = player.since  # its predecessor's order went with it
                _place(path, f"{fault.seconds:g}")
            elif player.since == ordered and not path.exists():
                player.strained = True
                self._record(fault.kind, fault.victim, now, now, True)
                return
            if now < until:
                self._at(now + _GLANCE, look)
            else:
                path.unlink(missing_ok=True)
                self.given_up[fault.kind] += 1

        look(now)

    def _poison(self, fault: Fault, now: float) -> None:
        """The next picture of the camera; after one that was ordered before, if that has not been taken yet."""
        path, until = order(self._folder, fault.victim), now + _TAKEN_WITHIN

        def place(now: float) -> None:
            if not path.exists():
                _place(path, fault.model)
                self._record(fault.kind, fault.victim, now, now, True)
            elif now < until:
                self._at(now + _GLANCE, place)
            else:  # the camera takes no picture: the order before stays, this one is not given
                self.given_up[fault.kind] += 1

        place(now)

    def _fill(self, fault: Fault, now: float) -> None:
        disk = self._equipment.disk
        if disk is not None:
            disk.fill()
            self._later(fault, now, disk.free)

    def _cut(self, fault: Fault, now: float) -> None:
        network = self._equipment.network
        if network is not None:
            network.begin(fault)
            self._later(fault, now, lambda: network.end(fault))

    def _jump(self, fault: Fault, now: float) -> None:
        clocks = self._equipment.clocks
        if clocks is not None:
            clocks.set(fault.victim, fault.jump)
            self._later(fault, now, lambda: clocks.set(fault.victim, 0.0))

    def _later(self, fault: Fault, now: float, put_right: Callable[[], None]) -> None:
        def end(_: float) -> None:
            put_right()
            self._record(fault.kind, fault.victim, now, time.monotonic(), True)

        self._at(now + fault.seconds, end)

    # --- small things ------------------------------------------------------------------------------------------------

    def _serving(self, name: str) -> bool:
        player = self._cast.players[name]
        if player.stopped or player.ending_by is not None:
            return False
        return player.serving if player.role == "worker" else player.spoke

    def _record(self, kind: Kind, victim: str, at: float, back_at: float, serving: bool) -> None:
        model = model_of(victim) if kind.role == "worker" else ""
        self.struck.append(Struck(kind=kind, victim=victim, at=at, back_at=back_at, model=model, serving=serving))


def _place(path: Path, text: str) -> None:
    """Whole or not at all: a reader never sees half of it."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="ascii")
    draft.replace(path)
