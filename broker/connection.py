"""Which connection of a camera is its newest: what an older one still brings in must not be answered there. Pure;
`now` is in seconds."""

from __future__ import annotations

import math
from typing import Final

#: Seconds that an older connection must go on greeting, and the newest be silent, until the older one is believed.
BELIEVED_AFTER: Final = 1.0
#: libzmq's own identities: a zero byte, and the number of the connection, which rises by one and is taken modulo 2**32.
_LENGTH: Final = 5
_NUMBERS: Final = 1 << 32


def number(identity: bytes) -> int | None:
    """The number that libzmq gave to a connection when its handshake was done; None where the peer chose its identity
    itself."""
    own = len(identity) == _LENGTH and identity[0] == 0
    return int.from_bytes(identity[1:], "big") if own else None


def older(identity: bytes, other: bytes) -> bool:
    """Whether the connection `identity` was made before `other`. Of connections without a number that is not known, and
    the one that is asked about counts as the newer."""
    first, second = number(identity), number(other)
    if first is None or second is None:
        return False
    return 0 < (second - first) % _NUMBERS < _NUMBERS // 2


class Connection:
    """The connection on which one boot of a camera is answered, by ROUTER identity.

    A connection that is cut is given up by the camera, which greets on another; when the network is back, TCP delivers
    what had been sent on the old one, and that may come after the new greeting, even as the first thing of all that the
    old one brings. Handshakes may also end in the other order than they began; therefore an older connection that goes
    on greeting while the newest is silent becomes the newest.
    """

    __slots__ = ("_since", "_stale", "identity", "stale_at")

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.stale_at = -math.inf  # when an older one greeted last
        self._stale = b""
        self._since = 0.0

    def greeted(self, now: float, identity: bytes, heard_at: float) -> bool:
        """The camera's boot greets on this connection; False: it is older than the newest, which was last heard at
        `heard_at`."""
        if older(identity, self.identity) and not self._believed(now, identity, heard_at):
            self.stale_at = now
            return False
        self.identity = identity
        return True

    def _believed(self, now: float, identity: bytes, heard_at: float) -> bool:
        if identity != self._stale or heard_at >= self._since:
            self._stale, self._since = identity, now
        return now - self._since > BELIEVED_AFTER
