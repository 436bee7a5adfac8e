"""The process that is the cable: packets from one network interface to another, as `ops.chaos.cable` lets them through.

It makes both interfaces, says so, and takes orders from standard input; with the end of that it ends, and the
interfaces with it. Linux and root only.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from typing import Final

import msgspec

from ops.chaos.cable import Fates, Lane, Order, Way

_CLONE: Final = "/dev/net/tun"
_TUNSETIFF: Final = 0x400454CA
_TUN_WITHOUT_HEADER: Final = 0x0001 | 0x1000  # IFF_TUN | IFF_NO_PI
_PACKET: Final = 65_536
#: Packets that are taken from one interface before the other has its turn.
_BURST: Final = 64
#: Fates of packets that the kernel did not take: the interface is down, or its memory is short.
_REFUSED: Final = "refused"


class Forwarder:
    """Between two open interfaces, each of which hands over one packet a read."""

    def __init__(self, near: int, far: int, seed: str) -> None:
        self._lanes = {way: Lane(f"{seed}/{way}") for way in Way}
        self._into = {near: self._lanes[Way.FAR], far: self._lanes[Way.NEAR]}
        self._out = {Way.NEAR: near, Way.FAR: far}

    def run(self) -> None:
        """Until standard input ends."""
        orders = sys.stdin.fileno()
        pending = b""
        while True:
            ready, _, _ = select.select([*self._into, orders], [], [], self._patience(time.monotonic()))
            for source in ready:
                if source != orders:
                    self._take_in(source)
            self._give_out(time.monotonic())
            if orders in ready:
                data = os.read(orders, _PACKET)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._obey(msgspec.json.decode(line, type=Order))

    def _patience(self, now: float) -> float | None:
        dues = [lane.next for lane in self._lanes.values() if lane.next is not None]
        return max(0.0, min(dues) - now) if dues else None

    def _take_in(self, source: int) -> None:
        lane = self._into[source]
        for _ in range(_BURST):
            try:
                packet = os.read(source, _PACKET)
            except BlockingIOError:
                return
            lane.put(packet, time.monotonic())

    def _give_out(self, now: float) -> None:
        for way, lane in self._lanes.items():
            for packet in lane.take(now):
                try:
                    os.write(self._out[way], packet)
                except OSError:
                    lane.fates[_REFUSED] += 1

    def _obey(self, order: Order) -> None:
        self._lanes[Way.NEAR].become(order.near)
        self._lanes[Way.FAR].become(order.far)
        fates: Fates = {way: dict(lane.fates) for way, lane in self._lanes.items()}
        say(msgspec.json.encode(fates))


def interface(name: str) -> int:
    """A new interface of this name, which is there while the descriptor is open. Raises OSError."""
    made = os.open(_CLONE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(made, _TUNSETIFF, struct.pack("16sH22x", name.encode("ascii"), _TUN_WITHOUT_HEADER))
    return made


def say(line: bytes) -> None:
    """To whoever gives the orders."""
    os.write(sys.stdout.fileno(), line + b"\n")


def main() -> None:
    """Run between the two interfaces of the command line, with its seed."""
    near, far, seed = sys.argv[1:]
    try:
        forwarder = Forwarder(interface(near), interface(far), seed)
    except OSError as error:
        sys.exit(f"{_CLONE}: {error}")
    say(b"ready")
    forwarder.run()


if __name__ == "__main__":
    main()
