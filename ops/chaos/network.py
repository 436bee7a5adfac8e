"""A second host on this machine: a network namespace at the end of a cable of our own, which can be made bad."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import msgspec

from ops.chaos.cable import SOUND, Condition, Fates, Order, Way, combined
from ops.chaos.remains import NAMESPACE
from ops.chaos.schedule import Fault, Kind
from ops.process import own_group

_COMMAND_SECONDS: Final = 10.0
#: Bytes of a packet: jumbo frames, as plants have them for cameras.
_MTU: Final = 9000
#: Packets that wait in an interface for the forwarder: some 20 ms of a fast sender.
_WAITING: Final = 2000
_TUN: Final = Path("/dev/net/tun")
_BAD: Final[Mapping[Kind, Condition]] = {
    Kind.NET_CUT: Condition(silent=True),
    Kind.NET_HALF: Condition(silent=True),
    Kind.NET_DELAY: Condition(delay=0.040, jitter=0.010),
    Kind.NET_LOSS: Condition(loss=0.03),
    Kind.NET_SLOW: Condition(rate=500_000, buffer=256_000),
}


class Network:
    """The cable and the far host, while the context lasts. `here` and `there` are the addresses of its ends; `fates`:
    those of the packets in each direction, until the last change of the cable."""

    def __init__(self, seed: int) -> None:
        """Which packets are lost follows from `seed`, and from the packets."""
        tag = secrets.token_hex(3)
        self.here, self.there = addresses(int(tag, 16))
        self.fates: Fates = {}
        self._name = f"{NAMESPACE}{os.getpid()}-{tag}"
        self._near, self._far = f"gw{tag}a", f"gw{tag}b"
        self._seed = seed
        self._bad: list[Fault] = []
        self._forwarder: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str:
        """Why this machine cannot have a second host, or empty."""
        if sys.platform != "linux":
            return "needs network namespaces, which only Linux has"
        if os.geteuid() != 0:
            return "needs root, to make a network namespace"
        if not shutil.which("ip"):
            return "needs the command ip (iproute2)"
        return "" if _TUN.exists() else f"needs {_TUN}: modprobe tun; a container needs --device {_TUN}"

    def __enter__(self) -> Network:
        """Raises OSError when the system refuses."""
        try:
            self._start_forwarder()
            _run("ip", "netns", "add", self._name)
            _run("ip", "link", "set", self._far, "netns", self._name)
            self._connect((), self._near, self.here)
            self._connect(self.wrap(()), self._far, self.there)
            _run(*self.wrap(("ip", "link", "set", "lo", "up")))
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._forwarder is not None:
            self._forwarder.kill()  # its interfaces go with it
            self._forwarder.communicate(timeout=_COMMAND_SECONDS)
            self._forwarder = None
        command = ("ip", "netns", "delete", self._name)
        subprocess.run(command, capture_output=True, timeout=_COMMAND_SECONDS, check=False)

    def wrap(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command that runs `argv` on the far host, as the same process."""
        return ("ip", "netns", "exec", self._name, *argv)

    def begin(self, fault: Fault) -> None:
        """Make the cable bad, beside whatever else is amiss with it. Raises OSError."""
        self._bad.append(fault)
        self._order()

    def end(self, fault: Fault) -> None:
        """Put right what this fault did. Raises OSError."""
        self._bad.remove(fault)
        self._order()

    def _order(self) -> None:
        self._say(msgspec.json.encode(Order(near=condition(self._bad, Way.NEAR), far=condition(self._bad, Way.FAR))))
        self.fates = msgspec.json.decode(self._answer(), type=Fates)

    def _start_forwarder(self) -> None:
        self._forwarder = subprocess.Popen(
            (sys.executable, "-m", "ops.chaos.forwarder", self._near, self._far, str(self._seed)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            **own_group(),
        )
        self._answer()

    def _say(self, line: bytes) -> None:
        if self._forwarder is None or self._forwarder.stdin is None:
            raise OSError("the forwarder of packets has ended")
        self._forwarder.stdin.write(line + b"\n")

    def _answer(self) -> bytes:
        assert self._forwarder is not None and self._forwarder.stdout is not None
        ready, _, _ = select.select([self._forwarder.stdout], [], [], _COMMAND_SECONDS)
        line = self._forwarder.stdout.readline() if ready else b""
        if line:
            return line
        self._forwarder.kill()
        _, error = self._forwarder.communicate(timeout=_COMMAND_SECONDS)
        raise OSError(f"the forwarder of packets has ended: {error.decode(errors='replace').strip() or 'no answer'}")

    def _connect(self, prefix: tuple[str, ...], interface: str, address: str) -> None:
        with contextlib.suppress(OSError):  # a kernel may have no IPv6
            _run(*prefix, "sysctl", "-q", "-w", f"net.ipv6.conf.{interface}.disable_ipv6=1")
        _run(*prefix, "ip", "address", "add", f"{address}/30", "dev", interface)
        size = ("mtu", str(_MTU), "txqueuelen", str(_WAITING))
        _run(*prefix, "ip", "link", "set", interface, *size, "up")


def addresses(number: int) -> tuple[str, str]:
    """The two ends of a cable, by any number: the hosts of one of the 32,768 subnets /30 of 198.18.0.0/15, which is
    for measuring networks (RFC 2544). No plant has it, two runs hardly meet in it, and no VPN claims it."""
    block = int(IPv4Address("198.18.0.0")) + 4 * (number % 32768)
    return str(IPv4Address(block + 1)), str(IPv4Address(block + 2))


def condition(faults: list[Fault], way: Way) -> Condition:
    """What these faults together make of one direction of the cable; a half-open one is silent in one only."""
    return combined(_BAD[fault.kind] if fault.towards in ("", way) else SOUND for fault in faults)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(str(error)) from error
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
