"""Open frames from admission to settlement: the one place where a (frame, model) gets its terminal status."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from broker.egress import Egress, Unacked
from broker.line import Line
from broker.outbox import Outbox
from broker.publisher import Publisher
from broker.task import DONE, LEASED, QUEUED, SETTLED, WAITING, OpenFrame, Task
from broker.timetable import Timetable
from broker.wire import Closed, Expectation, Frame, Jack, Key, Known, Outcome, Status

#: Settled keys that are remembered, so that a camera that missed SETTLED is told again.
SETTLED_KEPT: Final = 8192

Counts = Counter[tuple[str, ...]]


class Frames:
    """The open frames by key. Holds no socket and no clock; tells cameras and join through outbox and egress."""

    def __init__(self, epoch: str, egress: Egress, outbox: Outbox, counts: Counts) -> None:
        self.epoch = epoch
        self.egress = egress
        self.outbox = outbox
        self.counts = counts
        self.open: dict[Key, OpenFrame] = {}
        self.settled: OrderedDict[Key, bool] = OrderedDict()  # key -> complete
        self.timetable = Timetable()
        self.bytes = 0

    # --- opening -----------------------------------------------------------------------------------------------------

    def admit(
        self, now: float, publisher: Publisher, header: Frame, payload: Any, line: Line, digest: str
    ) -> OpenFrame:
        """Open a frame with a task per model of its camera's route, and announce it to the join.

        Its deadline is fixed here: now + budget - age; sending the frame again never extends it.
        """
        frame = OpenFrame(publisher, header, payload, header.len, now + header.budget - header.age)
        models, required = line.route(publisher.name)
        for model in models:
            frame.tasks[model] = Task(frame, model, now)
        frame.unsettled = len(frame.tasks)
        self.open[frame.key] = frame
        self.bytes += frame.size
        self.timetable.add(frame)
        publisher.open += 1
        self._announce(now, frame, models, required, digest)
        return frame

    def _announce(self, now: float, frame: OpenFrame, models: list[str], required: list[str], digest: str) -> None:
        monitor = frame.policy == "monitor"
        item = Expectation(
            ticket=0 if monitor else self.egress.ticket(),
            key=frame.key,
            policy=frame.policy,
            station=frame.publisher.entry.station,
            models=models,
            required=required,
            budget=frame.deadline - now,
            line=digest,
            part=frame.header.part,
        )
        frame.expectation = item
        if not monitor:
            if frame.header.again:
                for task in frame.tasks.values():
                    task.state = WAITING
            self.egress.send(now, item, frame)
            return
        if not self.egress.send_once(item):
            self.counts["unpublished_total", frame.key.camera] += 1
        self._accept(frame)

    def _accept(self, frame: OpenFrame) -> None:
        frame.acked = True
        publisher = frame.publisher
        self.counts["accepted_total", publisher.name] += 1
        publisher.accepted.append(frame.key.seq)
        self.outbox.publishers[id(publisher)] = publisher

    # --- terminal statuses -------------------------------------------------------------------------------------------

    def finish(self, now: float, task: Task, status: Status, reason: str = "", body: bytes = b"") -> None:
        """Give `task` its terminal status, the first and only one; the join commits it."""
        frame = task.frame
        task.state = DONE
        task.ok = status == "ok"
        monitor = frame.policy == "monitor"
        item = Outcome(
            ticket=0 if monitor else self.egress.ticket(),
            key=frame.key,
            model=task.model,
            tries=task.tries,
            status=status,
            reason=reason,
            body=body,
        )
        self.counts["tasks_total", task.model, status] += 1
        if monitor:
            self.egress.send_once(item)
            self._settle_task(now, task)
        else:
            self.egress.send(now, item, task)

    def answer_late(self, now: float, task: Task, status: Status, reason: str, body: bytes) -> None:
        """An answer after the terminal status: recorded if the frame had expired, else a repeat, only counted."""
        if not task.expired or task.frame.policy == "monitor":
            self.counts["repeated_answers_total", task.model] += 1
            return
        task.expired = False  # one late answer is recorded
        self.counts["late_total", task.model] += 1
        item = Outcome(
            ticket=self.egress.ticket(),
            key=task.frame.key,
            model=task.model,
            tries=task.tries,
            status=status,
            reason=reason,
            body=body,
            late=True,
        )
        self.egress.send(now, item)

    def expire(self, now: float, served: Callable[[], set[str]]) -> None:
        """Close what has not answered at its deadline, each with the reason; `served()`: models that have a session."""
        for frame in list(self.timetable.due(now)):
            for task in list(frame.tasks.values()):
                if task.state < DONE:
                    reason = _why_late(task, task.model in served())
                    task.expired = True
                    self.finish(now, task, "expired", reason)

    # --- the join's word ---------------------------------------------------------------------------------------------

    def jack(self, now: float, message: Jack) -> list[OpenFrame]:
        """Take the join's acks; the frames whose tasks may now be queued (they had been sent again)."""
        if message.epoch != self.epoch:
            self.counts["stale_total", "jack"] += 1
            return []
        for known in message.known:
            self._learn(now, known)
        released = []
        for ticket in message.tickets:
            entry = self.egress.ack(now, ticket)
            if entry is None or entry.about is None:
                continue
            if isinstance(entry.about, Task):
                self._answer_committed(now, entry)
            elif self._row_committed(now, entry.about):
                released.append(entry.about)
        return released

    def _answer_committed(self, now: float, entry: Unacked) -> None:
        """The join is done with an answer. Of a frame whose row it has not acked it may have given the answer up as
        one that nobody expects: it is told again, until the row is acked or what is known of it settles the task."""
        if entry.about.frame.acked:
            self._settle_task(now, entry.about)
        else:
            self.egress.keep(now, entry)

    def _row_committed(self, now: float, frame: OpenFrame) -> bool:
        """The ledger has the frame's row: it is accepted. True when its tasks waited for this."""
        if frame.acked:
            return False
        self._accept(frame)
        waited = False
        for task in frame.tasks.values():
            if task.state == WAITING:
                task.state = QUEUED
                waited = True
        if frame.unsettled == 0:
            self._settle(now, frame)
        return waited

    def _learn(self, now: float, known: Known) -> None:
        """What the ledger already had: of a frame that was sent again, terminal models are not run again."""
        entry = self.egress.unacked.get(known.ticket)
        about = entry.about if entry is not None else None
        if isinstance(about, Task):  # its answer came second: what was committed first counts
            about.ok = known.statuses[about.model] == "ok" if about.model in known.statuses else about.ok
        elif isinstance(about, OpenFrame):
            self._learn_frame(now, about, known)

    def _learn_frame(self, now: float, frame: OpenFrame, known: Known) -> None:
        for model, count in known.suspects.items():
            if model in frame.tasks:
                frame.tasks[model].crashes = max(frame.tasks[model].crashes, count)
        for model, status in known.statuses.items():
            task = frame.tasks.get(model)
            if task is not None and task.state != SETTLED:
                task.ok = status == "ok"
                if task.state < DONE:
                    self.counts["tasks_total", model, status] += 1
                task.expired = status == "expired"
                self._settle_task(now, task)

    def closed(self, now: float, message: Closed) -> None:
        """The join closed frames by itself: their missing models are terminal there."""
        if message.epoch != self.epoch:
            self.counts["stale_total", "closed"] += 1
            return
        for item in message.items:
            frame = self.open.get(item.key)
            for model in item.models if frame is not None else ():
                task = frame.tasks.get(model) if frame is not None else None
                if task is None or task.state == SETTLED:
                    continue
                task.ok = False
                if task.state < DONE:
                    task.expired = True
                    self.counts["tasks_total", model, "expired"] += 1
                    self._settle_task(now, task)

    def joined(self, now: float, epoch: str) -> None:
        """A join came up: it is told every open frame and every answer that it has not committed."""
        entries = self.egress.restart(epoch)
        for frame in self.open.values():
            if frame.acked and frame.policy == "inspect":
                item = msgspec.structs.replace(
                    frame.expectation, ticket=self.egress.ticket(), budget=frame.deadline - now
                )
                self.egress.send(now, item, frame)
        for entry in entries:
            self.repeat(now, entry)

    def repeat(self, now: float, entry: Unacked) -> None:
        """Send an unacked item again, an expectation with the budget that is left."""
        item = entry.item
        if isinstance(item, Expectation) and isinstance(entry.about, OpenFrame):
            item = msgspec.structs.replace(item, budget=entry.about.deadline - now)
        self.egress.send(now, item, entry.about, entry.first_at)

    # --- settling ----------------------------------------------------------------------------------------------------

    def _settle_task(self, now: float, task: Task) -> None:
        if task.state == SETTLED:
            return
        task.state = SETTLED
        frame = task.frame
        frame.unsettled -= 1
        if frame.unsettled == 0 and frame.acked:
            self._settle(now, frame)

    def _settle(self, now: float, frame: OpenFrame) -> None:
        del self.open[frame.key]
        self.bytes -= frame.size
        self.timetable.remove(frame)
        frame.payload = None
        complete = frame.complete
        frame.tasks = {}  # no cycle is left: freed at once, without the garbage collector
        publisher = frame.publisher
        publisher.open -= 1
        self.counts["settled_total", publisher.name] += 1
        if publisher.policy == "inspect":
            self.settled[frame.key] = complete
            if len(self.settled) > SETTLED_KEPT:
                self.settled.popitem(last=False)
        self.tell_settled(publisher, frame.key.seq, complete)

    def tell_settled(self, publisher: Publisher, seq: int, complete: bool) -> None:
        (publisher.complete if complete else publisher.incomplete).append(seq)
        self.outbox.publishers[id(publisher)] = publisher


def _why_late(task: Task, served: bool) -> str:
    if task.state == LEASED:
        return "running"
    if not served:
        return "no_worker"
    return "lost" if task.tries else "queued"
