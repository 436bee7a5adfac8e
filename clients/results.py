"""Joined results for a consumer: live as they are published, and from the join's ledger what was missed."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, Self

import msgspec
import zmq

from broker import curve, wire
from broker.curve import Credentials
from broker.redial import keep_trying
from broker.wire import End, Entry, Gone, Page, Published, Since, WireError
from clients.cursor import Cursor, Position, Step
from clients.errors import ClientError
from clients.joined import Joined, JoinedPart, MalformedResult, read

Context = zmq.Context[zmq.Socket[bytes]]

#: Seconds that a question to the join may take before it is asked again.
ANSWER_WITHIN: Final = 1.0
#: Seconds between two looks for lost messages on topics that are quiet.
CHECK_EVERY: Final = 1.0
#: Live messages that wait for the consumer; more are lost on the way, and caught up with.
WAITING: Final = 10_000
#: Live messages that are looked through between two questions about the past.
SKIM: Final = 512
#: Larger than any seq: what is published after it is nothing, so END says where the stream stands.
_NEWEST: Final = 2**62

_HEADER: Final = msgspec.msgpack.Decoder(Published)


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


class Results:
    """Iterates over joined results: `for result in Results("tcp://127.0.0.1:7004", catchup="tcp://127.0.0.1:7005")`.

    Each is given once, a camera's (or station's) in the order of publication. `cameras`, `stations`: only frames of
    these, only parts of these; with neither, all. `since`: the `position` of an earlier consumer, to miss nothing that
    was published meanwhile; Position("", 0) is the ledger's beginning; None: from now on. After `timeout` seconds
    without a result the iteration ends, and may be taken up again; None: it waits for ever.

    To miss nothing through a crash of its own, a consumer stores `position` when it has dealt with a result. All
    sockets belong to the thread that iterates; use it as a context manager, or call `close` there. Raises HistoryGone.
    """

    def __init__(
        self,
        live: str,
        *,
        catchup: str,
        cameras: Iterable[str] = (),
        stations: Iterable[str] = (),
        since: Position | None = None,
        timeout: float | None = None,
        context: Context | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        topics = [*(f"frame/{camera}/" for camera in cameras), *(f"part/{station}/" for station in stations)]
        self.malformed = 0
        self.repeats = 0
        self.gaps = 0
        self._live_at = live
        self._catchup_at = catchup
        self._topics = topics
        self._timeout = timeout
        self._context = context
        self._credentials = credentials
        self._from_now = since is None
        self._cursor = Cursor(topics, since)
        self._stack: contextlib.ExitStack | None = None
        self._questions: zmq.Socket[bytes]
        self._page: deque[Entry] = deque()
        self._page_topics: list[str] = []
        self._asked: list[str] = []  # the topics of the question that waits for its answer
        self._answer_by = 0.0
        self._check_at = 0.0
        self._skim = 0  # live messages that may be looked through before the next question

    @property
    def position(self) -> Position | None:
        """What to give as `since` to go on after the last result; None before the join has answered."""
        return self._cursor.position

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Joined | JoinedPart]:
        return self

    def __next__(self) -> Joined | JoinedPart:
        if self._stack is None:
            self._open()
        give_up_at = math.inf if self._timeout is None else time.monotonic() + self._timeout
        while True:
            result = self._step(give_up_at)
            if result is not None:
                return result
            if not self._page and time.monotonic() >= give_up_at:
                raise StopIteration

    def close(self) -> None:
        """Close the sockets; iterating again opens them again, and goes on where it was."""
        if self._stack is not None:
            self._stack.close()
        self._stack = None
        self._asked = []

    def _step(self, give_up_at: float) -> Joined | JoinedPart | None:
        """What was missed comes first. Between two questions about it, live messages are looked through for the place
        where the past meets them: on a busy line the past has no other end."""
        if self._page:
            return self._next_of_past()
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + CHECK_EVERY
            self._cursor.check()
        if not self._cursor.behind:
            wait = min(self._check_at, give_up_at) - now
        elif not self._asked and self._skim and self._cursor.position is not None:
            self._skim -= 1
            wait = 0.0
        else:
            self._catch_up(now, give_up_at)
            return None
        if self._subscriber.poll(_milliseconds(wait)):
            return self._next_live()
        self._skim = 0
        return None

    # --- live --------------------------------------------------------------------------------------------------------

    def _next_live(self) -> Joined | JoinedPart | None:
        try:
            topic, header, body = self._subscriber.recv_multipart()
            name, published = topic.decode(), _HEADER.decode(header)
        except (ValueError, msgspec.MsgspecError):
            self.malformed += 1
            return None
        match self._cursor.live(name, published):
            case Step.TAKE:
                return self._read(name, published.seq, body)
            case Step.REPEAT:
                self.repeats += 1
            case Step.GAP:
                self.gaps += 1
        return None

    # --- past --------------------------------------------------------------------------------------------------------

    def _next_of_past(self) -> Joined | JoinedPart | None:
        entry = self._page.popleft()
        new = self._cursor.past(entry)
        if not self._page:
            self._cursor.passed(self._page_topics, entry.seq)
        return self._read(entry.topic, entry.seq, entry.body) if new else None

    def _catch_up(self, now: float, give_up_at: float) -> None:
        """Ask, or take an answer."""
        if not self._asked or now >= self._answer_by:
            self._ask(now)
        if not self._questions.poll(_milliseconds(min(self._answer_by, give_up_at) - now)):
            return
        try:
            message = wire.decode_message(self._questions.recv_multipart())
        except WireError:
            self.malformed += 1
            return
        self._take_answer(message)

    def _ask(self, now: float) -> None:
        """Ask for what was missed, on a fresh socket where an earlier question is still open: its answer is stale."""
        if self._asked:
            self._questions.close()
            self._questions = self._connect(zmq.DEALER, self._catchup_at)
        self._asked = sorted(self._cursor.behind)
        since = Since(
            ledger_id=self._cursor.ledger_id,
            seq=_NEWEST if self._from_now else self._cursor.after(self._asked),
            topics=[topic for topic in self._asked if topic],
        )
        self._answer_by = now + ANSWER_WITHIN
        with contextlib.suppress(zmq.Again):
            self._questions.send_multipart(wire.encode(since), zmq.NOBLOCK)

    def _take_answer(self, message: Any) -> None:
        asked = self._asked
        if not isinstance(message, Page | End | Gone):
            self.malformed += 1
            return
        self._asked, self._skim, self._from_now = [], SKIM, False
        match message:
            case Page():
                self._cursor.found(message.ledger_id)
                self._page.extend(message.items)
                self._page_topics = asked
            case End():
                self._cursor.caught_up(asked, message.ledger_id, message.seq)
            case Gone():
                lost = self.position
                self._cursor.restart(message.ledger_id, message.oldest)
                raise HistoryGone(lost, message.ledger_id, message.oldest)

    # --- both --------------------------------------------------------------------------------------------------------

    def _read(self, topic: str, seq: int | None, body: bytes) -> Joined | JoinedPart | None:
        try:
            return read(topic, seq, body)
        except MalformedResult:
            self.malformed += 1
            return None

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            if self._context is None:
                self._own = stack.enter_context(zmq.Context())
            self._subscriber = stack.enter_context(self._connect(zmq.SUB, self._live_at))
            self._questions = self._connect(zmq.DEALER, self._catchup_at)
            stack.callback(lambda: self._questions.close())  # which may be another one by then
            self._stack = stack.pop_all()

    def _connect(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = (self._context or self._own).socket(kind)
        socket.linger = 0
        keep_trying(socket)
        socket.heartbeat_ivl = 1000
        socket.heartbeat_timeout = 3000
        if kind == zmq.SUB:
            socket.rcvhwm = WAITING
            for topic in self._topics or [""]:
                socket.subscribe(topic)
        curve.call(socket, endpoint, self._credentials)
        socket.connect(endpoint)
        return socket


def _milliseconds(seconds: float) -> int:
    return math.ceil(1000 * min(max(seconds, 0.0), 1.0))
