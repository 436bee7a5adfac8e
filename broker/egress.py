"""What is on its way to the join: tickets, acknowledgements, and what has to be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from broker.wire import BootNote, Expectation, Outcome, SkipNote, Suspicion

#: What was not acked for so long, in seconds, is sent again, unless the join is merely busy with what was sent before.
REPEAT_AFTER: Final = 0.25
#: For so many seconds an item that no open frame waits for (a late answer, a note) is repeated; then it is given up.
GIVE_UP_AFTER: Final = 60.0
#: So many of them are kept at most, also while there is no join; further ones are given up at once.
LOOSE_LIMIT: Final = 8192

Item = Expectation | Outcome | Suspicion | BootNote | SkipNote


class Unacked(NamedTuple):
    """An item that the join has not committed; `about` is the open frame or task that waits for it, if any."""

    item: Item
    about: Any
    sent_at: float
    first_at: float


class Egress:
    """Items for the join, each with a ticket. Without a join they wait in `unacked`; cameras' credit bounds them."""

    def __init__(self) -> None:
        self.join_epoch: str | None = None
        self.items: list[Item] = []  # to be sent at the end of this turn
        self.unacked: dict[int, Unacked] = {}  # by ticket, oldest sent first
        self.repeated_total = 0
        self.given_up_total = 0
        self._loose = 0  # unacked items that no open frame waits for
        self._ticket = 0
        self._acked_sent_at = 0.0  # when the newest acked item had been sent
        self._jack_at = 0.0

    def ticket(self) -> int:
        self._ticket += 1
        return self._ticket

    def send(self, now: float, item: Item, about: Any = None, first_at: float | None = None) -> None:
        """Send `item` and keep it until it is acked; `first_at`: when it was sent for the first time, if before."""
        if about is None:
            if self._loose >= LOOSE_LIMIT:
                self.given_up_total += 1
                return
            self._loose += 1
        self.unacked[item.ticket] = Unacked(item, about, now, now if first_at is None else first_at)
        if self.join_epoch is not None:
            self.items.append(item)

    def keep(self, now: float, entry: Unacked) -> None:
        """Take back what was acked too early: it is repeated in its time."""
        self.unacked[entry.item.ticket] = entry._replace(sent_at=now)
        self._loose += entry.about is None

    def send_once(self, item: Item) -> bool:
        """Send a monitor item, which nobody acks; False when there is no join to hear it."""
        if self.join_epoch is None:
            return False
        self.items.append(item)
        return True

    def ack(self, now: float, ticket: int) -> Unacked | None:
        """The item of `ticket`, once; None for a repeated or foreign ticket."""
        entry = self.unacked.pop(ticket, None)
        if entry is not None:
            self._loose -= entry.about is None
            self._jack_at = now
            self._acked_sent_at = max(self._acked_sent_at, entry.sent_at)
        return entry

    def repeat_due(self, now: float) -> Iterator[Unacked]:
        """Take out what must be sent again: lost on the way, as later items were acked or none was for a while.

        The way to the join keeps the order, so an item that was sent before an acked one and is not acked is lost; one
        that was sent after it is only waiting for its turn, and sending it again would make a busy join busier.
        """
        silent = now - self._jack_at > REPEAT_AFTER
        due = []
        for ticket, entry in self.unacked.items():
            if now - entry.sent_at <= REPEAT_AFTER:
                break
            if silent or entry.sent_at < self._acked_sent_at:
                due.append(ticket)
        for ticket in due:
            entry = self.unacked.pop(ticket)
            self._loose -= entry.about is None
            if entry.about is None and now - entry.first_at > GIVE_UP_AFTER:
                self.given_up_total += 1
                continue
            self.repeated_total += 1
            yield entry

    def restart(self, epoch: str) -> list[Unacked]:
        """A join came up: take out all that is unacked, oldest first."""
        self.join_epoch = epoch
        entries = list(self.unacked.values())
        self.unacked.clear()
        self._loose = 0
        self.items.clear()
        return entries

    def lost(self) -> None:
        """The join is gone; what goes out next waits for the next one."""
        self.join_epoch = None
        self.items.clear()
