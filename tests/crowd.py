"""More cameras than the workers can serve, on a simulated clock: the real router, and what its peers see."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from broker import line as line_file
from broker.courier import batches
from broker.routing import Router
from broker.wire import (
    PROTOCOL,
    Answer,
    Beat,
    Done,
    Expect,
    Frame,
    Hello,
    JoinHello,
    Key,
    Policy,
    Ready,
    Result,
    SessionBeat,
    Skip,
    Welcome,
)
from tests.world import JPEG, ModelLedger

#: Jobs that a session takes ahead: one in the engine, one being prepared.
WINDOW = 2


@dataclass
class Shooter:
    """A camera that has a picture `rate` times a second; 0: always. `live`: what has no credit then is skipped."""

    name: str
    rate: float
    live: bool
    due: float
    credit: int = -1
    next_seq: int = 0
    unaccepted: int = 0
    taken: dict[int, float] = field(default_factory=dict)  # seq -> instant of capture
    complete: dict[int, float] = field(default_factory=dict)  # seq -> seconds from capture to SETTLED
    incomplete: list[int] = field(default_factory=list)
    joined: list[float] = field(default_factory=list)  # monitor: ages of joined frames
    skipped: int = 0
    unseen: deque[int] = field(default_factory=deque)  # skips that the broker had not seen at its last word


@dataclass
class Looker:
    """A session that looks at one picture at a time for `service` seconds."""

    session: str
    service: float
    free_at: float = 0.0
    done: int = 0
    jobs: list[tuple[float, int, Key]] = field(default_factory=list)  # when it arrived, dseq, key


class Crowd:
    """`rates`: frames/s of each camera. The broker makes a turn every `step` seconds; the join commits between two."""

    def __init__(
        self,
        rates: Sequence[float],
        *,
        policy: Policy = "inspect",
        live: bool = False,
        service: float = 0.1,
        deadline: float = 5.0,
        workers: int = 1,
        step: float = 0.01,
        seed: int = 0,
        early: bool = False,
        delay: float = 0.0,
    ) -> None:
        """`early`: the cameras greet before the broker knows any session. `delay`: seconds until its word is there."""
        chance = random.Random(seed)
        names = [f"cam{number}" for number in range(len(rates))]
        flags = [f"{name}:{policy}" for name in names]
        self.line = line_file.from_flags(cameras=flags, models=["det"], deadline=deadline)
        self.policy: Policy = policy
        self.deadline = deadline
        self.now = 1000.0
        self.step = step
        self.router = Router(self.line, "digest", "epoch", self.now)
        self.ledger = ModelLedger()
        self.cameras = {
            name: Shooter(name, rate, live, self.now + chance.random() / (rate or 100.0))
            for name, rate in zip(names, rates, strict=True)
        }
        self.workers = {f"w{number}": Looker(f"s{number}", service) for number in range(workers)}
        self.most_open = 0
        self._delay = delay
        self._credits: deque[tuple[float, Shooter, int, int]] = deque()  # on their way
        self._beat_at = 0.0
        self.router.from_join(self.now, JoinHello(epoch="join"))
        for name, worker in self.workers.items():
            ready = Ready(
                worker=name,
                session=worker.session,
                model="det",
                sha256="",
                max_batch=1,
                exec_timeout=max(0.5, 10 * worker.service),
                grant=WINDOW,
            )
            self.router.from_worker(self.now, name.encode(), ready)
        if not early:
            self._turn()

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += self.step
            if self.now >= self._beat_at:
                self._beat_at = self.now + 0.1
                self._greet()
            while self._credits and self._credits[0][0] <= self.now:
                _, camera, credit, seen = self._credits.popleft()
                while camera.unseen and camera.unseen[0] <= seen:
                    camera.unseen.popleft()
                camera.credit = max(camera.credit, credit + len(camera.unseen))
            for camera in self.cameras.values():
                self._shoot(camera)
            for name, worker in self.workers.items():
                self._look(name, worker)
            for message in self.ledger.outgoing:
                self.router.from_join(self.now, message)
            self.ledger.outgoing.clear()
            self._turn()

    def shares(self, names: Sequence[str] | None = None) -> list[int]:
        """Joined frames of each camera."""
        chosen = [self.cameras[name] for name in names or self.cameras]
        return [len(camera.joined) if self.policy == "monitor" else len(camera.complete) for camera in chosen]

    # --- peers -------------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        for name, camera in self.cameras.items():
            hello = Hello(
                camera=name, boot="b", protocol=PROTOCOL, policy=self.policy, next_seq=camera.next_seq,
                unsettled=len(camera.taken) - len(camera.complete) - len(camera.incomplete),
            )  # fmt: skip
            self.router.from_camera(self.now, name.encode(), hello)
        for name, worker in self.workers.items():
            beat = SessionBeat(
                session=worker.session,
                started=worker.done,
                completed=worker.done,
                exec_age=0.0,
                grant=worker.done + WINDOW,
            )
            self.router.from_worker(self.now, name.encode(), Beat(worker=name, sessions=[beat]))
        self.router.from_join(self.now, JoinHello(epoch="join"))

    def _shoot(self, camera: Shooter) -> None:
        """What the real client does: a file waits for credit, a live camera skips, a monitor sends the newest."""
        while camera.due <= self.now:
            may = camera.next_seq <= camera.credit and not (self.policy == "monitor" and camera.unaccepted)
            if not may and not camera.live:
                return  # the picture waits; a monitor's is replaced by the next one, and sent with that one's age
            if may:
                self._send(camera)
            else:
                self._skip(camera)
            if not camera.rate:
                continue
            camera.due += 1 / camera.rate
            if not camera.live:
                camera.due = max(camera.due, self.now)

    def _skip(self, camera: Shooter) -> None:
        """A trigger without credit uses up its seq."""
        key = Key(camera.name, "b", camera.next_seq)
        self.router.from_camera(self.now, camera.name.encode(), Skip(key=key, reason="no_credit"))
        camera.unseen.append(camera.next_seq)
        camera.credit += 1
        camera.next_seq += 1
        camera.skipped += 1

    def _send(self, camera: Shooter) -> None:
        key = Key(camera.name, "b", camera.next_seq)
        frame = Frame(
            key=key, policy=self.policy, encoding="jpeg", shape=[1, 1, 3], len=4, age=0.0, budget=self.deadline
        )
        camera.taken[camera.next_seq] = self.now
        camera.next_seq += 1
        camera.unaccepted += 1
        self.router.frame(self.now, camera.name.encode(), frame, JPEG, JPEG, len(JPEG))

    def _look(self, name: str, worker: Looker) -> None:
        while worker.jobs:
            arrived, dseq, key = worker.jobs[0]
            ready = max(worker.free_at, arrived) + worker.service
            if ready > self.now:
                return
            worker.jobs.pop(0)
            worker.free_at, worker.done = ready, dseq
            answer = Answer(dseq=dseq, key=key, status="ok")
            done = Done(session=worker.session, grant=dseq + WINDOW, model="det", items=[answer])
            self.router.from_worker(self.now, name.encode(), done)

    # --- the broker's turn -------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        router = self.router
        router.end_turn(self.now)
        self.most_open = max(self.most_open, len(router.frames.open))
        for session in router.outbox.opened:
            router.bound(session, 1)
            router.connected(session)
        for session, task in router.outbox.jobs:
            self.workers[session.worker.name].jobs.append((self.now, task.dseq, task.frame.key))
        for identity, message in router.outbox.to_cameras:
            if isinstance(message, Welcome):
                self._say(self.cameras[identity.decode()], message.credit, message.seen or 0)
        for publisher in router.outbox.publishers.values():
            self._tell(publisher)
        router.outbox.clear()
        items, router.egress.items = router.egress.items, []
        for batch in batches(router.epoch, items):
            self._join(batch)

    def _say(self, camera: Shooter, credit: int, seen: int) -> None:
        self._credits.append((self.now + self._delay, camera, credit, seen))

    def _tell(self, publisher: Any) -> None:
        camera = self.cameras[publisher.name]
        self._say(camera, publisher.credit, publisher.latest)
        camera.unaccepted -= len(publisher.accepted)
        for seq in publisher.complete:
            camera.complete[seq] = self.now - camera.taken[seq]
        camera.incomplete += publisher.incomplete
        publisher.accepted, publisher.complete, publisher.incomplete = [], [], []

    def _join(self, message: Any) -> None:
        if self.policy == "inspect":
            self.ledger.receive(self.now, message)
        elif isinstance(message, Result):
            for item in message.items:
                if item.status == "ok":
                    camera = self.cameras[item.key.camera]
                    camera.joined.append(self.now - camera.taken[item.key.seq])
        else:
            assert isinstance(message, Expect) or not hasattr(message, "items")
