"""The gate of a process that binds: the thread that answers ZAP, and what makes a socket one of its doors.

libzmq asks it about every connection to a door. While nobody answers, for whatever reason, nobody is let in.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import zmq
from zmq.utils import z85

from broker import curve, log
from broker.denials import Denials
from broker.keys import Certificate
from broker.line import KeyEntry, Security
from broker.security import DEAF, DOORS, Denial, Guard
from broker.socket_monitor import SocketMonitor

logger = log.get(__name__)

_ZAP: Final = "inproc://zeromq.zap.01"
_EVENTS: Final = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
#: Seconds that the thread has to end.
_END_WITHIN: Final = 2.0
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
        self._doors: dict[Socket, str] = {}  # the domain of each
        self._monitors: dict[str, SocketMonitor] = {}  # by domain
        self._leaving: dict[Socket, float] = {}

    def open(self, context: zmq.Context[Socket]) -> None:
        """Begin to answer. Raises zmq.ZMQError where the context has a gate already."""
        self._answers.start(context)

    def close(self) -> None:
        """Answer no more. The doors are closed by then."""
        self._answers.stop()
        for monitor in self._monitors.values():
            monitor.close()
        self._monitors.clear()
        self._doors.clear()
        self._leaving.clear()

    def guards(self, socket: Socket) -> bool:
        """Whether this is one of the doors: where not (inproc), there is no key to ask for."""
        return socket in self._doors

    def door(self, socket: Socket, endpoint: str, domain: str) -> None:
        """Before `socket` binds `endpoint`: make it a door for the whole life of the process."""
        if not curve.protects(endpoint):
            return
        curve.serve(socket, endpoint, domain, self._certificate)
        monitor = self._monitors[domain] = SocketMonitor(socket, endpoint, _EVENTS)
        monitor.open()
        self._doors[socket] = domain

    def passing_door(self, socket: Socket, endpoint: str, domain: str) -> None:
        """The same for a socket that comes and goes, and that watches its own connections."""
        curve.serve(socket, endpoint, domain, self._certificate)

    def who(self, socket: Socket, segment: zmq.Frame) -> str | None:
        """The public key of the sender of `segment`, checked anew: its key may be gone since it connected. None, and
        counted: refuse. "": it came from within this process (inproc)."""
        if socket not in self._doors:
            return ""
        door = self._doors[socket]
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
        for socket, domain in self._doors.items():
            if DOORS[domain] & less and domain in DEAF:
                shut_and_open(socket)
                self._leaving[socket] = time.monotonic() + _REOPEN_WITHIN

    def tend(self) -> None:
        """Once in a turn: count the handshakes that never got as far as the gate, and see those off who must leave."""
        for domain, monitor in self._monitors.items():
            # Read here, not by the thread that answers: libzmq's own thread waits for whoever watches a socket, and a
            # gate that died would stop all that goes through the doors.
            for event in monitor.events():
                self._denials.count("handshake", domain, event.endpoint)
        for socket, until in list(self._leaving.items()):
            socket.getsockopt(zmq.EVENTS)  # a socket that was shut ends its connections only while somebody calls it
            if time.monotonic() > until:
                del self._leaving[socket]

    def samples(self) -> Counter[tuple[str, ...]]:
        """Refusals by reason; callable from any thread."""
        return self._answers.denials.counts.copy() + self._denials.counts.copy()


def shut_and_open(socket: Socket) -> None:
    """End all connections of a bound socket, and wait for new ones. The old listener takes a moment to go.

    libzmq knows the door by the address that came of `*` or of an interface's name.
    """
    endpoint = socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
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
    """The thread. libzmq waits for it at each handshake; when it fails, whatever the reason, its socket is closed."""

    def __init__(self, guard: Guard) -> None:
        self.denials = Denials()
        self._guard = guard
        self._thread: threading.Thread | None = None
        self._commands: Socket | None = None
        self._ready = threading.Event()
        self._failure: zmq.ZMQError | None = None

    def start(self, context: zmq.Context[Socket]) -> None:
        address = f"inproc://answers-{id(self):x}"
        self._commands = context.socket(zmq.PAIR)
        self._commands.linger = 0
        self._commands.bind(address)
        self._ready.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._run, args=(context, address), name="gate", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure

    def stop(self) -> None:
        if self._commands is None or self._thread is None:
            return
        if self._thread.is_alive():
            self._commands.send(b"", zmq.NOBLOCK)
        self._thread.join(_END_WITHIN)
        self._commands.close(0)
        self._commands = self._thread = None

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self, context: zmq.Context[Socket], address: str) -> None:
        try:
            with context.socket(zmq.REP) as zap, context.socket(zmq.PAIR) as commands:
                zap.linger = commands.linger = 0
                if self._opened(zap, commands, address):
                    _serve(zap, commands, self.answer)
        except Exception:  # the sockets are closed by now, and so are the doors
            logger.exception("the gate has failed: nobody is let in; start this process again")

    def _opened(self, zap: Socket, commands: Socket, address: str) -> bool:
        try:
            commands.connect(address)
            zap.bind(_ZAP)
        except zmq.ZMQError as error:
            self._failure = zmq.ZMQError(error.errno, f"{error.strerror}: this context has a gate already")
        self._ready.set()
        return self._failure is None

    def answer(self, request: list[bytes]) -> list[bytes]:
        """The ZAP reply: 200 with the public key as the User-Id of all that comes, or 300: a peer that hears 400 never
        tries again, though its key may be listed a minute later."""
        if len(request) < 6:
            return self._deny(request[1] if len(request) > 1 else b"", "handshake", "", "")
        version, number, domain, address, _, mechanism, *credentials = request
        door = domain.decode("ascii", "replace")
        if (version, mechanism, len(credentials)) != (b"1.0", b"CURVE", 1) or len(credentials[0]) != 32:
            return self._deny(number, "handshake", door, address.decode("ascii", "replace"))
        public = z85.encode(credentials[0]).decode("ascii")
        reason = self._guard.denial(door, public)
        if reason is not None:
            return self._deny(number, reason, door, public)
        return [b"1.0", number, b"200", b"OK", public.encode(), b""]

    def _deny(self, number: bytes, reason: Denial, door: str, who: str) -> list[bytes]:
        self.denials.count(reason, door, who)
        return [b"1.0", number, b"300", reason.encode(), b"", b""]


def _serve(zap: Socket, commands: Socket, answer: Callable[[list[bytes]], list[bytes]]) -> None:
    """Answer until a command comes."""
    poller = zmq.Poller()
    poller.register(zap, zmq.POLLIN)
    poller.register(commands, zmq.POLLIN)
    while True:
        active = dict(poller.poll())
        if commands in active:
            return
        zap.send_multipart(answer(zap.recv_multipart()))
