"""The monitor camera's holder: the newest picture counts, none is sent twice.

One frame at most waits here and one is with the broker, not accepted yet. A newer one takes the place, and the seq, of
the one that waits.
"""

from __future__ import annotations

from typing import ClassVar

from broker.wire import Accepted, Key, Policy
from clients.encoding import Encoded
from clients.held import Ended, Held
from clients.holder import Holder


class LatestHolder(Holder):
    """The state of one boot of a monitor camera. `count` also has superseded (replaced here, never sent) and lost."""

    policy: ClassVar[Policy] = "monitor"

    def room(self) -> bool:
        """Always: a newer frame takes the waiting one's place."""
        return True

    def take(self, encoded: Encoded, part: str | None, captured_at: float) -> Key:
        for held in self.held.values():
            if held.parked or not held.sends:
                self.count["superseded"] += 1
                held.replace(encoded, part, captured_at)
                return self.key(held.seq)
        return super().take(encoded, part, captured_at)

    def _accepted(self, message: Accepted, now: float) -> None:
        super()._accepted(message, now)
        for seq in message.seqs:
            if seq in self.held:
                self.held[seq].encoded = None

    def _may_send(self, held: Held) -> bool:
        if held.seq > self.credit:
            return False
        return not any(other.sends and not (other.accepted or other.parked) for other in self.held.values())

    def _to_send_again(self) -> int:
        return 0

    def _why_missing(self, seq: int) -> str:
        return super()._why_missing(seq) or ("lost" if seq >= 0 else "")

    def _drop_unsendable(self, now: float) -> list[Ended]:
        past = [held for held in self.held.values() if held.sends]
        return [self._end(held, "lost", "reconnected", now) for held in past] + super()._drop_unsendable(now)

    def _overdue(self, late: list[Held], now: float) -> list[Ended]:
        return [self._end(held, "lost", "no_answer", now) for held in late]
