"""The broker's decisions: messages and `now` in, an outbox of actions out. No socket, no clock, no thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from broker.admission import Admission
from broker.dispatch import Dispatcher
from broker.egress import Egress
from broker.frames import Counts, Frames
from broker.line import Line
from broker.outbox import Outbox
from broker.roster import Session
from broker.wire import (
    PROTOCOL,
    Beat,
    Bye,
    Closed,
    Done,
    Drain,
    Frame,
    Hello,
    Jack,
    JoinHello,
    Message,
    Nack,
    Ready,
    Skip,
    WireError,
)

#: Seconds without a turn after which the broker itself is taken to have stood still.
_STANDSTILL: Final = 0.15
#: How often silent peers and lost items are looked for, in seconds.
_CHECK_EVERY: Final = 0.02
#: A join that did not say hello for so many seconds is gone; it does every second.
_JOIN_GONE_AFTER: Final = 5.0


class Router:
    """One broker's state. The server calls a method per message, then `end_turn`, then empties the outbox."""

    def __init__(self, line: Line, digest: str, epoch: str, now: float) -> None:
        self.line = line
        self.epoch = epoch
        self.counts: Counts = Counter()
        self.outbox = Outbox()
        self.egress = Egress()
        self.frames = Frames(epoch, self.egress, self.outbox, self.counts)
        self.dispatcher = Dispatcher(epoch, self.frames, self.outbox, self.counts, line.limits.sessions)
        self.admission = Admission(epoch, line, digest, self.frames, self.outbox, self.counts, self.dispatcher.pace)
        self._turn_at = now
        self._checked_at = now
        self._join_heard_at = now
        self._know_models()

    def _know_models(self) -> None:
        for model in self.line.models:
            self.dispatcher.backlog(model)

    # --- messages ----------------------------------------------------------------------------------------------------

    def frame(
        self, now: float, identity: bytes, header: Frame, payload: Any, head: bytes | memoryview, size: int
    ) -> None:
        """A frame with its payload, which may be any object that the server can send on."""
        frame = self.admission.frame(now, identity, header, payload, head, size)
        if frame is not None:
            self.outbox.copies.append(frame)
            self.dispatcher.queue(now, frame)

    def from_camera(self, now: float, identity: bytes, message: Message) -> None:
        """Any other message of a camera; raises WireError for a type that cameras do not send."""
        match message:
            case Hello():
                self.admission.hello(now, identity, message)
            case Skip():
                self.admission.skip(now, identity, message)
            case Bye():
                self.admission.bye(now, identity, message)
            case _:
                raise WireError("unknown_type", f"{type(message).__name__} is no message of a camera")

    def from_worker(self, now: float, identity: bytes, message: Message) -> None:
        match message:
            case Done():
                self.dispatcher.done(now, message)
            case Beat():
                self.dispatcher.beat(now, identity, message)
            case Ready():
                self.dispatcher.registrar.ready(now, identity, message)
            case Nack():
                self.dispatcher.nack(now, message)
            case Drain():
                self.dispatcher.drain(now, identity, message)
            case _:
                raise WireError("unknown_type", f"{type(message).__name__} is no message of a worker")

    def from_join(self, now: float, message: Message) -> None:
        self._join_heard_at = now
        match message:
            case Jack():
                for frame in self.frames.jack(now, message):
                    self.dispatcher.queue(now, frame)
            case Closed():
                self.frames.closed(now, message)
            case JoinHello():
                self._join_hello(now, message)
            case _:
                raise WireError("unknown_type", f"{type(message).__name__} is no message of a join")

    def _join_hello(self, now: float, message: JoinHello) -> None:
        if message.protocol != PROTOCOL:
            self.counts["refused_total", "protocol"] += 1
            return
        self.outbox.line_wanted = True
        if message.epoch != self.egress.join_epoch:
            self.frames.joined(now, message.epoch)

    # --- sessions' sockets -------------------------------------------------------------------------------------------

    def bound(self, session: Session, port: int) -> None:
        """The server has a data socket for this session."""
        self.dispatcher.endpoint(session, port)

    def connected(self, session: Session) -> None:
        """The session's data socket has its peer."""
        session.ready = not session.draining
        self.dispatcher.registrar.connected(session)

    def lose(self, now: float, session: Session, reason: str) -> None:
        """The server knows that this session is gone."""
        if self.dispatcher.roster.sessions.get(session.id) is session:
            self.dispatcher.lose(now, session, reason)

    # --- time --------------------------------------------------------------------------------------------------------

    def end_turn(self, now: float) -> None:
        """Deadlines, silent peers, repeats; then lease what waits and extend credit."""
        lag = now - self._turn_at
        self._turn_at = now
        if lag > _STANDSTILL:
            self.dispatcher.roster.forgive(lag)
            self.admission.forgive(lag)
            self._join_heard_at += lag
            self.counts["standstills_total",] += 1
        self.frames.expire(now, self.dispatcher.served)
        if now - self._checked_at >= _CHECK_EVERY:
            self._check(now)
        self.dispatcher.dispatch(now)
        self.admission.extend_credit(now)

    def _check(self, now: float) -> None:
        self._checked_at = now
        self.dispatcher.check(now)
        self.admission.check(now)
        if self.egress.join_epoch is None:
            return
        if now - self._join_heard_at > _JOIN_GONE_AFTER:
            self.egress.lost()
            return
        for entry in list(self.egress.repeat_due(now)):
            self.frames.repeat(now, entry)

    def join_unreachable(self) -> None:
        """The server could not send to the join: its socket is gone."""
        self.egress.lost()

    def next_deadline(self, horizon: float) -> float | None:
        """The next instant before `horizon` at which `end_turn` has something to do if no message comes, if any."""
        return self.frames.timetable.next(horizon)

    def reload(self, line: Line, digest: str, versions: Mapping[str, str] = MappingProxyType({})) -> None:
        """Routes and rules for later frames; what is open keeps what it was admitted with. `versions`: model -> sha256
        that is wanted; its sessions take over as soon as one is open."""
        self.line = line
        self.admission.line = line
        self.admission.digest = digest
        self.admission.refresh()
        self._know_models()
        self.dispatcher.want(versions)
        self.outbox.line_wanted = True
