"""Carries out what the router decided: jobs, words to cameras and workers, batches for the join, copies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import zmq
import zmq.backend

from broker.doors import Doors
from broker.egress import Item
from broker.publisher import Publisher
from broker.roster import Session
from broker.routing import Router
from broker.task import OpenFrame, Task
from broker.wire import (
    COPY_THRESHOLD,
    Accepted,
    BootNote,
    Copy,
    Expect,
    Expectation,
    Job,
    LineText,
    Message,
    Note,
    Outcome,
    Result,
    Settled,
    SkipNote,
    Suspect,
    Suspicion,
    encode,
)

#: Items in one message to the join at most, and bytes of their bodies: well below BATCH_LIMIT.
BATCH_ITEMS: Final = 512
BATCH_BYTES: Final = 1 << 20

_MORE: Final = zmq.NOBLOCK | zmq.SNDMORE
#: The socket's own `send` without the convenience around it: half the time for small segments.
_send: Final = zmq.backend.Socket.send
_ENCODE: Final = msgspec.msgpack.Encoder().encode

Socket = zmq.Socket[bytes]


class Courier:
    """Sends, never waits. What can not be sent is counted and left to the protocol's repeats."""

    def __init__(self, doors: Doors, router: Router) -> None:
        self.doors = doors
        self.router = router
        self.join: bytes | None = None  # the join's identity at the egress
        self.stalled: deque[tuple[Session, Task]] = deque()  # jobs that their session's socket did not take

    def deliver(self, text: str, digest: str) -> None:
        """Empty the outbox and the egress."""
        router, outbox = self.router, self.router.outbox
        self._send_jobs(outbox.jobs)
        for identity, message in outbox.to_workers:
            self.send(self.doors.backend, identity, message)
        for identity, message in outbox.to_cameras:
            self.send(self.doors.frontend, identity, message)
        for publisher in outbox.publishers.values():
            self._tell(publisher)
        if outbox.line_wanted and self.join is not None:
            line = LineText(epoch=router.epoch, digest=digest, text=text)
            self.send(self.doors.egress, self.join, line)
        if router.egress.items:
            items, router.egress.items = router.egress.items, []
            self._tell_join(items)
        if outbox.copies:
            self._copy_all(outbox.copies)

    def send(self, socket: Socket, identity: bytes, message: Message) -> bool:
        """One message to one peer; False, and counted, when it is gone or its queue is full."""
        kind, header = encode(message)
        try:
            _send(socket, identity, _MORE)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            reason = "unreachable" if error.errno == zmq.EHOSTUNREACH else "full"
            self.router.counts["undelivered_total", type(message).__name__, reason] += 1
            return False
        _send(socket, kind, zmq.SNDMORE)
        _send(socket, header)
        return True

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _send_jobs(self, jobs: list[tuple[Session, Task]]) -> None:
        now = time.monotonic()
        if self.stalled:
            jobs = [*self.stalled, *jobs]
            self.stalled.clear()
        full: set[str] = set()
        for session, task in jobs:
            if session.id in full or not self._job(now, session, task):
                full.add(session.id)
                self.stalled.append((session, task))

    def _job(self, now: float, session: Session, task: Task) -> bool:
        """Send one job; True also when there is nothing to send any more. False: the socket is full, keep the order."""
        socket: Socket | None = session.socket
        frame = task.frame
        if socket is None or task.session is not session:
            return True
        header = frame.header
        job = Job(
            session=session.id,
            dseq=task.dseq,
            key=frame.key,
            tries=task.tries,
            encoding=header.encoding,
            shape=header.shape,
            budget=frame.deadline - now,
            stride=header.stride,
        )
        try:
            _send(socket, Job.TYPE, _MORE)
        except zmq.Again:
            return False
        _send(socket, _ENCODE(job), zmq.SNDMORE)
        payload: Any = b"" if frame.payload is None else frame.payload
        _send(socket, payload, 0, frame.size < COPY_THRESHOLD)
        return True

    def _copy_all(self, frames: list[OpenFrame]) -> None:
        """Copies for the recorder, as many as it takes right now; without a recorder that is asked once a turn."""
        takes = int(self.doors.copies.getsockopt(zmq.EVENTS)) & zmq.POLLOUT
        for frame in frames:
            if not takes or not self._copy(frame):
                self.router.counts["copies_dropped_total", frame.key.camera] += 1

    def _copy(self, frame: OpenFrame) -> bool:
        if frame.payload is None:
            return False
        header = frame.header
        copy = Copy(key=frame.key, encoding=header.encoding, shape=header.shape, stride=header.stride)
        try:
            _send(self.doors.copies, Copy.TYPE, _MORE)
        except zmq.Again:
            return False
        _send(self.doors.copies, _ENCODE(copy), zmq.SNDMORE)
        _send(self.doors.copies, frame.payload, 0, frame.size < COPY_THRESHOLD)
        return True

    # --- cameras -----------------------------------------------------------------------------------------------------

    def _tell(self, publisher: Publisher) -> None:
        """What was accepted and settled this turn, with the credit; a bare credit when only that grew."""
        credit, boot, identity = publisher.credit, publisher.boot, publisher.identity
        settled = publisher.complete or publisher.incomplete
        seen = publisher.latest
        if publisher.accepted or (credit > publisher.said_credit and not settled):
            message = Accepted(boot=boot, seqs=publisher.accepted, credit=credit, seen=seen)
            self.send(self.doors.frontend, identity, message)
        if settled:
            self.send(
                self.doors.frontend,
                identity,
                Settled(
                    boot=boot,
                    credit=credit,
                    complete=publisher.complete,
                    incomplete=publisher.incomplete,
                    seen=seen,
                ),
            )
        publisher.said_credit = credit
        publisher.accepted, publisher.complete, publisher.incomplete = [], [], []

    # --- join --------------------------------------------------------------------------------------------------------

    def _tell_join(self, items: list[Item]) -> None:
        for message in batches(self.router.epoch, items):
            if self.join is None or not self.send(self.doors.egress, self.join, message):
                self.router.join_unreachable()
                return


def batches(epoch: str, items: list[Item]) -> Iterator[Message]:
    """Items as messages of bounded size: what is expected before what resulted."""
    kinds: dict[type[Any], list[Any]] = {}
    for item in items:
        kinds.setdefault(type(item), []).append(item)
    for part in _parts(kinds.pop(Expectation, [])):
        yield Expect(epoch=epoch, items=part)
    for part in _parts(kinds.pop(Outcome, [])):
        yield Result(epoch=epoch, items=part)
    for part in _parts(kinds.pop(Suspicion, [])):
        yield Suspect(epoch=epoch, items=part)
    if kinds:
        for part in _parts(kinds.get(BootNote, [])):
            yield Note(epoch=epoch, boots=part)
        for part in _parts(kinds.get(SkipNote, [])):
            yield Note(epoch=epoch, skips=part)


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    size = 0
    for item in items:
        weight = len(item.body) + len(item.reason) if isinstance(item, Outcome) else 0
        size += weight
        if part and (len(part) >= BATCH_ITEMS or size > BATCH_BYTES):
            yield part
            part, size = [], weight
        part.append(item)
    if part:
        yield part
