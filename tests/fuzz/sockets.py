"""Every socket that a line binds, besieged: mutated messages by peers of libzmq, raw bytes by peers that are none.

`Besieger` sends; `tests/test_fuzz_sockets.py` and long runs see to it that the line works and has counted.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from random import Random
from typing import Final

import zmq

from tests.fuzz import corpus, zmtp
from tests.fuzz.mutation import mutated

#: Endpoint of a line -> what our peer there is, and ZMTP's name of it.
PEERS: Final[dict[str, tuple[int, bytes]]] = {
    "frontend": (zmq.DEALER, b"DEALER"),
    "backend": (zmq.DEALER, b"DEALER"),
    "egress": (zmq.DEALER, b"DEALER"),
    "control": (zmq.DEALER, b"DEALER"),
    "catchup": (zmq.DEALER, b"DEALER"),
    "pictures": (zmq.DEALER, b"DEALER"),
    "live": (zmq.SUB, b"SUB"),
    "copies": (zmq.PULL, b"PULL"),
}
#: Types that take the part of the line's own join: what they say is believed, and not hostile but wrong.
BELIEVED: Final = frozenset({b"\x51", b"\x52", b"\x53"})

Context = zmq.Context[zmq.Socket[bytes]]


class Besieger:
    """Sends to `endpoints` (name -> address). Repeatable by its seed. `sent`: messages by endpoint."""

    def __init__(self, endpoints: Mapping[str, str], context: Context, seed: int) -> None:
        self.sent = dict.fromkeys(endpoints, 0)
        self._random = Random(seed)
        self._messages = [segments for segments in corpus.vectors() if segments]
        self._bytes = [b"".join(segments) for segments in self._messages]
        self._endpoints = dict(endpoints)
        self._stack = contextlib.ExitStack()
        self._sockets = {name: self._peer(context, name) for name in endpoints if PEERS[name][0] == zmq.DEALER}

    def __enter__(self) -> Besieger:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def message(self) -> None:
        """One message of mutated segments to one of the sockets that take messages."""
        name = self._random.choice(list(self._sockets))
        segments = self._segments()
        if name == "egress" and segments[0] in BELIEVED:
            return
        with contextlib.suppress(zmq.Again):
            self._sockets[name].send_multipart(segments, zmq.NOBLOCK)
            self.sent[name] += 1
        with contextlib.suppress(zmq.Again):
            self._sockets[name].recv_multipart(zmq.NOBLOCK)

    def raw(self) -> None:
        """One connection to one of the sockets that brings bytes: a greeting or half of one, or no greeting at all,
        then commands and messages, whole or mutated."""
        name = self._random.choice(list(self._endpoints))
        spoken = zmtp.GREETING + zmtp.ready(PEERS[name][1]) + zmtp.message(*self._segments())
        spoken += zmtp.segment(self._random.choice(self._bytes), True) * self._random.randrange(3)
        data = mutated(self._random, [spoken]) if self._random.random() < 0.7 else self._random.randbytes(200)
        with contextlib.suppress(OSError), zmtp.connect(self._endpoints[name]) as connection:
            connection.sendall(data[: self._random.randrange(1, len(data) + 2)])
            connection.shutdown(socket.SHUT_WR)
            self.sent[name] += 1

    def _segments(self) -> list[bytes]:
        segments = list(self._random.choice(self._messages))
        for _ in range(self._random.randrange(3)):
            at = self._random.randrange(len(segments))
            segments[at] = mutated(self._random, [segments[at], *self._bytes])[:4000]
        if self._random.random() < 0.1:
            segments += [b""] * self._random.randrange(5)
        return segments[self._random.random() < 0.05 :] or [b""]

    def _peer(self, context: Context, name: str) -> zmq.Socket[bytes]:
        peer = self._stack.enter_context(context.socket(PEERS[name][0]))
        peer.linger = 0
        peer.connect(self._endpoints[name])
        return peer
