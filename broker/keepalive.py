"""How a socket notices that the host at the other end is gone, without a word: a cable, a firewall that forgot it.

The system asks, by TCP's own probes. ZMTP's heartbeats would do it too, but libzmq (4.3.5) aborts the process by them:
when a peer goes while its messages are not read, because the queue for them is full, the next heartbeat meets a
connection that is half taken down (its issues 3596, 3937, 4767). Any peer could end a broker so; one that
asks for heartbeats itself still can, and nothing here helps (docs/limits.md). Nor do probes wait behind a message that
is under way, so that a slow link may take as long as it needs.
"""

from __future__ import annotations

from typing import Any, Final

import zmq

#: Seconds of silence before the first probe and between two, and how many may go unanswered (Windows: always 10).
IDLE: Final = 1
INTERVAL: Final = 1
PROBES: Final = 3


def keep_alive(socket: zmq.Socket[Any]) -> None:
    """Before `socket` binds or connects, of whatever kind it is. It changes nothing for inproc and ipc, where the
    system tells of every end."""
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = IDLE
    socket.tcp_keepalive_intvl = INTERVAL
    socket.tcp_keepalive_cnt = PROBES
