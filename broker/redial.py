"""How a socket that connects tries again: soon, and for ever."""

from __future__ import annotations

from typing import Any, Final

import zmq

#: Milliseconds after which a connection that broke is tried again, at first and at most: a new broker is found at once.
RECONNECT_IVL: Final = 30
RECONNECT_IVL_MAX: Final = 150
#: Milliseconds after which a try that nothing answers is given up for another one. The system's own patience doubles
#: from try to try: half a minute after the network is back the next one may still be to come.
CONNECT_TIMEOUT: Final = 1000


def keep_trying(socket: zmq.Socket[Any]) -> None:
    """Before `socket` connects. It changes nothing for inproc and ipc."""
    socket.reconnect_ivl = RECONNECT_IVL
    socket.reconnect_ivl_max = RECONNECT_IVL_MAX
    socket.connect_timeout = CONNECT_TIMEOUT
