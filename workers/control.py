"""The control thread of a worker process: registration, beats, answers; the only owner of the DEALER to the backend."""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Final

import zmq

from broker import log, silence
from broker.curve import Credentials
from broker.notifier import Notifier
from broker.silence import Silence
from broker.wire import (
    Beat,
    Drain,
    Endpoint,
    Message,
    Void,
    WireError,
    data_endpoint,
    decode_message,
)
from workers.connection import Connection
from workers.errors import WorkersError
from workers.member import Member
from workers.metrics import Metrics
from workers.outbox import Outbox
from workers.registration import REPEAT, Registration, State
from workers.session import Session
from workers.watchdog import Watchdog

logger = log.get(__name__)

#: Seconds between two beats; the broker misses a worker after 0.35.
BEAT: Final = 0.1
#: Seconds that closing a session's threads may take before they are left behind.
STOP_TIMEOUT: Final = 2.0


class Control:
    """The loop. `stopping` asks for an orderly end, `hurry` for one at once. When for `patience` seconds no broker has
    answered, and no session was open and connected, the log says so. `notifier`: who is told that the loop goes
    round."""

    _connection: Connection

    def __init__(
        self,
        name: str,
        backend: str,
        sessions: list[Session],
        metrics: Metrics,
        watchdog: Watchdog | None = None,
        patience: float = silence.LIMIT,
        credentials: Credentials | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._credentials = credentials
        self._notifier = notifier or Notifier()
        self.stopping = threading.Event()
        self.hurry = threading.Event()
        #: After `run`: a thread did not end and was left behind.
        self.stuck = False
        self._name = name
        self._backend = backend
        self._members = [Member(session, Registration(session.runner.options.name)) for session in sessions]
        self._metrics = metrics
        self._watchdog = watchdog
        self._outbox = Outbox()
        self._silence = Silence(patience)
        self._reached = False  # the last beat found a connection to take it
        self._beat_due = self._drain_due = 0.0

    def run(self, context: zmq.Context[Any], drain_timeout: float) -> None:
        """Serve until `stopping`, then drain for at most `drain_timeout` seconds. Raises WorkersError."""
        with Connection(context, self._backend, self._credentials) as self._connection:
            poller = zmq.Poller()
            try:
                for member in self._members:
                    member.session.start(context)
                    poller.register(member.session.answers, zmq.POLLIN)
                self._notifier.ready(time.monotonic())
                while not self.stopping.is_set() and not self._dismissed():
                    self._turn(poller)
                self._notifier.stopping()
                self._drain(poller, drain_timeout)
            finally:
                if self._watchdog is not None:
                    self._watchdog.cancel()
                for member in self._members:
                    member.registration.end()
                    self.stuck |= not member.session.stop(STOP_TIMEOUT)
                self._show_sessions()

    def _dismissed(self) -> bool:
        """The broker has let every session go for good: an operator stopped them, or another version took over."""
        return all(member.registration.state is State.ENDED for member in self._members)

    def _turn(self, poller: zmq.Poller) -> None:
        """Say what is due, wait for a message or the next beat, and pass on what came."""
        self._register(time.monotonic())
        self._beat(time.monotonic())
        waits = len(self._outbox) > 0 and self._connection.there()
        dealer = self._connection.socket
        poller.register(dealer, zmq.POLLIN | (zmq.POLLOUT if waits else 0))
        readable = dict(poller.poll(math.ceil(1000 * max(0.0, self._beat_due - time.monotonic()))))
        heard = bool(readable.get(dealer, 0) & zmq.POLLIN)
        if heard:
            self._listen()
        self._tell_silence(heard, time.monotonic())
        for member in self._members:
            if member.session.answers in readable:
                self._collect(member.session.answers)
        self._flush()

    def _register(self, now: float) -> None:
        for member in self._members:
            session = member.session
            # A session whose thread hangs would only be handed more frames to lose.
            healthy = session.exec_age(now) <= session.exec_timeout
            if healthy and member.registration.ready_due(now) and self._connection.send(member.ready(self._name)):
                member.registration.ready_sent(now)

    def _beat(self, now: float) -> None:
        if now < self._beat_due:
            return
        self._beat_due = now + BEAT
        self._notifier.alive(now)
        beats = [m.session.beat(m.registration.session, now) for m in self._members if m.registration.announced]
        if beats:
            self._reached = self._connection.send(Beat(worker=self._name, sessions=beats))
        if any(not member.session.alive() for member in self._members):
            raise WorkersError("a model thread ended with an error, see the log above; start the worker again")
        if self._watchdog is not None and all(m.session.exec_age(now) <= m.session.exec_timeout for m in self._members):
            self._watchdog.feed(now)

    def _tell_silence(self, heard: bool, now: float) -> None:
        """No beat is answered: with an open session the broker is there as long as the connection is."""
        if self.stopping.is_set():
            return
        served = self._reached and any(member.registration.state is State.OPEN for member in self._members)
        match self._silence.turn(heard or served, now):
            case "warn":
                logger.warning("no broker answers", backend=self._backend, sessions=len(self._members))
            case "back":
                logger.info("the broker answers again", backend=self._backend)

    def _listen(self) -> None:
        while (segments := self._connection.receive()) is not None:
            try:
                self._hear(decode_message(segments))
            except WireError as error:
                self._metrics.refused.labels(error.reason).inc()
                logger.warning("message refused", reason=error.reason, detail=str(error))

    def _hear(self, message: Message) -> None:
        match message:
            case Endpoint():
                self._open(message)
            case Void():
                self._void(message)
            case _:
                raise WireError("unexpected_type", f"{type(message).__name__} from the broker")

    def _open(self, message: Endpoint) -> None:
        for member in self._members:
            if member.registration.opened(message.session, message.port):
                member.session.open(message.session, data_endpoint(self._backend, message.port))
                member.reason = ""
                logger.info("session open", session=member.session.label, id=message.session, epoch=message.epoch)
        self._show_sessions()

    def _void(self, message: Void) -> None:
        for member in self._members:
            if member.registration.voided(message.session, message.reason, time.monotonic()):
                member.session.close()
                if message.reason != member.reason:
                    member.tell(message)
                member.reason = message.reason
        self._show_sessions()

    def _collect(self, answers: zmq.Socket[bytes]) -> None:
        while True:
            try:
                message = decode_message(answers.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            discarded = self._outbox.put(message)
            if discarded:
                self._metrics.discarded.inc(discarded)
                logger.warning("results discarded: the broker is away", count=discarded)

    def _flush(self) -> None:
        while (waiting := self._outbox.next()) is not None:
            message, count = waiting
            if not self._connection.send(message):
                return
            self._outbox.sent(count)

    def _drain(self, poller: zmq.Poller, timeout: float) -> None:
        """Ask for no more jobs, finish those that came, wait for the broker's word."""
        deadline = time.monotonic() + timeout
        for member in self._members:
            member.registration.drain()
        finished = False
        while not (finished and not len(self._outbox)):
            if self.hurry.is_set() or time.monotonic() >= deadline:
                logger.warning("ended before everything in flight was done", waiting=len(self._outbox))
                return
            self._ask_to_drain(time.monotonic())
            # Read before the turn that collects the answers: idle then means that they are in the outbox after it.
            finished = self._finished()
            self._turn(poller)

    def _ask_to_drain(self, now: float) -> None:
        draining = [m for m in self._members if m.registration.state is State.DRAINING]
        if not draining or now < self._drain_due:
            return
        self._drain_due = now + REPEAT
        sent = self._connection.send(Drain(worker=self._name, sessions=[m.registration.session for m in draining]))
        if not sent:  # nobody is there to say that all is done; what is in flight was lost with the broker
            for member in draining:
                member.registration.end()

    def _finished(self) -> bool:
        return all(m.registration.state is State.ENDED and m.session.idle() for m in self._members)

    def _show_sessions(self) -> None:
        names = {member.registration.model for member in self._members}
        for name in names:
            states = [member.registration.state for member in self._members if member.registration.model == name]
            self._metrics.sessions.labels(name).set(states.count(State.OPEN))
