"""How a socket that connects tries again: soon, and for ever; and how it notices that nobody is there any more."""

from __future__ import annotations

from typing import Any, Final

import zmq

from broker.keepalive import keep_alive

#: Milliseconds after which a connection that broke is tried again, at first and at most: a new broker is found at once.
RECONNECT_IVL: Final = 30
RECONNECT_IVL_MAX: Final = 150
#: Milliseconds after which a try that nothing answers is given up for another one. The system's own patience doubles
#: from try to try: half a minute after the network is back the next one may still be to come.
CONNECT_TIMEOUT: Final = 1000
#: Milliseconds that a peer which took the connection has to greet; libzmq's own patience is half a minute.
HANDSHAKE_IVL: Final = 2000
#: Milliseconds that what was sent may stay unconfirmed: while something is, there are no probes, and the system's own
#: patience is a quarter of an hour. Not for who binds, and sends what nobody repeats: the time counts, too, in which a
#: peer that is alive reads nothing.
UNCONFIRMED: Final = 4000


def keep_trying(socket: zmq.Socket[Any]) -> None:
    """Before `socket` connects, of whatever kind it is. It changes nothing for inproc."""
    socket.reconnect_ivl = RECONNECT_IVL
    socket.reconnect_ivl_max = RECONNECT_IVL_MAX
    socket.connect_timeout = CONNECT_TIMEOUT
    socket.handshake_ivl = HANDSHAKE_IVL
    keep_alive(socket)
    socket.tcp_maxrt = UNCONFIRMED
