"""A second host on this machine: a network namespace at the end of a virtual cable, which can be cut and made bad."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from typing import Final

from ops.chaos.schedule import Kind

_COMMAND_SECONDS: Final = 10.0
#: What netem does to packets of both ways, one direction each.
_BAD: Final = {Kind.NET_DELAY: ("delay", "40ms", "10ms"), Kind.NET_LOSS: ("loss", "3%")}


class Network:
    """The cable and the far host, while the context lasts. `here` is the address of this end."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        number = int(tag, 16)
        # 100.64.0.0/10 is for carriers' own networks: no plant has it, and two runs hardly meet in it.
        subnet = f"100.{64 + number % 64}.{number // 64 % 256}"
        self.here = f"{subnet}.1"
        self._there = f"{subnet}.2"
        self._name = f"gongwei-{tag}"
        self._near, self._far = f"gw{tag}a", f"gw{tag}b"

    @staticmethod
    def missing() -> str:
        """Why this machine cannot have a second host, or empty."""
        if sys.platform != "linux":
            return "needs network namespaces, which only Linux has"
        if os.geteuid() != 0:
            return "needs root, to make a network namespace"
        return "" if shutil.which("ip") else "needs the command ip (iproute2)"

    def __enter__(self) -> Network:
        """Raises OSError when the system refuses."""
        try:
            _run("ip", "netns", "add", self._name)
            _run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._name)
            _run("ip", "address", "add", f"{self.here}/30", "dev", self._near)
            _run("ip", "link", "set", self._near, "up")
            self._inside("ip", "address", "add", f"{self._there}/30", "dev", self._far)
            self._inside("ip", "link", "set", self._far, "up")
            self._inside("ip", "link", "set", "lo", "up")
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for command in (("ip", "link", "delete", self._near), ("ip", "netns", "delete", self._name)):
            subprocess.run(command, capture_output=True, timeout=_COMMAND_SECONDS, check=False)

    def wrap(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command that runs `argv` on the far host, as the same process."""
        return ("ip", "netns", "exec", self._name, *argv)

    def lacks(self, kind: Kind) -> str:
        """Why this kind cannot be done to the cable, or empty."""
        if kind not in _BAD:
            return ""
        if not shutil.which("tc"):
            return "needs the command tc (iproute2)"
        try:
            self.begin(kind)
        except OSError as error:
            return f"this kernel has no netem ({error})"
        self.end(kind)
        return ""

    def begin(self, kind: Kind) -> None:
        """Cut the cable, or make it bad. Raises OSError."""
        if kind is Kind.NET_CUT:
            _run("ip", "link", "set", self._near, "down")
        else:
            _run("tc", "qdisc", "add", "dev", self._near, "root", "netem", *_BAD[kind])
            self._inside("tc", "qdisc", "add", "dev", self._far, "root", "netem", *_BAD[kind])

    def end(self, kind: Kind) -> None:
        """Put it right. Raises OSError."""
        if kind is Kind.NET_CUT:
            _run("ip", "link", "set", self._near, "up")
        else:
            _run("tc", "qdisc", "delete", "dev", self._near, "root")
            self._inside("tc", "qdisc", "delete", "dev", self._far, "root")

    def _inside(self, *command: str) -> None:
        _run(*self.wrap(command))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
