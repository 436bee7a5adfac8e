"""The broker process: sockets on one side, the router's decisions on the other, one poll loop between them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import psutil
import zmq

from broker import desk, gauges, log, wire
from broker import line as line_file
from broker.bucket import Bucket
from broker.changes import changes
from broker.courier import Courier
from broker.doors import Doors
from broker.gate import Gate
from broker.line import Line, LineError
from broker.memory import Memory
from broker.notifier import Notifier
from broker.pace import Pace
from broker.quarantine import Quarantine
from broker.roster import FOR_GOOD, Session
from broker.routing import Router
from broker.segments import discard, payload_of, rest_of
from broker.troubles import Troubles, present
from broker.wire import WireError

logger = log.get(__name__)

#: Messages taken from one socket in one turn at most, so that no peer keeps the others waiting.
BURST: Final = 256
#: Longest wait for a message, in seconds: `stop` and silent peers are noticed within it.
LONGEST_WAIT: Final = 0.05
#: While at least so many messages a second come, turns begin at least so many seconds apart: under load a turn costs
#: much less for each message if it takes in several.
BUSY: Final = 2000.0
GATHER: Final = 0.001
#: Seconds between two looks for what an operator must hear of.
LOOK_EVERY: Final = 1.0
#: Reasons for which sessions end that are no trouble.
ORDERLY: Final = FOR_GOOD | {"drained", "left_out"}
#: Characters of a line file that a running broker takes: to read one it stands still, for a second at most.
RELOAD_LIMIT: Final = 1 << 17
#: Line files in a second, and at once, that it reads.
RELOADS: Final = 0.2
RELOADS_AT_ONCE: Final = 5.0
#: Log lines that peers can cause in a second, and at once; more are counted.
LINES: Final = 5.0
LINES_AT_ONCE: Final = 50.0
#: Longest wait while a session's data socket has no peer yet, in seconds.
OPENING_WAIT: Final = 0.002

Socket = zmq.Socket[bytes]
#: Takes the sender's identity, its decoded message, all its segments, and its public key ("": nobody asked for one).
Handler = Callable[[bytes, Any, list[zmq.Frame], str], None]


class BrokerServer:
    """Routes frames for one line. `run` opens, serves and closes everything in the calling thread.

    `context`: to be shared by all who meet over inproc, by default an own one; a ZAP handler of yours in it is asked
    about our doors as well (domain `plain`). `text`: the line file's text as the join shall get it; made from `line` by
    default. `versions`: model -> sha256 of the version that is wanted. `gate`: asks everybody for a key (CURVE).
    `notifier`: who is told that the loop goes round.
    """

    def __init__(
        self,
        line: Line,
        *,
        text: str | None = None,
        context: zmq.Context[Socket] | None = None,
        quarantine: Path | None = None,
        versions: Mapping[str, str] = MappingProxyType({}),
        gate: Gate | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.line = line
        self.text = line_file.to_toml(line) if text is None else text
        self.digest = line_file.digest(self.text)
        self.epoch = secrets.token_hex(6)
        self.router = Router(line, self.digest, self.epoch, time.monotonic())
        self.router.dispatcher.want(versions)
        self.gate = gate
        self.doors = Doors(line, context, gate)
        self.courier = Courier(self.doors, self.router)
        self.quarantine = Quarantine(quarantine)
        self.ready = threading.Event()
        self._pace = Pace(GATHER, BUSY)
        self._troubles = Troubles()
        self._look_at = 0.0
        self._lines = Bucket(LINES, LINES_AT_ONCE)
        self._reloads = Bucket(RELOADS, RELOADS_AT_ONCE)
        self._process = psutil.Process()
        self._ready_from: dict[str, str] = {}  # session -> public key, of this turn's READYs
        self._notifier = notifier or Notifier()
        self._should_stop = threading.Event()

    def stop(self) -> None:
        """Ask `run` to end; callable from any thread and from signal handlers."""
        self._should_stop.set()

    def run(self) -> None:
        """Serve until `stop`. Raises zmq.ZMQError when an endpoint can not be bound, GateError when the gate fails."""
        try:
            self.doors.open()
            logger.info(
                "broker open", frontend=self.line.endpoints.frontend, epoch=self.epoch, models=list(self.line.models)
            )
            self._memory = Memory(self._resident(), self.line.limits.queue_bytes)
            self.ready.set()
            self._notifier.ready(time.monotonic())
            while not self._should_stop.is_set():
                self._turn()
            self._notifier.stopping()
        finally:
            self.quarantine.close()
            self.doors.close()

    def _turn(self) -> None:
        self._gather()
        active = self.doors.poll(self._wait())
        began = time.monotonic()
        messages = 0
        if self.doors.frontend in active:
            messages += self._drain(self.doors.frontend, self._from_camera, self._refuse_camera)
        if self.doors.backend in active:
            messages += self._drain(self.doors.backend, self._from_worker, self._refuse, self._hears)
        if self.doors.egress in active:
            messages += self._drain(self.doors.egress, self._from_join, self._refuse)
        if self.doors.control in active:
            self._control()
        for session in self.doors.disconnected(active):
            self.router.lose(time.monotonic(), session, "disconnected")
        for session in self.doors.just_connected():
            self.router.connected(session)
        self.router.end_turn(time.monotonic())
        self._carry_out()
        if self.gate is not None:
            self.gate.tend()
        self._pace.turned(began, messages)
        self._notifier.alive(began)
        if began >= self._look_at:
            self._look_at = began + LOOK_EVERY
            self._complain(began)

    def _complain(self, now: float) -> None:
        troubles = (*present(self.router, now), *self._memory.troubles(self._resident()))
        for trouble in self._troubles.due(now, troubles):
            logger.warning(trouble.what, **dict(trouble.about))

    def _resident(self) -> int:
        return int(self._process.memory_info().rss)

    def _may_log(self) -> bool:
        """Whether there is room for a line that a peer has caused; counted if not."""
        if self._lines.take(time.monotonic()):
            return True
        self.router.counts["unlogged_total",] += 1
        return False

    def _gather(self) -> None:
        """Under load let messages gather; a line with time never waits here."""
        pause = self._pace.pause(time.monotonic())
        if pause > 0.0:
            time.sleep(pause)

    def _wait(self) -> float:
        """Seconds until something is to be done even if no message comes."""
        if self.doors.opening or self.doors.doubtful or self.courier.stalled:
            return OPENING_WAIT
        now = time.monotonic()
        deadline = self.router.next_deadline(now + LONGEST_WAIT)
        return LONGEST_WAIT if deadline is None else max(0.0, deadline - now)

    def samples(self) -> dict[tuple[str, ...], float]:
        """Counters and gauges, for `metrics.served`; callable from any thread."""
        return {**gauges.samples(self.router), **(self.gate.samples() if self.gate is not None else {})}

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _drain(
        self,
        socket: Socket,
        handle: Handler,
        refuse: Callable[[bytes, WireError], None],
        hears: Callable[[bytes, zmq.Frame], bool] | None = None,
    ) -> int:
        """Take what waits, up to a burst; bytes that are no message are refused, and the next one is taken.

        `hears`: whether to look into a message, by its sender and its first segment. Returns how many there were.
        """
        for taken in range(BURST):
            try:
                identity = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return taken
            if hears is not None and self._ignored(socket, identity):
                continue
            segments = rest_of(socket)
            if hears is not None and not hears(identity, segments[0]):
                continue
            try:
                public = "" if self.gate is None else self.gate.who(socket, segments[0])
                if public is None:
                    continue
                if len(segments) < 2:
                    raise WireError("segments", f"{len(segments)} segments, at least 2 expected")
                handle(identity, wire.decode(segments[0].bytes, segments[1].buffer), segments, public)
            except WireError as error:
                refuse(identity, error)
        return BURST

    def _from_camera(self, identity: bytes, message: Any, segments: list[zmq.Frame], public: str) -> None:
        now = time.monotonic()
        if self.gate is not None and not self._is_own_name(self.gate, identity, message, segments[0], public):
            return
        if type(message) is not wire.Frame:
            self.router.from_camera(now, identity, message)
            return
        payload, size = payload_of(message, segments)
        head = payload if isinstance(payload, bytes) else payload.buffer
        self.router.frame(now, identity, message, payload, head, size)

    def _is_own_name(self, gate: Gate, identity: bytes, message: Any, segment: zmq.Frame, public: str) -> bool:
        """Whether the sender's key may speak as the camera that the message names; if not, it is told."""
        key = getattr(message, "key", None)
        camera = key.camera if key is not None else getattr(message, "camera", None)
        if camera is None:
            return True
        if gate.may_be(segment, public, camera):
            return True
        self.router.admission.refuse(identity, "forbidden", f"camera {camera[:64]!r}", key)
        return False

    def _ignored(self, socket: Socket, identity: bytes) -> bool:
        """Whether the message whose identity was just read is thrown away because of its sender."""
        if not self.router.dispatcher.registrar.ignores(time.monotonic(), identity):
            return False
        discard(socket)
        return True

    def _hears(self, identity: bytes, first: zmq.Frame) -> bool:
        """Not the READYs and BEATs of who sends too many of them: thousands a second, decoded, are time that the line
        lacks."""
        if len(first) != 1:
            return True
        kind, registrar = first.bytes, self.router.dispatcher.registrar
        if kind == wire.Ready.TYPE:
            return registrar.hears(time.monotonic(), identity)
        return kind != wire.Beat.TYPE or registrar.heeds(time.monotonic(), identity)

    def _from_worker(self, identity: bytes, message: Any, _: list[zmq.Frame], public: str) -> None:
        if public and type(message) is wire.Ready:
            self._ready_from[message.session] = public
        self.router.from_worker(time.monotonic(), identity, message)

    def _from_join(self, identity: bytes, message: Any, _: list[zmq.Frame], __: str) -> None:
        self.courier.join = identity
        self.router.from_join(time.monotonic(), message)

    def _refuse_camera(self, identity: bytes, error: WireError) -> None:
        self.router.admission.refuse(identity, error.reason, error.detail)

    def _refuse(self, _: bytes, error: WireError) -> None:
        self.router.counts["refused_total", error.reason] += 1
        if self._may_log():
            logger.warning("message refused", reason=error.reason, detail=error.detail)

    # --- acting ------------------------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        outbox = self.router.outbox
        for session in outbox.opened:
            self._open_session(session)
        for session in outbox.closed:
            self.doors.close_session(session)
            self._tell_closed(session)
        for model, header, payload in outbox.quarantine:
            self.quarantine.keep(model, header, payload)
        self.courier.deliver(self.text, self.digest)
        outbox.clear()
        self._ready_from.clear()

    def _tell_closed(self, session: Session) -> None:
        if self._may_log():
            say = logger.info if session.lost_as in ORDERLY else logger.warning
            worker = session.worker.name
            say("session closed", id=session.id, model=session.model, worker=worker, reason=session.lost_as)

    def _open_session(self, session: Session) -> None:
        try:
            port = self.doors.open_session(session, self._ready_from.get(session.id, ""))
        except zmq.ZMQError as error:
            if self._may_log():
                ports = self.line.endpoints.sessions
                logger.error("no port is free for a session", session=session.id, error=str(error), sessions=ports)
            self.router.counts["refused_total", "no_port"] += 1
            self.router.lose(time.monotonic(), session, "no_port")
            return
        self.router.bound(session, port)

    # --- operator ----------------------------------------------------------------------------------------------------

    def _control(self) -> None:
        socket = self.doors.control
        identity, *frames = socket.recv_multipart(copy=False)
        if self.gate is not None and self.gate.who(socket, frames[0]) is None:
            return
        try:
            answer = self._answer(wire.decode_message([frame.bytes for frame in frames]))
        except WireError as error:
            self.router.counts["refused_total", error.reason] += 1
            return
        self.courier.send(socket, identity.bytes, answer)

    def _answer(self, message: wire.Message) -> wire.Message:
        match message:
            case wire.Reload():
                changes, errors = self._reload(message.text, message.versions)
                return wire.Reloaded(digest=self.digest, changes=changes, errors=errors)
            case wire.List():
                return desk.listed(self.router, message)
            case wire.Stop():
                if self._may_log():
                    logger.info("stop asked for", workers=message.workers[:8], models=message.models[:8])
                return desk.stop(self.router, time.monotonic(), message)
            case _:
                raise WireError("unknown_type", f"{type(message).__name__} is no message of an operator")

    def _reload(self, text: str, versions: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Take a new line file: what it changed, and what is wrong with it; if anything is, nothing was changed."""
        if len(text) > RELOAD_LIMIT:
            return [], [f"{len(text)} characters, limit {RELOAD_LIMIT} while the line runs: restart it with this file"]
        if not self._reloads.take(time.monotonic()):
            return [], ["too many line files at once: try again in 5 s"]
        try:
            line = line_file.parse(text)
        except LineError as error:
            return [], list(error.problems)
        allowed, refused = changes(self.line, line)
        if refused:
            return [], refused
        wanted = {**self._still_wanted(line), **versions}
        self.line, self.text, self.digest = line, text, line_file.digest(text)
        self.router.reload(line, self.digest, wanted)
        if self.gate is not None:
            self.gate.renew(line.security)
        logger.info("line file reloaded", digest=self.digest, changes=allowed)
        return allowed, []

    def _still_wanted(self, line: Line) -> dict[str, str]:
        """Of models that the new line describes as the old one did: who reloads may not have their files."""
        old = self.line.models
        same = [name for name, model in line.models.items() if name in old and old[name] == model]
        return {name: self.router.dispatcher.backlog(name).wanted for name in same}
