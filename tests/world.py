"""A whole line in one thread without sockets: the real router among model cameras, workers and a ledger.

Every link is a list of messages that a test may lose, repeat or reorder; time is a number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from broker import line as line_file
from broker.courier import batches
from broker.line import Line
from broker.roster import FOR_GOOD, Session
from broker.routing import Router
from broker.wire import (
    PROTOCOL,
    Accepted,
    Answer,
    Beat,
    Closed,
    Closing,
    Done,
    Drain,
    Endpoint,
    Expect,
    Expectation,
    Frame,
    Hello,
    Jack,
    Job,
    JoinHello,
    Key,
    Known,
    Message,
    Note,
    Outcome,
    Ready,
    Reject,
    Result,
    SessionBeat,
    Settled,
    Status,
    Suspect,
    Suspicion,
    Void,
    Welcome,
)

JPEG = b"\xff\xd8\xff\xe0"


@dataclass
class ModelCamera:
    """A camera that follows docs/wire.md: it holds each frame until it is settled."""

    name: str
    boot: str = "b0"
    epoch: str = ""
    credit: int = -1
    next_seq: int = 0
    held: dict[int, Frame] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    settled: dict[int, bool] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    outgoing: list[Message] = field(default_factory=list)

    def hello(self) -> None:
        self.outgoing.append(
            Hello(camera=self.name, boot=self.boot, protocol=PROTOCOL, next_seq=self.next_seq, unsettled=len(self.held))
        )

    def shoot(self, budget: float) -> bool:
        if self.next_seq > self.credit:
            return False
        key = Key(self.name, self.boot, self.next_seq)
        frame = Frame(key=key, policy="inspect", encoding="jpeg", shape=[1, 1, 3], len=4, age=0.0, budget=budget)
        self.held[self.next_seq] = frame
        self.next_seq += 1
        self.outgoing.append(frame)
        return True

    def receive(self, message: Message) -> None:
        match message:
            case Welcome():
                fresh = message.epoch != self.epoch
                self.epoch = message.epoch
                self.credit = message.credit if fresh else max(self.credit, message.credit)
                self.send_again()
            case Accepted():
                self.credit = max(self.credit, message.credit)
                self.accepted.update(message.seqs)
            case Settled():
                self.credit = max(self.credit, message.credit)
                for seqs, complete in ((message.complete, True), (message.incomplete, False)):
                    for seq in seqs:
                        assert self.settled.setdefault(seq, complete) == complete, "settled twice, differently"
                        self.held.pop(seq, None)
            case Reject():
                self._rejected(message)
            case _:
                raise AssertionError(message)

    def _rejected(self, message: Reject) -> None:
        if message.reason == "no_hello":
            self.hello()
        elif message.key is not None and message.reason != "over_credit":
            self.rejected[message.key.seq] = message.reason
            self.held.pop(message.key.seq, None)

    def send_again(self) -> None:
        for seq, frame in list(self.held.items()):
            frame = Frame(
                **{name: getattr(frame, name) for name in frame.__struct_fields__} | {"again": frame.again + 1}
            )
            self.held[seq] = frame
            self.outgoing.append(frame)


@dataclass
class ModelWorker:
    """A worker process with one session; jobs reach it in order on a link of its own."""

    name: str
    model: str
    session: str
    window: int
    alive: bool = True
    registered: bool = False
    over: bool = False  # let go for good: its process has ended
    completed: int = 0
    jobs: list[Job] = field(default_factory=list)  # received, not done
    wire: list[Job] = field(default_factory=list)  # on the way
    outgoing: list[Message] = field(default_factory=list)

    @property
    def grant(self) -> int:
        return self.completed + self.window

    def ready(self) -> None:
        if self.over:
            return
        self.outgoing.append(
            Ready(
                worker=self.name,
                session=self.session,
                model=self.model,
                sha256="",
                max_batch=1,
                exec_timeout=1.0,
                grant=self.grant,
            )
        )

    def beat(self) -> None:
        if self.over:
            return
        beat = SessionBeat(
            session=self.session, started=self.completed, completed=self.completed, exec_age=0.0, grant=self.grant
        )
        self.outgoing.append(Beat(worker=self.name, sessions=[beat]))

    def take(self) -> None:
        if self.wire:
            self.jobs.append(self.wire.pop(0))

    def run(self, looked: set[tuple[Key, str]]) -> None:
        if not self.jobs:
            return
        job = self.jobs.pop(0)
        self.completed = job.dseq
        looked.add((job.key, self.model))
        answer = Answer(dseq=job.dseq, key=job.key, status="ok", body=b"seen")
        self.outgoing.append(Done(session=self.session, grant=self.grant, model=self.model, items=[answer]))

    def receive(self, message: Message) -> None:
        match message:
            case Endpoint():
                self.registered = self.registered or message.session == self.session
            case Void():
                if message.session == self.session and not self.over:
                    self.over = message.reason in FOR_GOOD
                    self.session += "'"
                    self.registered = False
                    self.completed = 0
                    self.jobs.clear()
                    self.wire.clear()
                    self.ready()
            case _:
                raise AssertionError(message)


@dataclass
class ModelLedger:
    """The join: what is committed, once each, and what it publishes."""

    epoch: int = 0
    rows: dict[Key, list[str]] = field(default_factory=dict)
    deadlines: dict[Key, float] = field(default_factory=dict)
    statuses: dict[tuple[Key, str], tuple[Status, str]] = field(default_factory=dict)
    suspects: dict[tuple[Key, str], int] = field(default_factory=dict)
    boots: dict[tuple[str, str], str] = field(default_factory=dict)
    outgoing: list[Message] = field(default_factory=list)

    def hello(self) -> None:
        self.outgoing.append(JoinHello(epoch=f"join{self.epoch}"))

    def restart(self) -> None:
        self.epoch += 1
        self.outgoing.clear()
        self.deadlines.clear()
        self.hello()

    def receive(self, now: float, message: Any) -> None:
        self._known: list[Known] = []
        match message:
            case Expect():
                tickets = [self._expect(now, item) for item in message.items]
            case Result():
                tickets = [item.ticket for item in message.items if self._result(item)]
            case Suspect():
                tickets = [self._suspect(item) for item in message.items]
            case Note():
                for boot in message.boots:
                    self.boots[boot.camera, boot.boot] = boot.state
                tickets = [boot.ticket for boot in message.boots] + [skip.ticket for skip in message.skips]
            case _:
                raise AssertionError(message)
        self.outgoing.append(Jack(epoch=message.epoch, tickets=tickets, known=self._known))

    def _expect(self, now: float, item: Expectation) -> int:
        self.rows.setdefault(item.key, list(item.models))
        self.deadlines[item.key] = now + item.budget + 0.05
        done = {m: self.statuses[item.key, m][0] for m in item.models if (item.key, m) in self.statuses}
        crashes = {m: n for (key, m), n in self.suspects.items() if key == item.key}
        if done or crashes:
            self._known.append(Known(ticket=item.ticket, statuses=done, suspects=crashes))
        return item.ticket

    def _result(self, item: Outcome) -> bool:
        """Whether it is committed; where the expectation was lost both come again, so it is not acked."""
        if item.key not in self.rows:
            return False
        first = self.statuses.setdefault((item.key, item.model), (item.status, item.reason))[0]
        if first != item.status:
            self._known.append(Known(ticket=item.ticket, statuses={item.model: first}))
        return True

    def _suspect(self, item: Suspicion) -> int:
        self.suspects[item.key, item.model] = max(item.count, self.suspects.get((item.key, item.model), 0))
        return item.ticket

    def close_due(self, now: float, epoch: str) -> None:
        """The join's own clock: at its deadline a frame is closed whether the broker speaks or not."""
        for key in [key for key, deadline in self.deadlines.items() if deadline <= now]:
            del self.deadlines[key]
            missing = [model for model in self.rows[key] if (key, model) not in self.statuses]
            for model in missing:
                self.statuses[key, model] = ("expired", "no_word")
            if missing:
                self.outgoing.append(Closed(epoch=epoch, items=[Closing(key=key, models=missing)]))


