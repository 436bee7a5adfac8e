"""Which connection of a camera is its newest: what an older one still brings in must not be answered there. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

#: Older connections of a camera that are remembered.
REMEMBERED: Final = 8


class Connections:
    """The connection of each camera's boot that spoke last, and those before it, by ROUTER identity.

    A connection that is cut is given up by the camera, which greets on another; when the network is back, TCP delivers
    what had been sent on the old one, and that may come after the new greeting. libzmq gives no identity twice.
    """

    def __init__(self) -> None:
        self._boots: dict[str, str] = {}
        self._identities: dict[str, deque[bytes]] = {}

    def greeted(self, camera: str, boot: str, identity: bytes) -> bool:
        """A greeting of this boot came in on this connection; False: it is older than the newest one."""
        known = self._identities.get(camera)
        if known is None or self._boots[camera] != boot:
            self._boots[camera] = boot
            self._identities[camera] = deque([identity], REMEMBERED)
            return True
        if identity not in known:
            known.append(identity)
        return known[-1] == identity
