"""What a camera keeps of one frame until it is settled, and the news that come of it."""

from __future__ import annotations

from typing import Final, NamedTuple

from broker.wire import Frame, Key, Message, Policy
from clients.encoding import Encoded

#: A frame is sent again this long after its deadline, or after its last send where that is later; then after twice as
#: long each further time, up to 2^5 (half a minute). In seconds.
OVERDUE: Final = 1.0
_MOST_DOUBLINGS: Final = 5


class Outgoing(NamedTuple):
    """A message to send, with the payload that is its third segment, if it has one."""

    message: Message
    payload: bytes | memoryview | None = None


class Ended(NamedTuple):
    """A frame left the camera's care. `outcome`: complete, incomplete, rejected (for `reason`) or lost (monitor only).

    `seconds` run from the capture.
    """

    key: Key
    outcome: str
    reason: str
    seconds: float


class Held:
    """One frame in the camera's care. `sends` counts how often it was sent; `due` is when it is overdue."""

    __slots__ = ("accepted", "captured_at", "due", "encoded", "overdue", "parked", "part", "sends", "seq")

    def __init__(self, seq: int, encoded: Encoded, part: str | None, captured_at: float) -> None:
        self.seq = seq
        self.encoded: Encoded | None = encoded  # None: nothing is left to send (an accepted monitor frame)
        self.part = part
        self.captured_at = captured_at
        self.sends = 0
        self.accepted = False
        self.parked = False  # refused for want of credit: it waits for credit, though it was sent before
        self.due = 0.0
        self.overdue = 0

    def replace(self, encoded: Encoded, part: str | None, captured_at: float) -> None:
        """Hold a newer picture instead."""
        self.encoded, self.part, self.captured_at = encoded, part, captured_at

    def outgoing(self, key: Key, policy: Policy, budget: float, now: float) -> Outgoing:
        """The FRAME to send now; it must have something `encoded`."""
        payload, encoding, shape = self.encoded or _NOTHING
        frame = Frame(
            key=key,
            policy=policy,
            encoding=encoding,
            shape=shape,
            len=len(payload),
            age=max(0.0, now - self.captured_at),
            budget=budget,
            part=self.part,
            again=self.sends,
        )
        return Outgoing(frame, payload)

    def sent(self, budget: float, now: float) -> None:
        self.sends += 1
        self.parked = False
        self.due = max(now, self.captured_at + budget) + OVERDUE * 2 ** min(self.overdue, _MOST_DOUBLINGS)


#: What the broker rejects as `payload_empty`.
_NOTHING: Final = Encoded(b"", "jpeg", [1, 1])