class World:
    """The router and its peers. Links: lists of messages, oldest first; the caller decides what arrives and when."""

    def __init__(self, cameras: int = 2, models: tuple[str, ...] = ("det", "seg"), window: int = 2) -> None:
        names = [f"cam{number}" for number in range(cameras)]
        self.line: Line = line_file.from_flags(cameras=names, models=list(models), deadline=5.0)
        self.now = 1000.0
        self.brokers = 0
        self.window = window
        self.cameras = {name: ModelCamera(name) for name in names}
        self.workers: dict[str, ModelWorker] = {}
        self.ledger = ModelLedger()
        self.looked: set[tuple[Key, str]] = set()
        self.to_camera: dict[str, list[Message]] = {name: [] for name in names}
        self.to_worker: dict[str, list[Message]] = {}
        self.to_join: list[Message] = []
        self.join_known = False
        self._started = 0
        self.start_broker()
        for model in models:
            self.start_worker(model)
        for camera in self.cameras.values():
            camera.hello()
        self.ledger.hello()

    def start_broker(self) -> None:
        """A new broker that remembers nothing; messages to and from the old one are gone, as its sockets are."""
        self.brokers += 1
        self.router = Router(self.line, "digest", f"epoch{self.brokers}", self.now)
        for links in (self.to_camera, self.to_worker):
            for messages in links.values():
                messages.clear()
        self.to_join.clear()

    def start_worker(self, model: str) -> ModelWorker:
        self._started += 1
        worker = ModelWorker(f"w{self._started}", model, f"s{self._started}", self.window)
        self.workers[worker.name] = worker
        self.to_worker[worker.name] = []
        worker.ready()
        return worker

    def kill_worker(self, name: str) -> None:
        """What it had is gone; the broker finds out by itself."""
        del self.workers[name]
        del self.to_worker[name]

    def crash_worker(self, name: str) -> None:
        """Its process ends: the broker sees the connections of its sessions break."""
        self.kill_worker(name)
        for session in list(self.router.dispatcher.roster.sessions.values()):
            if session.worker.name == name:
                self.router.lose(self.now, session, "disconnected")

    # --- links to the broker -----------------------------------------------------------------------------------------

    def from_camera(self, name: str, message: Message) -> None:
        identity = name.encode()
        if isinstance(message, Frame):
            self.router.frame(self.now, identity, message, JPEG, JPEG, len(JPEG))
        else:
            self.router.from_camera(self.now, identity, message)

    def from_worker(self, name: str, message: Message) -> None:
        self.router.from_worker(self.now, name.encode(), message)

    def from_join(self, message: Message) -> None:
        self.router.from_join(self.now, message)

    # --- a turn ------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """End the broker's turn and put what it says on the links."""
        router = self.router
        router.end_turn(self.now)
        outbox = router.outbox
        for session in outbox.opened:
            self._open(session)
        for session, task in outbox.jobs:
            self._job(session, task)
        for identity, message in outbox.to_workers:
            self.to_worker.get(identity.decode(), []).append(message)
        for identity, message in outbox.to_cameras:
            self.to_camera[identity.decode()].append(message)
        for publisher in outbox.publishers.values():
            self._tell(publisher)
        outbox.clear()
        items, router.egress.items = router.egress.items, []
        self.to_join.extend(batches(router.epoch, items))

    def _open(self, session: Session) -> None:
        self.router.bound(session, 1)
        self.router.connected(session)

    def _job(self, session: Session, task: Any) -> None:
        assert session.dispatched <= session.grant, "credit exceeded"
        worker = self.workers.get(session.worker.name)
        if worker is not None and worker.session == session.id:
            frame = task.frame
            worker.wire.append(
                Job(
                    session=session.id,
                    dseq=task.dseq,
                    key=frame.key,
                    tries=task.tries,
                    encoding="jpeg",
                    shape=[1, 1, 3],
                    budget=frame.deadline - self.now,
                )
            )

    def _tell(self, publisher: Any) -> None:
        link = self.to_camera[publisher.name]
        if publisher.accepted or not (publisher.complete or publisher.incomplete):
            link.append(Accepted(boot=publisher.boot, seqs=publisher.accepted, credit=publisher.credit))
        if publisher.complete or publisher.incomplete:
            link.append(
                Settled(
                    boot=publisher.boot,
                    credit=publisher.credit,
                    complete=publisher.complete,
                    incomplete=publisher.incomplete,
                )
            )
        publisher.accepted, publisher.complete, publisher.incomplete = [], [], []

    # --- a healthy network -------------------------------------------------------------------------------------------

    def calm(self, seconds: float) -> None:
        """Let everything arrive in order while time passes; cameras ask when nothing moves, workers beat."""
        end = self.now + seconds
        step = 0
        while self.now < end:
            self.now += 0.05
            step += 1
            for worker in list(self.workers.values()):
                worker.beat()
                worker.take()
                worker.run(self.looked)
                if not worker.registered:
                    worker.ready()
            if step % 20 == 0:
                self.ledger.hello()
                for camera in self.cameras.values():
                    camera.hello()
            self.exchange()

    def exchange(self) -> None:
        """Everything that is on a link arrives, and the broker makes a turn."""
        for name, camera in self.cameras.items():
            for message in _taken(camera.outgoing):
                self.from_camera(name, message)
        for name, worker in list(self.workers.items()):
            for message in _taken(worker.outgoing):
                self.from_worker(name, message)
        self.ledger.close_due(self.now, self.router.epoch)
        for message in _taken(self.ledger.outgoing):
            self.from_join(message)
        self.turn()
        for name, camera in self.cameras.items():
            for message in _taken(self.to_camera[name]):
                camera.receive(message)
        for name, worker in self.workers.items():
            for message in _taken(self.to_worker[name]):
                worker.receive(message)
        for message in _taken(self.to_join):
            if not hasattr(message, "text"):
                self.ledger.receive(self.now, message)

    def drain_workers(self) -> None:
        for worker in self.workers.values():
            worker.outgoing.append(Drain(worker=worker.name, sessions=[worker.session]))


def _taken(messages: list[Message]) -> list[Message]:
    taken = list(messages)
    messages.clear()
    return taken
