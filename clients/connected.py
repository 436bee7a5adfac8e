"""The sockets by which a consumer calls on the join and the recorder."""

from __future__ import annotations

import math
from typing import Final

import zmq

from broker import curve
from broker.curve import Credentials
from broker.redial import keep_trying
from clients.errors import EndpointError

#: Messages that wait to be read, unless more are asked for: ZeroMQ's own number.
AS_USUAL: Final = 1000

Context = zmq.Context[zmq.Socket[bytes]]


def connected(
    context: Context,
    kind: int,
    endpoint: str,
    credentials: Credentials | None,
    waiting: int = AS_USUAL,
) -> zmq.Socket[bytes]:
    """A new socket that calls on `endpoint`, again and again. `waiting`: messages that wait to be read at most.

    Raises EndpointError where `endpoint` is no address.
    """
    socket = context.socket(kind)
    socket.linger = 0
    socket.rcvhwm = waiting
    keep_trying(socket)
    try:
        curve.call(socket, endpoint, credentials)
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise EndpointError(f"{endpoint!r} cannot be called on: {error.strerror}; write tcp://HOST:PORT") from None
    return socket


def milliseconds(seconds: float) -> int:
    """A wait for `poll`, of a second at most: on Windows nothing, not even Ctrl-C, ends one."""
    return math.ceil(1000 * min(max(seconds, 0.0), 1.0))
