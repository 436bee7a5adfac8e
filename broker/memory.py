"""Whether the broker's memory has grown beyond what frames may take: libzmq holds a message that never ends (segment
after segment, each with MORE) until the process is out of memory, and tells nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from broker.troubles import Trouble

#: What the broker may take beyond its start and `limits.queue_bytes`, in bytes: messages in the queues of sockets.
SLACK: Final = 256 << 20


class Memory:
    """`first`: bytes resident when nothing had come yet; `frames`: bytes that frames may take in all."""

    def __init__(self, first: int, frames: int) -> None:
        self._most = first + frames + SLACK

    def troubles(self, resident: int) -> Iterator[Trouble]:
        """What is to be told of while so many bytes are resident."""
        if resident > self._most:
            about = (("allowed_mb", str(self._most >> 20)),)
            yield Trouble("memory has grown beyond limits.queue_bytes: a peer may be sending without an end", about)
