"""What was published and did not arrive: asked for at the join's ledger, page by page."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from broker import wire
from broker.patience import Patience
from broker.wire import End, Entry, Gone, Message, Page, Since
from clients.connected import milliseconds
from clients.cursor import Cursor, Position
from clients.errors import ClientError

#: Larger than any seq: what is published after it is nothing, so END says where the stream stands.
_NEWEST: Final = 2**62


class HistoryGone(ClientError):
    """The join no longer has what this consumer had not taken yet: another ledger, or one that has deleted it.

    Iterating on goes on with the `oldest` publication that there is, of ledger `ledger_id`. `missing`: how many
    publications there were between, of all topics; None where nobody can know, for it was another ledger.
    """

    def __init__(self, lost: Position | None, ledger_id: str, oldest: int) -> None:
        begun = lost is None or lost == ("", 0)
        since = "the beginning" if lost is None or begun else f"seq {lost.seq} of ledger {lost.ledger_id}"
        self.missing = None
        if lost is None or lost.ledger_id in ("", ledger_id):
            self.missing = max(oldest - 1 - (0 if lost is None else lost.seq), 0)
        count = "an unknown number of" if self.missing is None else str(self.missing)
        super().__init__(
            f"{count} publications since {since} are gone; the oldest is seq {oldest} of ledger {ledger_id}"
        )
        self.ledger_id = ledger_id
        self.oldest = oldest


class Past:
    """Asks for what `cursor` is behind with, and gives it entry by entry. `connect` makes the socket to ask with.

    `from_now`: nothing of the past is wanted, only where the stream stands.
    """

    def __init__(self, cursor: Cursor, connect: Callable[[], zmq.Socket[bytes]], *, from_now: bool) -> None:
        self._cursor = cursor
        self._connect = connect
        self._from_now = from_now
        self._page: deque[Entry] = deque()
        self._page_topics: list[str] = []
        self._asked: list[str] = []  # the topics of the question that waits for its answer
        self._patience = Patience()
        self._socket: zmq.Socket[bytes]

    def __bool__(self) -> bool:
        """There are entries to give."""
        return bool(self._page)

    @property
    def asking(self) -> bool:
        """A question waits for its answer."""
        return bool(self._asked)

    def open(self) -> None:
        """Raises EndpointError."""
        self._socket = self._connect()

    def close(self) -> None:
        """A question that was not answered is asked again after `open`."""
        self._socket.close()
        self._asked = []

    def next(self) -> Entry | None:
        """The next entry; None: it is a repeat."""
        entry = self._page.popleft()
        new = self._cursor.past(entry)
        if not self._page:
            self._cursor.passed(self._page_topics, entry.seq)
        return entry if new else None

    def receive(self, now: float, give_up_at: float) -> list[bytes] | None:
        """Ask if no question is open, and wait for an answer, up to `give_up_at`; both are monotonic seconds."""
        if not self._asked or now >= self._patience.answer_by:
            self._ask(now)
        if not self._socket.poll(milliseconds(min(self._patience.answer_by, give_up_at) - now)):
            return None
        return self._socket.recv_multipart()

    def take(self, message: Message, now: float) -> bool:
        """Take the answer to the question; False: it is none. Raises HistoryGone."""
        if not isinstance(message, Page | End | Gone):
            return False
        self._patience.answered(now)
        asked, self._asked, self._from_now = self._asked, [], False
        match message:
            case Page():
                self._cursor.found(message.ledger_id)
                self._page.extend(message.items)
                self._page_topics = asked
            case End():
                self._cursor.caught_up(asked, message.ledger_id, message.seq)
            case Gone():
                lost = self._cursor.position
                self._cursor.restart(message.ledger_id, message.oldest)
                raise HistoryGone(lost, message.ledger_id, message.oldest)
        return True

    def _ask(self, now: float) -> None:
        """Ask for what was missed, on a fresh socket where an earlier question is still open: its answer is stale."""
        self._patience.asked(now, again=self.asking)
        if self._asked:
            self._socket.close()
            self._socket = self._connect()
        self._asked = sorted(self._cursor.behind)
        since = Since(
            ledger_id=self._cursor.ledger_id,
            seq=_NEWEST if self._from_now else self._cursor.after(self._asked),
            topics=[topic for topic in self._asked if topic],
        )
        with contextlib.suppress(zmq.Again):
            self._socket.send_multipart(wire.encode(since), zmq.NOBLOCK)
