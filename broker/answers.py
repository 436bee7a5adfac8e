"""The thread that answers libzmq's questions about who may come in (ZAP). It logs nothing: that may fail, or block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import zmq
from zmq.utils import z85

from broker import curve
from broker.denials import Denials
from broker.security import Denial, Guard, plain

_ZAP: Final = "inproc://zeromq.zap.01"
#: Seconds that the thread has to end.
_END_WITHIN: Final = 2.0
#: Characters of an error that the log shows.
_ERROR: Final = 200

Socket = zmq.Socket[bytes]


class Answers:
    """The thread. libzmq waits for it at each handshake; when it ends, whatever the reason, its socket is closed."""

    def __init__(self, guard: Guard, denials: Denials) -> None:
        self._denials = denials
        self._guard = guard
        self._thread: threading.Thread | None = None
        self._commands: Socket | None = None
        self._ready = threading.Event()
        self._failure: zmq.ZMQError | None = None
        self._death: Exception | None = None

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

    def death(self) -> str | None:
        """What has ended the thread, in words; None: it lives, or was not to."""
        if self._thread is None or self._thread.is_alive():
            return None
        return repr(self._death)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self, context: zmq.Context[Socket], address: str) -> None:
        try:
            with context.socket(zmq.REP) as zap, context.socket(zmq.PAIR) as commands:
                zap.linger = commands.linger = 0
                if self._opened(zap, commands, address):
                    _serve(zap, commands, self.reply)
        except Exception as error:  # the sockets are closed by now, and so are the doors; the owner looks at `death`
            self._death = error

    def _opened(self, zap: Socket, commands: Socket, address: str) -> bool:
        try:
            commands.connect(address)
            zap.bind(_ZAP)
        except zmq.ZMQError as error:
            self._failure = zmq.ZMQError(error.errno, f"{error.strerror}: this context has a gate already")
        self._ready.set()
        return self._failure is None

    def reply(self, request: list[bytes]) -> list[bytes]:
        """What `answer` says, or 300: a request that we trip over is refused, and the next one is answered."""
        try:
            return self.answer(request)
        except Exception as error:  # whatever it is, all peers to come wait behind this one
            number, domain = [*request, b"", b"", b""][1:3]
            return self._deny(number, "fault", domain.decode("ascii", "replace"), "", "", error=repr(error)[:_ERROR])

    def answer(self, request: list[bytes]) -> list[bytes]:
        """The ZAP reply: 200 with the public key as the User-Id of all that comes, or 300: a peer that hears 400 never
        tries again, though its key may be listed a minute later."""
        if len(request) < 6:
            return self._deny(request[1] if len(request) > 1 else b"", "handshake", "", "", "")
        version, number, domain, address, _, mechanism, *credentials = request
        if (version, domain, mechanism) == (b"1.0", curve.PLAIN, b"NULL"):
            return [b"1.0", number, b"200", b"OK", b"", b""]  # a door without keys shares our context: not ours to shut
        door, at = domain.decode("ascii", "replace"), address.decode("ascii", "replace")[:64]
        if (version, mechanism, len(credentials)) != (b"1.0", b"CURVE", 1) or len(credentials[0]) != 32:
            return self._deny(number, "handshake", door, at, "")
        public = z85.encode(credentials[0]).decode("ascii")
        reason = self._guard.denial(door, public)
        if reason is not None:
            return self._deny(number, reason, door, at, self._guard.named(public))
        return [b"1.0", number, b"200", b"OK", public.encode(), b""]

    def _deny(self, number: bytes, reason: Denial, door: str, address: str, key: str, **more: str) -> list[bytes]:
        self._denials.count(reason, plain(door), address, key, **more)
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
