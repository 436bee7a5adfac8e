"""Who runs what: backlogs, sessions with credit, leases, and what happens to the jobs of a session that is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from broker.backlog import Backlog
from broker.frames import Counts, Frames
from broker.outbox import Outbox
from broker.registrar import Registrar
from broker.roster import FOR_GOOD, Roster, Session, Worker
from broker.task import DONE, LEASED, QUEUED, OpenFrame, Task
from broker.wire import RESULT_LIMIT, Answer, Beat, Done, Drain, Endpoint, Nack, Suspicion, Void

#: Crashes of sessions with a frame under way after which the frame is poison.
CRASH_LIMIT: Final = 3
#: Dispatches of one (frame, model) at most.
TRIES_LIMIT: Final = 5
#: Longest reason that is passed on, in characters.
REASON_LIMIT: Final = 256
#: Seconds that a suspect waits for a second session of its model, and for one that has answered before.
PATIENCE: Final = 2.0


class Dispatcher:
    """Queues tasks and leases them to sessions. Holds no socket and no clock."""

    def __init__(self, epoch: str, frames: Frames, outbox: Outbox, counts: Counts, session_limit: int) -> None:
        self.epoch = epoch
        self.frames = frames
        self.outbox = outbox
        self.counts = counts
        self.roster = Roster()
        self.backlogs: dict[str, Backlog] = {}
        self.registrar = Registrar(self.roster, self.backlogs, outbox, counts, session_limit)

    def served(self) -> set[str]:
        """Models that have a session."""
        return {name for name, backlog in self.backlogs.items() if backlog.sessions}

    def pace(self, models: Iterable[str]) -> float:
        """Frames/s that the slowest of `models` promises; 0.0: one of them has no open session."""
        return min(
            (
                sum(session.pace() for session in self.backlog(model).sessions.values() if session.ready)
                for model in models
            ),
            default=0.0,
        )

    # --- queueing ----------------------------------------------------------------------------------------------------

    def queue(self, now: float, frame: OpenFrame) -> None:
        """Queue every task of `frame` that is not done."""
        monitor = frame.policy == "monitor"
        for task in frame.tasks.values():
            if task.state != QUEUED:
                continue
            task.queued_at = now
            backlog = self.backlog(task.model)
            if task.crashes:
                self._judge_suspect(now, backlog, task)
            elif not monitor:
                backlog.push(task)
            else:
                old = backlog.replace(task)
                if old is not None:
                    self.frames.finish(now, old, "dropped", "superseded")

    def backlog(self, model: str) -> Backlog:
        backlog = self.backlogs.get(model)
        if backlog is None:
            backlog = self.backlogs[model] = Backlog(model)
        return backlog

    # --- workers' messages -------------------------------------------------------------------------------------------

    def endpoint(self, session: Session, port: int) -> None:
        """The server has bound the session's data socket."""
        message = Endpoint(session=session.id, port=port, epoch=self.epoch)
        self.outbox.to_workers.append((session.worker.identity, message))

    def beat(self, now: float, identity: bytes, message: Beat) -> None:
        """Take progress and grants; a session that a live worker leaves out is gone, one that we lack is told so."""
        worker = self.roster.workers.get(message.worker)
        if worker is not None and worker.identity == identity:
            worker.beat_at = now
            named = {beat.session for beat in message.sessions}
            for session in [s for s in worker.sessions.values() if s.id not in named]:
                self.lose(now, session, "left_out")
        for beat in message.sessions:
            known = self.roster.sessions.get(beat.session)
            if known is None:
                self.registrar.unknown(now, identity, beat.session)
            elif known.worker is worker:
                known.beat(beat)

    def done(self, now: float, message: Done) -> None:
        """Take answers, from whatever session and try: the first one for a (frame, model) counts."""
        session = self.roster.sessions.get(message.session)
        if session is not None:
            session.extend(message.grant)
        for answer in message.items:
            task = self._task_of(session, message.model, answer)
            if task is None:
                self.counts["unasked_total", "done"] += 1
                continue
            tell = self.frames.finish if task.state < DONE else self.frames.answer_late
            if len(answer.body) > RESULT_LIMIT:  # the join would never get it
                tell(now, task, "failed", "result_too_large", b"")
            else:
                tell(now, task, answer.status, answer.reason[:REASON_LIMIT], answer.body)
        if session is not None and session.draining:
            self._end_drained(now, session)

    def _task_of(self, session: Session | None, model: str, answer: Answer) -> Task | None:
        task = session.in_flight.get(answer.dseq) if session is not None else None
        if session is not None and task is not None and task.frame.key == answer.key and task.model == model:
            del session.in_flight[answer.dseq]
            session.answered += 1
            return task
        frame = self.frames.open.get(answer.key)
        task = frame.tasks.get(model) if frame is not None else None
        return task if task is not None and task.tries else None

    def nack(self, now: float, message: Nack) -> None:
        """A session gives a job back; only the session that has it can."""
        session = self.roster.sessions.get(message.session)
        task = session.in_flight.get(message.dseq) if session is not None else None
        if session is None or task is None or task.frame.key != message.key:
            self.counts["unasked_total", "nack"] += 1
            return
        session.extend(message.grant)
        del session.in_flight[message.dseq]
        if task.state == LEASED and task.session is session:
            if message.retryable:
                self._requeue(now, task)
            else:
                self.frames.finish(now, task, "failed", message.reason[:REASON_LIMIT])
        if session.draining:
            self._end_drained(now, session)

    def drain(self, now: float, identity: bytes, message: Drain) -> None:
        """These sessions get no more jobs, and VOID when theirs are done."""
        for session in [self.roster.sessions.get(name) for name in message.sessions]:
            if session is not None and session.worker.identity == identity:
                self.dismiss(now, session, "drained")

    def dismiss(self, now: float, session: Session, reason: str) -> None:
        """This session gets no more jobs, and VOID `reason` when its are done; the first reason holds."""
        session.leaves_as = session.leaves_as or reason
        session.draining = True
        session.ready = False
        self._end_drained(now, session)

    def want(self, versions: Mapping[str, str]) -> None:
        """From now on these versions (model -> sha256) are wanted; of any other model any version is."""
        for name, backlog in self.backlogs.items():
            backlog.wanted = versions.get(name, "")

    def _end_drained(self, now: float, session: Session) -> None:
        if not session.in_flight:
            self.lose(now, session, session.leaves_as)

    # --- lost sessions -----------------------------------------------------------------------------------------------

    def lose(self, now: float, session: Session, reason: str) -> None:
        """Close a session; what it had goes back to the head of the queue, the likely culprits as suspects."""
        self.counts["sessions_lost_total", session.model, reason] += 1
        self.roster.leave(session)
        said = reason
        if session.leaves_as in FOR_GOOD:
            said = session.leaves_as
            self.roster.end(session, said)
        session.lost_as = reason
        self.registrar.lost(now, session, reason)
        backlog = self.backlogs[session.model]
        backlog.sessions.pop(session.id, None)
        # Silence says little: a worker that is cut off or starved is silent too, and may live. Again and again with the
        # same frame alone in it, it says enough: a crash that is written to disk first, or holds the interpreter.
        counts = reason != "no_beat" or backlog.alone is session
        if backlog.alone is session:
            backlog.alone = None
        self.outbox.closed.append(session)
        self.outbox.to_workers.append((session.worker.identity, Void(session=session.id, reason=said)))
        tasks = [task for task in session.in_flight.values() if task.state == LEASED and task.session is session]
        under_way = set() if reason == "drained" else set(list(session.in_flight)[: session.depth])
        self.counts["requeued_total", session.model] += len(tasks)
        for task in reversed(tasks):
            if task.dseq not in under_way or task.frame.policy == "monitor":
                self._requeue(now, task)
        for task in tasks:
            if task.state == LEASED:
                self._suspect(now, backlog, task, counts)
        session.in_flight.clear()

    def _requeue(self, now: float, task: Task) -> None:
        if task.frame.policy == "monitor":
            self.frames.finish(now, task, "dropped", "session_lost")
        elif task.tries >= TRIES_LIMIT:
            self.frames.finish(now, task, "failed", "tries")
        else:
            task.state = QUEUED
            self.backlogs[task.model].requeue(task)

    def _suspect(self, now: float, backlog: Backlog, task: Task, counts: bool) -> None:
        """This frame was under way in a session that died: run it with care, and if that counts as a crash, remember it
        in the ledger."""
        if not counts:
            self._judge_suspect(now, backlog, task)
            return
        task.crashes += 1
        self.counts["suspects_total", task.model] += 1
        egress = self.frames.egress
        note = Suspicion(ticket=egress.ticket(), key=task.frame.key, model=task.model, count=task.crashes)
        egress.send(now, note)
        self._judge_suspect(now, backlog, task)

    def _judge_suspect(self, now: float, backlog: Backlog, task: Task) -> None:
        if task.crashes >= CRASH_LIMIT:
            self.counts["poison_total", task.model] += 1
            self.outbox.quarantine.append((task.model, task.frame.header, task.frame.payload))
            self.frames.finish(now, task, "failed", "poison")
        elif task.tries >= TRIES_LIMIT:
            self.outbox.quarantine.append((task.model, task.frame.header, task.frame.payload))
            self.frames.finish(now, task, "failed", "tries")
        else:
            task.state = QUEUED
            task.queued_at = now
            backlog.suspects.append(task)

    # --- leasing -----------------------------------------------------------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Lease what waits to whoever has credit."""
        for backlog in self.backlogs.values():
            if backlog.wanted:
                for session in backlog.outdated():
                    self.dismiss(now, session, "replaced")
            if backlog.suspects or backlog.alone is not None:
                self._run_suspect(now, backlog)
            if backlog.sessions:
                self._lease_all(now, backlog)

    def _lease_all(self, now: float, backlog: Backlog) -> None:
        while (session := backlog.pick()) is not None:
            task = backlog.pop()
            if task is None:
                return
            self._lease(now, session, task)

    def _lease(self, now: float, session: Session, task: Task) -> None:
        task.state = LEASED
        session.lease(task, now)
        self.outbox.jobs.append((session, task))

    def _run_suspect(self, now: float, backlog: Backlog) -> None:
        """One suspect at a time, alone in its process: a crash then has one possible cause."""
        task = backlog.next_suspect()
        session = backlog.alone
        if session is not None and not session.worker.idle():
            return
        if task is None:
            if session is not None:
                session.worker.alone = backlog.alone = None
            return
        if session is None:
            session = self._reserve(now, backlog, task)
        if session is not None and session.worker.idle() and session.dispatched < session.grant:
            backlog.suspects.popleft()
            self._lease(now, session, task)

    def _reserve(self, now: float, backlog: Backlog, task: Task) -> Session | None:
        """Keep a worker free for the suspect: one of several, which has answered before, or, when there was none for a
        while, whichever there is. One that dies at its first job may die of itself."""
        live = [session for session in backlog.sessions.values() if session.ready]
        workers: set[Worker] = {session.worker for session in live}
        patient = now - task.queued_at < PATIENCE
        if not live or (len(workers) < 2 and patient):
            return None
        free = [session for session in live if session.worker.alone is None]
        proven = [session for session in free if session.answered]
        if not free or (not proven and patient):
            return None
        session = min(proven or free, key=lambda one: sum(len(s.in_flight) for s in one.worker.sessions.values()))
        session.worker.alone = backlog.alone = session
        return session

    # --- time --------------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Give up the sessions that are silent, stuck, or over their lease."""
        for session, reason in list(self.roster.lost(now)):
            self.lose(now, session, reason)
