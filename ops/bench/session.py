"""A lean worker: real sessions (READY, PULL, DONE, BEAT) that look at no picture and answer a small fixed result."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack

import msgspec
import zmq
from msgspec import Struct

from broker import curve
from broker.curve import Credentials
from broker.wire import (
    COPY_THRESHOLD,
    Answer,
    Beat,
    Done,
    Drain,
    Endpoint,
    Job,
    Ready,
    SessionBeat,
    Void,
    data_endpoint,
    decode,
    decode_message,
    encode,
)
from ops.bench.board import Board, Slot
from ops.bench.stream import BURST, age_of, open_context
from workers import heap

BEAT_SECONDS = 0.1
#: What a detector says of a picture with one object.
BODY = msgspec.msgpack.encode(
    {
        "task": "detect",
        "detections": [
            {"class": 0, "name": "part", "score": 0.82, "box": [10.0, 20.0, 110.0, 220.0], "area": 20000.0},
        ],
        "timings": {"wait": 0.0, "decode": 0.0, "preprocess": 0.0, "inference": 0.0, "postprocess": 0.0, "batch": 1},
    }
)


class LeanWorker(Struct, frozen=True, kw_only=True, tag=True):
    """A worker process with one session per model in a single thread, each granting `window` jobs ahead.

    `service`: seconds that it takes for each job, one after the other; at most a third of what the broker waits for a
    beat.
    """

    backend: str
    models: list[str]
    window: int
    max_batch: int
    hwm: int
    io_threads: int
    size: int
    name: str = "lean"
    timed: bool = False
    service: float = 0.0
    credentials: Credentials | None = None

    def run(self, board: Board) -> None:
        """Answer until the board says stop."""
        heap.keep()
        with open_context(self.io_threads) as context, ExitStack() as stack:
            control = stack.enter_context(context.socket(zmq.DEALER))
            control.rcvhwm = control.sndhwm = 0
            curve.call(control, self.backend, self.credentials)
            control.connect(self.backend)
            sessions = [
                stack.enter_context(_Session(self, model, control, context, Slot.RECEIVED + number))
                for number, model in enumerate(self.models)
            ]
            _Loop(self, control, sessions, board).run()


class _Session:
    """One session: its PULL, and how far it is in its jobs."""

    def __init__(
        self,
        worker: LeanWorker,
        model: str,
        control: zmq.Socket[bytes],
        context: zmq.Context[zmq.Socket[bytes]],
        slot: int,
    ) -> None:
        self._worker = worker
        self._model = model
        self._control = control
        self._context = context
        self._slot = slot
        self._copy = worker.size < COPY_THRESHOLD

    def __enter__(self) -> _Session:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.data.close()

    def _begin(self) -> None:
        self.session = secrets.token_hex(6)
        self.data = self._context.socket(zmq.PULL)
        self._connected = False
        self.done = 0
        self.last = 0

    def renew(self) -> None:
        """The broker has given this session up, because this process was too slow, say: begin another one."""
        self.data.close()
        self._begin()
        self.register()

    @property
    def grant(self) -> int:
        """The highest dseq that this session takes."""
        return self.last + self._worker.window

    def register(self) -> None:
        ready = Ready(
            worker=self._worker.name,
            session=self.session,
            model=self._model,
            sha256="0" * 64,
            max_batch=self._worker.max_batch,
            exec_timeout=max(0.5, 10 * self._worker.service) if self._worker.service else 2.0,
            grant=self.grant,
            depth=self._worker.max_batch,
        )
        self._control.send_multipart(encode(ready))

    def connect(self, endpoint: Endpoint) -> None:
        """Open the data socket; a repeated ENDPOINT changes nothing."""
        if not self._connected:
            self.data.rcvhwm = self._worker.hwm
            curve.call(self.data, self._worker.backend, self._worker.credentials)
            self.data.connect(data_endpoint(self._worker.backend, endpoint.port))
            self._connected = True

    def answer(self, board: Board) -> None:
        """Take what waits, at most a burst, and answer all of it in one DONE."""
        items: list[Answer] = []
        while len(items) < (1 if self._worker.service else BURST):
            try:
                kind = self.data.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            job: Job = decode(kind, self.data.recv())
            items.append(self._look_at(job, self.data.recv(copy=self._copy), board))
            if self._worker.service:
                time.sleep(self._worker.service)
        if items:
            self.done += len(items)
            board.counts[self._slot] += len(items)
            done = Done(session=self.session, grant=self.grant, model=self._model, items=items)
            self._control.send_multipart(encode(done))

    def _look_at(self, job: Job, payload: bytes | zmq.Frame, board: Board) -> Answer:
        if self._worker.timed:
            board.add_latency(age_of(payload))
        self.last = max(self.last, job.dseq)
        return Answer(dseq=job.dseq, key=job.key, status="ok", body=BODY)

    def beat(self) -> SessionBeat:
        return SessionBeat(session=self.session, started=self.done, completed=self.done, exec_age=0.0, grant=self.grant)


class _Loop:
    """The poll loop of the worker: control socket, data sockets, beats."""

    def __init__(self, worker: LeanWorker, control: zmq.Socket[bytes], sessions: list[_Session], board: Board) -> None:
        self._worker = worker
        self._control = control
        self._sessions = {session.session: session for session in sessions}
        self._board = board
        self._beat_due = 0.0

    def run(self) -> None:
        for session in self._sessions.values():
            session.register()
        poller = self._poller()
        while not self._board.stopped:
            readable = dict(poller.poll(50))
            for session in self._sessions.values():
                if session.data in readable:
                    session.answer(self._board)
            if self._control in readable and self._listen():
                poller = self._poller()
            self._beat(time.monotonic())
        self._control.linger = 200
        self._control.send_multipart(encode(Drain(worker=self._worker.name, sessions=list(self._sessions))))

    def _poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        for socket in (self._control, *(session.data for session in self._sessions.values())):
            poller.register(socket, zmq.POLLIN)
        return poller

    def _listen(self) -> bool:
        """Take what the broker says; True: a session is another one."""
        renewed = False
        while True:
            try:
                message = decode_message(self._control.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return renewed
            session = self._sessions.get(message.session)
            if session is None:
                continue
            match message:
                case Endpoint():
                    session.connect(message)
                case Void():
                    self._board.counts[Slot.VOIDED] += 1
                    session.renew()
                    self._sessions = {one.session: one for one in self._sessions.values()}
                    renewed = True

    def _beat(self, now: float) -> None:
        if now >= self._beat_due:
            self._beat_due = now + BEAT_SECONDS
            beats = [session.beat() for session in self._sessions.values()]
            self._control.send_multipart(encode(Beat(worker=self._worker.name, sessions=beats)))
