"""`gongwei bench overload`: cameras that offer three times what the workers can do, on a real line: who gets how much,
how fresh, how late, and what the broker holds meanwhile."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np
import zmq
from msgspec import Struct, field

from broker import report as ledger_report
from broker.line import Line
from broker.wire import Policy
from ops.bench.board import Board, Slot
from ops.bench.camera import Cameras
from ops.bench.child import command
from ops.bench.crew import Crew, open_crew, wait_until
from ops.bench.rig import LEDGER, make_line, start_line
from ops.bench.session import LeanWorker

#: Jobs that the worker takes ahead: one being looked at, one prepared.
AHEAD: Final = 2
#: A greedy camera offers so many times what the others do.
GREED: Final = 10
#: Fairness (Jain's index) that is to be reached, and what the broker may hold beyond payloads, in bytes.
FAIR: Final = 0.95
BEYOND: Final = 60_000_000
#: Seconds for the way of an answer: worker, broker, join and their turns.
WAY: Final = 0.02
#: Accepted frames that are to be complete.
KEPT: Final = 0.99

_START_SECONDS: Final = 20.0
_MODEL: Final = "model-0"

Kind = Literal["equal", "mixed", "greedy"]


class Overload(Struct, frozen=True, kw_only=True):
    """`cameras` cameras that together offer `times` what one worker does at `service` seconds a frame.

    `kind`: all alike; pictures of three sizes; or one that offers ten times what the others do. `side`: pixels.
    """

    policy: Policy
    cameras: int
    kind: Kind = "equal"
    times: float = 3.0
    service: float = 0.02
    deadline: float = 1.0
    seconds: float = 10.0
    side: int = 548
    transport: str = "tcp"
    folder: str | None = None

    def names(self) -> list[str]:
        return [f"camera-{number}" for number in range(self.cameras)]

    def rates(self) -> list[float]:
        """Frames/s of each camera; what a greedy one offers comes on top."""
        share = self.times / self.service / self.cameras
        return [share * (GREED if self.kind == "greedy" and not number else 1) for number in range(self.cameras)]

    def shapes(self) -> list[list[int]]:
        """Mixed: a third of the bytes, as many, three times as many, in turn."""
        factors = (1 / 3, 1.0, 3.0) if self.kind == "mixed" else (1.0,)
        sides = [round(self.side * factor**0.5) for factor in factors]
        return [[sides[number % len(sides)]] * 2 for number in range(self.cameras)]

    def freshest(self) -> float:
        """Seconds from the broker's receipt to publication that no joined monitor frame should take longer than."""
        return AHEAD * self.service + 1 / min(self.rates()) + WAY


class Load(Struct, frozen=True, kw_only=True):
    """What was seen. `joined`: frames by camera (monitor: at which a model looked); `seconds`: from its receipt to
    publication, of each; `settle`: from sending to SETTLED; `held`: most bytes of unsettled payloads; `broker`: most
    resident bytes beyond those of that moment."""

    overload: Overload
    sent: int
    skipped: int
    complete: int
    incomplete: int
    joined: dict[str, int]
    seconds: list[float] = field(default_factory=list)
    settle: list[float] = field(default_factory=list)
    held: int = 0
    broker: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def fairness(self) -> float:
        """Of all cameras, the greedy one too: it is to get no more than the others."""
        return fairness([self.joined.get(name, 0) for name in self.overload.names()])

    @property
    def kept(self) -> float:
        """Share of the settled frames that were complete."""
        settled = self.complete + self.incomplete
        return self.complete / settled if settled else float("nan")

    def misses(self) -> Iterator[str]:
        """Which targets were missed."""
        wanted = self.overload
        if not self.fairness >= FAIR:
            yield f"fairness {self.fairness:.3f}, not {FAIR}"
        if self.broker > BEYOND:
            yield f"the broker holds {self.broker / 1e6:.0f} MB beyond payloads, more than {BEYOND / 1e6:.0f}"
        if wanted.policy == "inspect":
            if not self.kept >= KEPT:
                yield f"{self.kept:.1%} of accepted frames complete, not {KEPT:.0%}"
            if not quantile(self.settle, 0.99) < wanted.deadline:
                yield f"p99 to SETTLED {quantile(self.settle, 0.99):.3f} s, deadline {wanted.deadline:g} s"
        elif not quantile(self.seconds, 0.99) <= wanted.freshest():
            yield f"p99 age {quantile(self.seconds, 0.99):.3f} s, not {wanted.freshest():.3f} s"


def parse_cases(policies: str, cameras: str, kinds: str, **settings: Any) -> list[Overload]:
    """Every combination of the words, split at commas. Raises ValueError naming a word that is none."""
    numbers = [int(word) if word.strip().isdigit() else 0 for word in cameras.split(",")]
    if not all(1 <= number <= 64 for number in numbers):
        raise ValueError(f"{cameras!r}: numbers of cameras are from 1 to 64, as in 4,16")
    return [
        Overload(policy=policy, cameras=number, kind=kind, **settings)
        for policy in _words(policies, get_args(Policy))
        for number in numbers
        for kind in _words(kinds, get_args(Kind))
    ]


def _words(text: str, known: Sequence[Any]) -> list[Any]:
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return words


