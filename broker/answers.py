"""The thread that answers libzmq's questions about who may come in (ZAP)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import zmq
from zmq.utils import z85

from broker import log
from broker.denials import Denials
from broker.security import Denial, Guard, plain

logger = log.get(__name__)

_ZAP: Final = "inproc://zeromq.zap.01"
#: Seconds that the thread has to end.
_END_WITHIN: Final = 2.0

Socket = zmq.Socket[bytes]


class Answers:
    """The thread. libzmq waits for it at each handshake; when it fails, whatever the reason, its socket is closed."""

    def __init__(self, guard: Guard, denials: Denials) -> None:
        self._denials = denials
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
            return self._deny(request[1] if len(request) > 1 else b"", "handshake", "", "", "")
        version, number, domain, address, _, mechanism, *credentials = request
        door, at = domain.decode("ascii", "replace"), address.decode("ascii", "replace")[:64]
        if (version, mechanism, len(credentials)) != (b"1.0", b"CURVE", 1) or len(credentials[0]) != 32:
            return self._deny(number, "handshake", door, at, "")
        public = z85.encode(credentials[0]).decode("ascii")
        reason = self._guard.denial(door, public)
        if reason is not None:
            return self._deny(number, reason, door, at, self._guard.named(public))
        return [b"1.0", number, b"200", b"OK", public.encode(), b""]

    def _deny(self, number: bytes, reason: Denial, door: str, address: str, key: str) -> list[bytes]:
        self._denials.count(reason, plain(door), address, key)
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
