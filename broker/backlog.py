"""What waits for one model: requeued tasks first, then cameras in turn, monitor frames in one slot per camera."""

from __future__ import annotations

from collections import deque
from typing import Final

from broker.roster import Session
from broker.task import QUEUED, Task

#: After so many inspect tasks in a row one waiting monitor frame is served.
MONITOR_SHARE: Final = 8


class Backlog:
    """The queue of one model and the sessions that serve it. Bounded by the cameras' credit."""

    __slots__ = (
        "alone", "classes", "head", "lines", "name", "sessions", "slots", "streak", "suspects", "turn",
        "wanted",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.sessions: dict[str, Session] = {}
        self.head: deque[Task] = deque()
        self.lines: dict[str, deque[Task]] = {}
        self.turn: deque[str] = deque()  # cameras whose line is not empty, next one first
        self.slots: dict[str, Task] = {}
        self.suspects: deque[Task] = deque()
        self.alone: Session | None = None  # the session that is kept free of other work for the suspects
        self.streak = 0
        self.classes: frozenset[str] = frozenset()  # what its newest session said that it can answer
        self.wanted = ""  # sha256 of the version that is wanted; "": any

    def push(self, task: Task) -> None:
        """Queue an inspect task behind its camera's others."""
        camera = task.frame.key.camera
        line = self.lines.get(camera)
        if line is None:
            line = self.lines[camera] = deque()
        if not line:
            self.turn.append(camera)
        while line and line[0].state != QUEUED:  # expired while no session took them
            line.popleft()
        line.append(task)

    def requeue(self, task: Task) -> None:
        """Put a task back to the head: its session is gone."""
        self.head.appendleft(task)

    def replace(self, task: Task) -> Task | None:
        """Put a monitor task into its camera's slot; the one that it pushes out, if any.

        A slot that is taken keeps its turn: a camera must not lose it to slower ones by sending often.
        """
        camera = task.frame.key.camera
        old = self.slots.get(camera)
        self.slots[camera] = task
        return old if old is not None and old.state == QUEUED else None

    def pop(self) -> Task | None:
        """The next task to run, suspects aside."""
        if self.slots and self.streak >= MONITOR_SHARE:
            return self._pop_slot()
        task = self._pop_head() or self._pop_turn()
        if task is None:
            return self._pop_slot()
        self.streak += 1
        return task

    def _pop_head(self) -> Task | None:
        while self.head:
            task = self.head.popleft()
            if task.state == QUEUED:
                return task
        return None

    def _pop_turn(self) -> Task | None:
        turn = self.turn
        while turn:
            camera = turn.popleft()
            line = self.lines[camera]
            while line:
                task = line.popleft()
                if task.state == QUEUED:
                    if line:
                        turn.append(camera)
                    return task
        return None

    def _pop_slot(self) -> Task | None:
        self.streak = 0
        while self.slots:
            task = self.slots.pop(next(iter(self.slots)))
            if task.state == QUEUED:
                return task
        return None

    def next_suspect(self) -> Task | None:
        """The suspect that is to run next, left in its place."""
        while self.suspects and self.suspects[0].state != QUEUED:
            self.suspects.popleft()
        return self.suspects[0] if self.suspects else None

    def pick(self) -> Session | None:
        """The least loaded session with credit, of a worker that is not kept for a suspect."""
        best = None
        least = 1 << 30
        for session in self.sessions.values():
            load = len(session.in_flight)
            if load < least and session.dispatched < session.grant and session.ready and session.worker.alone is None:
                best, least = session, load
        return best

    def outdated(self) -> list[Session]:
        """The sessions of another version than is wanted, once one of that is open."""
        others = [session for session in self.sessions.values() if session.sha256 != self.wanted]
        return others if others and self.renewed() else []

    def renewed(self) -> bool:
        """A session of the wanted version is open."""
        return any(session.ready and session.sha256 == self.wanted for session in self.sessions.values())

    def waiting(self) -> tuple[int, float | None]:
        """How many tasks wait, and since when (monotonic) the oldest does."""
        tasks = [t for t in (*self.head, *self.suspects, *self.slots.values()) if t.state == QUEUED]
        lines = [list(line) for line in list(self.lines.values())]  # another thread asks: each is copied in one step
        oldest = [task.queued_at for task in tasks] + [line[0].queued_at for line in lines if line]
        return len(tasks) + sum(map(len, lines)), min(oldest, default=None)
