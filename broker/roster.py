"""Worker processes and their sessions (registered model threads): credit, leases, progress."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from broker.wire import Ready, SessionBeat

if TYPE_CHECKING:
    from broker.task import Task

#: A worker that has not beaten for so many seconds is dead (it beats every 0.1 s).
DEAD_AFTER: Final = 0.35
#: Jobs that a session may ask for at most.
LARGEST_WINDOW: Final = 4096
#: A session whose data socket has no peer after so many seconds is given up: something is between it and the port.
CONNECT_WITHIN: Final = 5.0
#: exec_timeout is about so many times the slowest call that a session saw while it warmed up.
EXEC_SLACK: Final = 10
#: What a lease has beyond the longest time that the jobs in flight may take, in seconds.
LEASE_MARGIN: Final = 0.25
#: Sessions that were let go for good and are remembered.
OVER_KEPT: Final = 1024
#: The reasons: their worker registers no new session in their place.
FOR_GOOD: Final = frozenset({"stopped", "replaced"})


class Worker:
    """A worker process. `alone` is the session that runs a suspect with the whole process to itself."""

    __slots__ = ("alone", "beat_at", "identity", "name", "sessions")

    def __init__(self, name: str, identity: bytes, now: float) -> None:
        self.name = name
        self.identity = identity
        self.beat_at = now
        self.sessions: dict[str, Session] = {}
        self.alone: Session | None = None

    def idle(self) -> bool:
        return not any(session.in_flight for session in self.sessions.values())


class Session:
    """One registration of a model thread. `grant` is the highest dseq that it takes, `dispatched` the last one sent."""

    __slots__ = (
        "answered",
        "depth",
        "dispatched",
        "draining",
        "exec_age",
        "exec_timeout",
        "grant",
        "id",
        "in_flight",
        "leaves_as",
        "lost_as",
        "max_batch",
        "model",
        "opened_at",
        "precision",
        "random",
        "ready",
        "sha256",
        "socket",
        "worker",
    )  # fmt: skip

    def __init__(self, message: Ready, worker: Worker, now: float) -> None:
        self.id = message.session
        self.model = message.model
        self.sha256 = message.sha256
        self.random = message.random
        self.precision = message.precision
        self.worker = worker
        self.grant = message.grant
        self.depth = message.depth
        self.max_batch = message.max_batch
        self.exec_timeout = message.exec_timeout
        self.exec_age = 0.0
        self.dispatched = 0
        self.answered = 0  # jobs
        self.in_flight: dict[int, Task] = {}
        self.ready = False  # its data socket has a peer
        self.draining = False
        self.leaves_as = ""  # while it is draining: why
        self.opened_at = now
        self.lost_as = ""
        self.socket: Any = None  # the server's PUSH; opaque here

    def lease(self, task: Task, now: float) -> None:
        """Take `task` as this session's next job."""
        self.dispatched += 1
        self.in_flight[self.dispatched] = task
        task.session = self
        task.dseq = self.dispatched
        task.leased_at = now
        task.tries += 1

    def extend(self, grant: int) -> None:
        """A grant is absolute: an old one that comes late takes nothing back."""
        self.grant = max(self.grant, min(grant, self.dispatched + LARGEST_WINDOW))

    def beat(self, beat: SessionBeat) -> None:
        self.extend(beat.grant)
        self.exec_age = beat.exec_age

    def pace(self) -> float:
        """Frames/s that it promises: its exec_timeout is a multiple of the slowest call at its largest batch."""
        return self.max_batch * EXEC_SLACK / self.exec_timeout

    def overdue(self, now: float) -> str:
        """Why this session must be given up now, or ""."""
        if not self.ready and not self.draining and now - self.opened_at > CONNECT_WITHIN:
            return "not_connected"
        if self.exec_age > self.exec_timeout:
            return "exec_timeout"
        for task in self.in_flight.values():
            lease = max(len(self.in_flight), 2) * self.exec_timeout + LEASE_MARGIN
            return "lease" if now - task.leased_at > lease else ""
        return ""


class Roster:
    """All workers and sessions, by name, ROUTER identity and session id."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.sessions: dict[str, Session] = {}
        self.over: OrderedDict[str, str] = OrderedDict()  # sessions that were let go for good, and why

    def knows(self, identity: bytes) -> bool:
        """Whether this peer has a session."""
        return any(worker.identity == identity for worker in self.workers.values())

    def join(self, message: Ready, identity: bytes, now: float) -> Session | None:
        """Register a session; None when another live process has this worker's name."""
        worker = self.workers.get(message.worker)
        if worker is not None and worker.identity != identity and now - worker.beat_at <= DEAD_AFTER:
            return None
        if worker is None:
            worker = self.workers[message.worker] = Worker(message.worker, identity, now)
        worker.identity = identity
        worker.beat_at = now
        session = Session(message, worker, now)
        worker.sessions[session.id] = session
        self.sessions[session.id] = session
        return session

    def leave(self, session: Session) -> None:
        del self.sessions[session.id]
        worker = session.worker
        del worker.sessions[session.id]
        if worker.alone is session:
            worker.alone = None
        if not worker.sessions:
            self.workers.pop(worker.name, None)

    def end(self, session: Session, reason: str) -> None:
        """Remember that it was let go for good: whoever lost the VOID is told again."""
        self.over[session.id] = reason
        if len(self.over) > OVER_KEPT:
            self.over.popitem(last=False)

    def lost(self, now: float) -> Iterator[tuple[Session, str]]:
        """Sessions that are to be given up now, with the reason."""
        for worker in list(self.workers.values()):
            dead = now - worker.beat_at > DEAD_AFTER
            for session in list(worker.sessions.values()):
                reason = "no_beat" if dead else session.overdue(now)
                if reason:
                    yield session, reason

    def forgive(self, seconds: float) -> None:
        """The broker itself stood still for so long: nobody could be heard, so nobody is blamed."""
        for worker in self.workers.values():
            worker.beat_at += seconds
            for session in worker.sessions.values():
                for task in session.in_flight.values():
                    task.leased_at += seconds
