"""The gate of a process that binds: the thread that answers ZAP, and what makes a socket one of its doors.

libzmq asks it about every connection to a door. While nobody answers, for whatever reason, nobody is let in.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import zmq

from broker import curve, log
from broker.answers import Answers
from broker.callers import Callers
from broker.denials import Denials
from broker.keys import Certificate
from broker.line import KeyEntry, Security
from broker.reopening import Reopening
from broker.security import DEAF, DOORS, Guard

logger = log.get(__name__)

Socket = zmq.Socket[bytes]


class GateError(Exception):
    """The thread that answers has ended: nobody comes in any more."""


def guarded(gate: Gate | None, socket: Socket, endpoint: str, domain: str) -> None:
    """Before `socket` binds `endpoint`: a door of `gate`, or, on a line without keys, one that asks for none."""
    if gate is not None:
        gate.door(socket, endpoint, domain)
    else:
        curve.plain(socket, endpoint)


class Gate:
    """Open it before the first door binds, close it before the first one closes. A context has one gate at most.

    `fixed`: the keys came from flags; no line file changes them. All but the answering happens in the owner's thread.
    """

    def __init__(self, certificate: Certificate, keys: Mapping[str, KeyEntry], *, fixed: bool = False) -> None:
        self.guard = Guard(keys)
        self._certificate = certificate
        self._fixed = fixed
        self._listed: Mapping[str, KeyEntry] = keys
        self._denials = Denials()
        self._answers = Answers(self.guard, self._denials)
        self._doors: dict[Socket, str] = {}  # the domain of each
        self._callers: dict[str, Callers] = {}  # by domain
        self._reopenings: dict[str, Reopening] = {}  # by domain

    def open(self, context: zmq.Context[Socket]) -> None:
        """Begin to answer. Raises zmq.ZMQError where the context has a gate already."""
        self._answers.start(context)

    def close(self) -> None:
        """Watch no more, answer no more; then close the doors: nobody gets in any more.

        In this order. A door that closes still tells of its connections' ends, and where nobody reads that, libzmq's
        thread waits, and closing waits for it.
        """
        for callers in self._callers.values():
            callers.monitor.close()
        self._answers.stop()
        self._callers.clear()
        self._doors.clear()
        self._reopenings.clear()
        self._denials.close()

    def guards(self, socket: Socket) -> bool:
        """Whether this is one of the doors: where not (inproc), there is no key to ask for."""
        return socket in self._doors

    def door(self, socket: Socket, endpoint: str, domain: str) -> None:
        """Before `socket` binds `endpoint`: make it a door for the whole life of the process."""
        if not curve.protects(endpoint):
            return
        curve.serve(socket, endpoint, domain, self._certificate)
        callers = self._callers[domain] = Callers(socket, endpoint)
        callers.monitor.open()
        self._doors[socket] = domain

    def passing_door(self, socket: Socket, endpoint: str, domain: str) -> None:
        """The same for a socket that comes and goes, and that watches its own connections."""
        curve.serve(socket, endpoint, domain, self._certificate)

    def watch(self, poller: zmq.Poller) -> None:
        """Once the doors are there: let `poller` wake whenever somebody knocks. Who was refused is asked for then; a
        peer that has gone is not known any more."""
        for callers in self._callers.values():
            poller.register(callers.monitor.pair, zmq.POLLIN)

    def who(self, socket: Socket, segment: zmq.Frame) -> str | None:
        """The public key of the sender of `segment`, checked anew: its key may be gone since it connected. None, and
        counted: refuse. "": it came from within this process (inproc)."""
        if socket not in self._doors:
            return ""
        door = self._doors[socket]
        public = str(segment.get("User-Id"))
        if self.guard.denial(door, public) is None:
            return public
        self._denials.count("removed_key", door, _address(segment), self.guard.named(public))
        return None

    def may_be(self, segment: zmq.Frame, public: str, camera: str) -> bool:
        """Whether the sender of `segment`, with this key, may speak as `camera`; no, and counted: it is another's."""
        if not public or self.guard.may_be(public, camera):
            return True
        self._denials.count("wrong_camera", "frontend", _address(segment), self.guard.named(public))
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
                self._reopenings.setdefault(domain, Reopening(socket, domain)).shut(time.monotonic())

    def tend(self) -> None:
        """Once in a turn: count the handshakes that never got as far as the gate, tell of refusals, see those off who
        must leave, and let in who knocks again. Raises GateError: the process is of no use any more, and must end."""
        death = self._answers.death()
        if death is not None:
            raise GateError(f"the gate has failed and nobody is let in; start this process again: {death}")
        now = time.monotonic()
        # Read here, not by the thread that answers: libzmq's own thread waits for whoever watches a socket, and a gate
        # that died would stop all that goes through the doors.
        for domain, callers in self._callers.items():
            for address in callers.failed():
                self._denials.count("handshake", domain, address)
        self._denials.turn(now)
        for domain, reopening in list(self._reopenings.items()):
            reopening.turn(now)
            if reopening.over(now):
                del self._reopenings[domain]

    def samples(self) -> Counter[tuple[str, ...]]:
        """Refusals by reason; callable from any thread."""
        return self._denials.counts.copy()


def _address(segment: zmq.Frame) -> str:
    """The IP address that a message came from; "" where the transport has none."""
    try:
        return str(segment.get("Peer-Address"))
    except zmq.ZMQError:
        return ""
