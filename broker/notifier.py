"""What the service manager (systemd) hears of a process: that it serves, that its loop goes round, that it ends.

sd_notify(3) in a few lines: its library is C, and the packages around it need a compiler or are no longer kept. Each
word is a datagram to the socket that the service manager names in the environment. Where it names none, as on Windows,
nothing is said.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import MutableMapping
from typing import Final

from broker import log

logger = log.get(__name__)

READY: Final = "READY=1"
ALIVE: Final = "WATCHDOG=1"
STOPPING: Final = "STOPPING=1"
EXTEND: Final = "EXTEND_TIMEOUT_USEC"
#: How often in the time within which it is missed a loop says that it lives.
TIMES: Final = 4
#: Seconds until a word that was not taken is said again.
AGAIN: Final = 0.1


class Notifier:
    """Nothing here waits, raises, or has a thread: a loop that is stuck falls silent.

    `address`: path of a datagram socket, an abstract one with `@` for its first byte; "": nobody is told anything.
    `within`: seconds without a word after which the process is ended and started again; 0.0: it is not watched.
    """

    def __init__(self, address: str = "", within: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every = within / TIMES if within > 0.0 else math.inf
        self._due = math.inf
        self._owes_ready = False
        self._complained = False

    def ready(self, now: float) -> None:
        """The process serves from now on."""
        if self._address:
            self._owes_ready = True
            self._due = now
            self.alive(now)

    def alive(self, now: float) -> None:
        """The loop has gone round: to be called in every turn, by the loop itself."""
        if now < self._due:
            return
        if self._tell(READY if self._owes_ready else ALIVE):
            self._owes_ready = False
            self._due = now + self._every
        else:
            self._due = now + AGAIN

    def extend(self, seconds: float) -> None:
        """Starting takes up to so many seconds more."""
        self._tell(f"{EXTEND}={round(seconds * 1e6)}")

    def stopping(self) -> None:
        """The process is ending. It may go on to say that it lives while it finishes what it has."""
        self._owes_ready = False
        self._tell(STOPPING)

    def _tell(self, word: str) -> bool:
        """False: there is no room at the other end, or nobody."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(word.encode("ascii"), self._address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning("the service manager does not listen (NOTIFY_SOCKET)", word=word, error=str(error))
            return False
        return True


def from_environment(environ: MutableMapping[str, str] = os.environ) -> Notifier:
    """Who is to be told, by the service manager's word. It is taken out of the environment: a process that this one
    starts has nothing to say."""
    address = environ.pop("NOTIFY_SOCKET", "")
    within, process = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not hasattr(socket, "AF_UNIX") or len(address) < 2 or address[0] not in "/@":
        return Notifier()
    watched = within.isascii() and within.isdecimal() and process in ("", str(os.getpid()))
    return Notifier(address, int(within) / 1e6 if watched else 0.0)