def fairness(shares: Sequence[int]) -> float:
    """Jain's index: 1.0 when all are equal, 1/n when one has everything; nan for nothing."""
    total = sum(shares)
    return total * total / (len(shares) * sum(share * share for share in shares)) if total else float("nan")


def quantile(values: Sequence[float], share: float) -> float:
    """nan for no value."""
    return float(np.quantile(values, share)) if values else float("nan")


def run_overload(overload: Overload, on_second: Callable[[], None] = lambda: None) -> Load:
    """Run the line for `overload.seconds`; raises BenchError when a process ends or nothing settles."""
    with tempfile.TemporaryDirectory(prefix="gw", dir=overload.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Board.create(folder / "board") as board, open_crew(folder) as crew:
            line = _start(overload, folder, board, crew)
            with _Consumer(line.endpoints.live) as consumer:
                wait_until(lambda: board.counts[Slot.COMPLETE], crew, _START_SECONDS, f"settled frame: {board}")
                held, broker = _watch(overload, board, crew, consumer, on_second)
                board.stop_sources()
                # What comes after this was seen under no load: nobody replaces the pictures that still wait.
                crew.wait(["cameras"], 3 * overload.deadline)
            load = _load(overload, board, consumer, held, broker)
            problems = _reconcile(load, folder / LEDGER)
            board.stop()
            return msgspec.structs.replace(load, problems=problems)


def _start(overload: Overload, folder: Path, board: Board, crew: Crew) -> Line:
    names = overload.names()
    line = make_line(folder, overload.transport, cameras=names, models=[_MODEL], window=64, deadline=overload.deadline)
    entries = {name: msgspec.structs.replace(entry, policy=overload.policy) for name, entry in line.cameras.items()}
    line = msgspec.structs.replace(line, cameras=entries)
    start_line(crew, folder, line)
    worker = LeanWorker(
        backend=line.endpoints.backend, models=[_MODEL], window=AHEAD, max_batch=1, hwm=4, io_threads=1,
        size=overload.side**2, service=overload.service,
    )  # fmt: skip
    load = Cameras(
        frontend=line.endpoints.frontend, names=names, window=64, size=0, io_threads=1, shape=[],
        shapes=overload.shapes(), rates=overload.rates(), budget=overload.deadline, policy=overload.policy, live=True,
        timed=True,
    )  # fmt: skip
    crew.start("worker", command(board, worker), heeds_board=True)
    crew.start("cameras", command(board, load), heeds_board=True)
    return line


class _Consumer:
    """Notes what is published: joined frames by camera, and the seconds that each took."""

    def __init__(self, live: str) -> None:
        self.joined: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._live = live

    def __enter__(self) -> _Consumer:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.linger, self._socket.rcvhwm = 0, 0
        self._socket.subscribe(b"frame/")
        self._socket.connect(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(0)
        self._context.term()

    def hear(self, seconds: float) -> None:
        """Take what comes in the next `seconds`."""
        end = time.monotonic() + seconds
        while self._socket.poll(max(0, round(1000 * (end - time.monotonic())))):
            body = msgspec.msgpack.decode(self._socket.recv_multipart()[2])
            if body["results"][_MODEL]["status"] == "ok":
                self.joined[body["camera"]] += 1
                self.seconds.append(body["seconds"])


def _watch(
    overload: Overload, board: Board, crew: Crew, consumer: _Consumer, on_second: Callable[[], None]
) -> tuple[int, int]:
    """Most bytes of unsettled payloads, and most resident bytes of the broker beyond those."""
    held = beyond = 0
    end = time.monotonic() + overload.seconds
    while time.monotonic() < end:
        consumer.hear(min(1.0, max(0.0, end - time.monotonic())))
        now = board.counts[Slot.HELD_BYTES]
        held, beyond = max(held, now), max(beyond, crew.sample()["broker"].rss - now)
        on_second()
    return held, beyond


def _load(overload: Overload, board: Board, consumer: _Consumer, held: int, broker: int) -> Load:
    counts = board.counts
    return Load(
        overload=overload,
        sent=counts[Slot.SENT],
        skipped=counts[Slot.SKIPPED],
        complete=counts[Slot.COMPLETE],
        incomplete=counts[Slot.INCOMPLETE],
        joined=dict(consumer.joined),
        seconds=consumer.seconds,
        settle=board.latencies_since(0),
        held=held,
        broker=broker,
    )


def _reconcile(load: Load, ledger: Path) -> list[str]:
    """What differs between the cameras' counts and the ledger."""
    problems = []
    if load.sent != load.complete + load.incomplete:
        problems.append(f"{load.sent} frames were sent and {load.complete + load.incomplete} settled")
    told = ledger_report.report(ledger)
    inspect = load.overload.policy == "inspect"
    wanted = {"accepted": load.sent, "complete": load.complete, "published": load.sent} if inspect else {}
    for name in ("accepted", "complete", "published", "open", "duplicates", "unpublished"):
        if told[name] != wanted.get(name, 0):
            problems.append(f"the ledger says {name}: {told[name]}, and not {wanted.get(name, 0)}")
    missed = sum(told["skips"].values())
    if inspect and missed != load.skipped:
        problems.append(f"{load.skipped} triggers were skipped, the ledger names {missed}")
    return problems
