"""Joined results for a consumer: live as they are published, and from the join's ledger what was missed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from typing import Final, Self

import msgspec
import zmq

from broker import wire
from broker.curve import Credentials
from broker.wire import Published, WireError
from clients.connected import AS_USUAL, Context, connected, milliseconds
from clients.cursor import Cursor, Position, Step
from clients.joined import Joined, JoinedPart, MalformedResult, read
from clients.past import Past

#: Seconds between two looks for lost messages on topics that are quiet.
CHECK_EVERY: Final = 1.0
#: Live messages that wait for the consumer; more are lost on the way, and caught up with.
WAITING: Final = 10_000
#: Live messages that are looked through between two questions about the past.
SKIM: Final = 512
_HEADER: Final = msgspec.msgpack.Decoder(Published)


class Results:
    """Iterates over joined results: `for result in Results("tcp://127.0.0.1:7004", catchup="tcp://127.0.0.1:7005")`.

    Each is given once, a camera's (or station's) in the order of publication. `cameras`, `stations`: only frames of
    these, only parts of these; with neither, all. `since`: the `position` of an earlier consumer, to miss nothing that
    was published meanwhile; Position("", 0) is the ledger's beginning; None: from now on. After `timeout` seconds
    without a result the iteration ends, and may be taken up again; None: it waits for ever.

    To miss nothing through a crash of its own, a consumer stores `position` when it has dealt with a result. All
    sockets belong to the thread that iterates; use it as a context manager, or call `close` there. Raises HistoryGone,
    and EndpointError where an address is none. `heard` counts the messages that the join has sent, of any kind.
    `context`: a ZeroMQ context to share (inproc); a ZAP handler in it has no say here: nothing is bound.
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
        if not isinstance(since, Position | None):
            raise TypeError(f"since is a Position, not {since!r}; Position('', 0) stands before all that is kept")
        topics = [*(f"frame/{camera}/" for camera in cameras), *(f"part/{station}/" for station in stations)]
        self.malformed = 0
        self.repeats = 0
        self.gaps = 0
        self.heard = 0
        self.live = live
        self.catchup = catchup
        self._topics = topics
        self._timeout = timeout
        self._context = context
        self._credentials = credentials
        self._cursor = Cursor(topics, since)
        self._stack: contextlib.ExitStack | None = None
        self._past = Past(self._cursor, self._call, from_now=since is None)
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
            if not self._past and time.monotonic() >= give_up_at:
                raise StopIteration

    def close(self) -> None:
        """Close the sockets; iterating again opens them again, and goes on where it was."""
        if self._stack is not None:
            self._stack.close()
        self._stack = None

    def _step(self, give_up_at: float) -> Joined | JoinedPart | None:
        """What was missed comes first. Between two questions about it, live messages are looked through for the place
        where the past meets them: on a busy line the past has no other end."""
        if self._past:
            return self._next_of_past()
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + CHECK_EVERY
            self._cursor.check()
        if not self._cursor.behind:
            wait = min(self._check_at, give_up_at) - now
        elif not self._past.asking and self._skim and self._cursor.position is not None:
            self._skim -= 1
            wait = 0.0
        else:
            self._catch_up(now, give_up_at)
            return None
        if self._subscriber.poll(milliseconds(wait)):
            return self._next_live()
        self._skim = 0
        return None

    # --- live --------------------------------------------------------------------------------------------------------

    def _next_live(self) -> Joined | JoinedPart | None:
        segments = self._subscriber.recv_multipart()
        self.heard += 1
        try:
            topic, header, body = segments
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
        entry = self._past.next()
        return None if entry is None else self._read(entry.topic, entry.seq, entry.body)

    def _catch_up(self, now: float, give_up_at: float) -> None:
        """Ask, or take an answer."""
        segments = self._past.receive(now, give_up_at)
        if segments is None:
            return
        self.heard += 1
        self._skim = SKIM
        try:
            known = self._past.take(wire.decode_message(segments), time.monotonic())
        except WireError:
            known = False
        self.malformed += not known

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
            self._subscriber = stack.enter_context(self._connect(zmq.SUB, self.live, WAITING))
            for topic in self._topics or [""]:
                self._subscriber.subscribe(topic)
            self._past.open()
            stack.callback(self._past.close)
            self._stack = stack.pop_all()

    def _connect(self, kind: int, endpoint: str, waiting: int) -> zmq.Socket[bytes]:
        return connected(self._context or self._own, kind, endpoint, self._credentials, waiting)

    def _call(self) -> zmq.Socket[bytes]:
        """To ask for the past."""
        return self._connect(zmq.DEALER, self.catchup, AS_USUAL)
