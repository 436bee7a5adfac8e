"""The gate of a process that binds: the thread that answers ZAP, and what makes a socket one of its doors.

libzmq asks it about every connection to a door. While nobody answers, for whatever reason, nobody is let in.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from broker import curve, log
from broker.denials import Denials
from broker.keys import Certificate
from broker.line import KeyEntry, Security
from broker.security import DEAF, DOORS, Denial, Guard

logger = log.get(__name__)

_ZAP: Final = "inproc://zeromq.zap.01"
_EVENTS: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
#: Seconds that an address may stay taken after its door was shut, and between two tries to open it again.
_REOPEN_WITHIN: Final = 1.0
_REOPEN_EVERY: Final = 0.002

Socket = zmq.Socket[bytes]


class Gate:
    """Open it before the first door binds, close it after the last one. A context has one gate at most.

    `fixed`: the keys came from flags; no line file changes them. All but the answering happens in the owner's thread.
    """

    def __init__(self, certificate: Certificate, keys: Mapping[str, KeyEntry], *, fixed: bool = False) -> None:
        self.guard = Guard(keys)
        self._certificate = certificate
        self._fixed = fixed
        self._listed: Mapping[str, KeyEntry] = keys
        self._answers = Answers(self.guard)
        self._denials = Denials()
        self._doors: dict[Socket, tuple[str, str]] = {}  # the domain and address of those that are watched
        self._opened = 0

    def open(self, context: zmq.Context[Socket]) -> None:
        """Begin to answer. Raises zmq.ZMQError where the context has a gate already."""
        self._answers.start(context)

    def close(self) -> None:
        """Answer no more."""
        self._answers.stop()
        self._doors.clear()

    def guards(self, socket: Socket) -> bool:
        """Whether this is one of the doors: where not (inproc), there is no key to ask for."""
        return socket in self._doors

    def door(self, socket: Socket, endpoint: str, domain: str) -> None:
        """Before `socket` binds `endpoint`: make it a door for the whole life of the process."""
        if not curve.protects(endpoint):
            return
        curve.serve(socket, endpoint, domain, self._certificate)
        address = f"inproc://gate-{id(self):x}-{self._opened}"
        self._opened += 1
        socket.monitor(address, _EVENTS)
        self._answers.watch(address, domain)
        self._doors[socket] = domain, endpoint

    def passing_door(self, socket: Socket, endpoint: str, domain: str) -> None:
        """The same for a socket that comes and goes, and that watches its own connections."""
        curve.serve(socket, endpoint, domain, self._certificate)

    def who(self, socket: Socket, segment: zmq.Frame) -> str | None:
        """The public key of the sender of `segment`, checked anew: its key may be gone since it connected. None, and
        counted: refuse. "": it came from within this process (inproc)."""
        if socket not in self._doors:
            return ""
        door, _ = self._doors[socket]
        public = str(segment.get("User-Id"))
        if self.guard.denial(door, public) is None:
            return public
        self._denials.count("removed_key", door, public)
        return None

    def may_be(self, public: str, camera: str) -> bool:
        """Whether the sender with this key may speak as `camera`; no, and counted, for another's name."""
        if not public or self.guard.may_be(public, camera):
            return True
        self._denials.count("wrong_camera", "frontend", f"{public} as {camera}")
        return False

    def renew(self, security: Security | None) -> None:
        """From now on the keys of this line. Who only receives through a door is sent away from it when a key of its
        role is gone, and knocks again."""
        if security is None or self._fixed or security.keys == self._listed:
            return
        self._listed = security.keys
        less = self.guard.renew(security.keys)
        logger.info("keys renewed", keys=len(security.keys))
        for socket, (domain, endpoint) in self._doors.items():
            if DOORS[domain] & less and domain in DEAF:
                _shut_and_open(socket, endpoint)

    def samples(self) -> Counter[tuple[str, ...]]:
        """Refusals by reason; callable from any thread."""
        return self._answers.denials.counts.copy() + self._denials.counts.copy()


def _shut_and_open(socket: Socket, endpoint: str) -> None:
    """End all connections of a bound socket, and wait for new ones. The old listener takes a moment to go."""
    socket.unbind(endpoint)
    end = time.monotonic() + _REOPEN_WITHIN
    while True:
        try:
            socket.bind(endpoint)
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or time.monotonic() > end:
                raise
        time.sleep(_REOPEN_EVERY)


