"""What comes in at the broker's doors: received, looked at by the gate, decoded, and passed on to the router."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Any, Final

import zmq

from broker import desk, log, wire
from broker.courier import Courier
from broker.doors import Doors
from broker.gate import Gate
from broker.in_force import InForce
from broker.log_budget import LogBudget
from broker.routing import Router
from broker.segments import discard, payload_of, rest_of
from broker.wire import WireError

logger = log.get(__name__)

#: Messages taken from one socket in one turn at most, so that no peer keeps the others waiting.
BURST: Final = 256

Socket = zmq.Socket[bytes]
#: Takes the sender's identity, its decoded message, all its segments, and its public key ("": nobody asked for one).
Handler = Callable[[bytes, Any, list[zmq.Frame], str], None]


class Reception:
    """Waits for nothing. Bytes that are no message are refused and counted."""

    def __init__(
        self,
        doors: Doors,
        router: Router,
        courier: Courier,
        in_force: InForce,
        log_budget: LogBudget,
        gate: Gate | None,
    ) -> None:
        #: Session -> public key, of READYs since it was last cleared.
        self.ready_from: dict[str, str] = {}
        self._doors = doors
        self._router = router
        self._courier = courier
        self._in_force = in_force
        self._log_budget = log_budget
        self._gate = gate

    def take(self, active: Container[Socket]) -> int:
        """Take what waits at the doors that are `active`, up to a burst each, and one message of an operator. Returns
        how many others there were."""
        doors = self._doors
        messages = 0
        if doors.frontend in active:
            messages += self._drain(
                doors.frontend, self._from_camera, self._refuse_camera, self._router.admission.ignores
            )
        if doors.backend in active:
            ignores = self._router.dispatcher.registrar.ignores
            messages += self._drain(doors.backend, self._from_worker, self._refuse, ignores, self._hears)
        if doors.egress in active:
            messages += self._drain(doors.egress, self._from_join, self._refuse)
        if doors.control in active:
            self._from_operator()
        return messages

    def _drain(
        self,
        socket: Socket,
        handle: Handler,
        refuse: Callable[[bytes, WireError], None],
        ignores: Callable[[float, bytes], bool] | None = None,
        hears: Callable[[bytes, zmq.Frame], bool] | None = None,
    ) -> int:
        """Take what waits, up to a burst; bytes that are no message are refused, and the next one is taken.

        `ignores`: whether to throw a message away because of its sender; `hears`: whether to look into it, by its
        sender and its first segment. Returns how many there were.
        """
        for taken in range(BURST):
            try:
                identity = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return taken
            if ignores is not None and ignores(time.monotonic(), identity):
                discard(socket)
                continue
            segments = rest_of(socket)
            if hears is not None and not hears(identity, segments[0]):
                continue
            try:
                public = "" if self._gate is None else self._gate.who(socket, segments[0])
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
        if self._gate is not None and not self._is_own_name(self._gate, identity, message, segments[0], public):
            return
        if type(message) is not wire.Frame:
            self._router.from_camera(now, identity, message)
            return
        payload, size = payload_of(message, segments)
        head = payload if isinstance(payload, bytes) else payload.buffer
        self._router.frame(now, identity, message, payload, head, size)

    def _is_own_name(self, gate: Gate, identity: bytes, message: Any, segment: zmq.Frame, public: str) -> bool:
        """Whether the sender's key may speak as the camera that the message names; if not, it is told."""
        key = getattr(message, "key", None)
        camera = key.camera if key is not None else getattr(message, "camera", None)
        if camera is None:
            return True
        if gate.may_be(segment, public, camera):
            return True
        self._router.admission.refuse(identity, "forbidden", f"camera {camera[:64]!r}", key)
        return False

    def _hears(self, identity: bytes, first: zmq.Frame) -> bool:
        """Not the READYs and BEATs of who sends too many of them: thousands a second, decoded, are time that the line
        lacks."""
        if len(first) != 1:
            return True
        kind, registrar = first.bytes, self._router.dispatcher.registrar
        if kind == wire.Ready.TYPE:
            return registrar.hears(time.monotonic(), identity)
        return kind != wire.Beat.TYPE or registrar.heeds(time.monotonic(), identity)

    def _from_worker(self, identity: bytes, message: Any, _: list[zmq.Frame], public: str) -> None:
        if public and type(message) is wire.Ready:
            self.ready_from[message.session] = public
        self._router.from_worker(time.monotonic(), identity, message)

    def _from_join(self, identity: bytes, message: Any, _: list[zmq.Frame], __: str) -> None:
        self._courier.join = identity
        self._router.from_join(time.monotonic(), message)

    def _refuse_camera(self, identity: bytes, error: WireError) -> None:
        self._router.admission.refuse(identity, error.reason, error.detail)

    def _refuse(self, _: bytes, error: WireError) -> None:
        self._router.counts["refused_total", error.reason] += 1
        if self._log_budget.may_log():
            logger.warning("message refused", reason=error.reason, detail=error.detail)

    # --- operators ---------------------------------------------------------------------------------------------------

    def _from_operator(self) -> None:
        socket = self._doors.control
        identity, *frames = socket.recv_multipart(copy=False)
        if self._gate is not None and self._gate.who(socket, frames[0]) is None:
            return
        try:
            answer = self._answer(wire.decode_message([frame.bytes for frame in frames]))
        except WireError as error:
            self._router.counts["refused_total", error.reason] += 1
            return
        self._courier.send(socket, identity.bytes, answer)

    def _answer(self, message: wire.Message) -> wire.Message:
        match message:
            case wire.Reload():
                changes, errors = self._in_force.reload(message.text, message.versions)
                return wire.Reloaded(digest=self._in_force.digest, changes=changes, errors=errors)
            case wire.List():
                return desk.listed(self._router, message)
            case wire.Stop():
                if self._log_budget.may_log():
                    logger.info("stop asked for", workers=message.workers[:8], models=message.models[:8])
                return desk.stop(self._router, time.monotonic(), message)
            case _:
                raise WireError("unknown_type", f"{type(message).__name__} is no message of an operator")
