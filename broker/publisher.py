"""What the broker knows about one camera: its boot, its credit, and what to tell it at the end of this turn."""

from __future__ import annotations

from typing import Final

from broker.connection import Connection
from broker.line import CameraEntry
from broker.wire import Policy

#: Weight of the newest turn in the moving mean of the time between two settled frames.
_SMOOTHING: Final = 0.1
#: Frames that a camera may have unsettled at most before anything is known about how fast they settle.
FIRST_WINDOW: Final = 8


class Publisher:
    """One camera in one boot. Credit is absolute: the highest seq that may be sent, and never taken back."""

    __slots__ = (
        "accepted", "boot", "complete", "connection", "credit", "entry", "first", "heard_at", "incomplete", "interval",
        "latest", "name", "open", "owed", "policy", "said_credit", "settled", "settled_at", "turns",
    )  # fmt: skip

    def __init__(self, name: str, entry: CameraEntry, identity: bytes, boot: str, now: float) -> None:
        self.name = name
        self.entry = entry
        self.policy: Policy = entry.policy
        self.connection = Connection(identity)
        self.boot = boot
        self.heard_at = now
        self.latest = -1
        self.credit = -1
        self.said_credit = -1
        self.open = 0
        self.owed = 0  # frames that a reconnected camera still has to send again
        self.first = FIRST_WINDOW  # the window until something has settled
        self.interval = 0.0  # mean seconds between settled frames while some were open; 0: not known yet
        self.turns = 0  # turns in which some settled
        self.settled = 0  # frames
        self.settled_at = now
        self.accepted: list[int] = []
        self.complete: list[int] = []
        self.incomplete: list[int] = []

    @property
    def identity(self) -> bytes:
        """Where it is answered."""
        return self.connection.identity

    def saw(self, seq: int, again: bool) -> None:
        """A frame, or the news of a skipped one, came in."""
        if again and self.owed:
            self.owed -= 1
        if seq > self.latest:
            self.latest = seq

    def skipped(self, seq: int) -> None:
        """A trigger was missed: it used up a seq, and no room for a frame. A camera whose next trigger comes sooner
        than our word would else find each credit used up, and never send."""
        if seq > self.latest:
            self.credit += seq - self.latest
            self.latest = seq

    def window(self, most: int) -> int:
        """How many frames may be unsettled: as many as settle in half a deadline, from 1 to `most`.

        A frame that would wait longer than half its deadline behind others of its own camera is better not taken yet.
        It begins small and grows by one for each settled frame: the first frames of many cameras come at once, and how
        fast one of them settled says little.
        """
        if self.policy == "monitor":
            return 1
        grown = min(most, self.first + self.settled)
        if self.interval <= 0.0:
            return grown
        return int(max(1, min(grown, self.entry.deadline / 2 / self.interval)))

    def grant(self, most: int, room: bool) -> None:
        """Extend the credit to what the window allows now; `room` is false while the broker holds too many bytes: then
        a camera with nothing open may send one frame, so that each goes on."""
        held = 0 if self.policy == "monitor" else self.open + self.owed
        if room or held == 0:
            self.credit = max(self.credit, self.latest + (self.window(most) if room else 1) - held)

    def note_settled(self, count: int, now: float) -> None:
        """`count` frames of this turn are settled: move the mean interval (busy time only) towards this turn's.

        The first ones weigh alike: a mean that began with the quickest of them would be too short for long.
        """
        self.turns += 1
        self.settled += count
        interval = (now - self.settled_at) / count
        self.interval += max(_SMOOTHING, 1 / self.turns) * (interval - self.interval)
        self.settled_at = now