class Answers:
    """The thread. libzmq waits for it at each handshake; it watches the doors for handshakes that never got so far."""

    def __init__(self, guard: Guard) -> None:
        self.denials = Denials()
        self._guard = guard
        self._thread: threading.Thread | None = None
        self._commands: Socket | None = None
        self._ready = threading.Event()
        self._failure: zmq.ZMQError | None = None
        self._doors: dict[Socket, str] = {}

    def start(self, context: zmq.Context[Socket]) -> None:
        address = f"inproc://answers-{id(self):x}"
        self._commands = context.socket(zmq.PAIR)
        self._commands.linger = 0
        self._commands.bind(address)
        self._ready.clear()
        self._thread = threading.Thread(target=self._run, args=(context, address), name="gate", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure

    def stop(self) -> None:
        if self._commands is None or self._thread is None:
            return
        self._say(b"")
        self._thread.join()
        self._commands.close(0)
        self._commands = self._thread = None

    def watch(self, address: str, domain: str) -> None:
        """Look at the events of the door whose monitor is at `address`."""
        self._say(address.encode(), domain.encode())

    def _say(self, *segments: bytes) -> None:
        assert self._commands is not None
        try:
            self._commands.send_multipart(segments, zmq.NOBLOCK)
        except zmq.Again:  # the thread has ended: nobody is let in any more, which is all that can be said
            logger.error("the gate does not answer: nobody is let in; start this process again")

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self, context: zmq.Context[Socket], address: str) -> None:
        with context.socket(zmq.REP) as zap, context.socket(zmq.PAIR) as commands:
            try:
                zap.linger = commands.linger = 0
                commands.connect(address)
                zap.bind(_ZAP)
            except zmq.ZMQError as error:
                self._failure = zmq.ZMQError(error.errno, f"{error.strerror}: this context has a gate already")
                return
            finally:
                self._ready.set()
            try:
                self._serve(context, zap, commands)
            except Exception:
                logger.exception("the gate has failed: nobody is let in; start this process again")
            finally:
                for monitor in self._doors:
                    monitor.close(0)
                self._doors.clear()

    def _serve(self, context: zmq.Context[Socket], zap: Socket, commands: Socket) -> None:
        poller = zmq.Poller()
        poller.register(zap, zmq.POLLIN)
        poller.register(commands, zmq.POLLIN)
        while True:
            active = dict(poller.poll())
            if zap in active:
                zap.send_multipart(self.answer(zap.recv_multipart()))
            for monitor, door in self._doors.items():
                if monitor in active:
                    self._note(parse_monitor_message(monitor.recv_multipart()), door)
            if commands in active:
                match commands.recv_multipart():
                    case [address, domain]:
                        poller.register(self._monitor(context, address.decode(), domain.decode()), zmq.POLLIN)
                    case _:
                        return

    def answer(self, request: list[bytes]) -> list[bytes]:
        """The ZAP reply: 200 with the public key as the User-Id of all that comes, or 400."""
        if len(request) < 6:
            return self._deny(request[1] if len(request) > 1 else b"", "no_curve", "", "")
        version, number, domain, address, _, mechanism, *credentials = request
        door = domain.decode("ascii", "replace")
        if (version, mechanism, len(credentials)) != (b"1.0", b"CURVE", 1) or len(credentials[0]) != 32:
            return self._deny(number, "no_curve", door, address.decode("ascii", "replace"))
        public = z85.encode(credentials[0]).decode("ascii")
        reason = self._guard.denial(door, public)
        if reason is not None:
            return self._deny(number, reason, door, public)
        return [b"1.0", number, b"200", b"OK", public.encode(), b""]

    def _deny(self, number: bytes, reason: Denial, door: str, who: str) -> list[bytes]:
        self.denials.count(reason, door, who)
        return [b"1.0", number, b"400", reason.encode(), b"", b""]

    def _monitor(self, context: zmq.Context[Socket], address: str, domain: str) -> Socket:
        socket: Socket = context.socket(zmq.PAIR)
        socket.linger = 0
        socket.connect(address)
        self._doors[socket] = domain
        return socket

    def _note(self, event: Mapping[str, Any], door: str) -> None:
        mismatch = event["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and (
            event["value"] == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
        )
        endpoint = event["endpoint"].decode("utf-8", "replace")
        self.denials.count("no_curve" if mismatch else "handshake", door, endpoint)
