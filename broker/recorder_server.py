"""The recorder's loop: copies from the broker, verdicts from the live stream, pictures to whoever asks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq
from msgspec import Struct

from broker import log, wire
from broker.curve import Credentials
from broker.gallery import Counts
from broker.gate import Gate
from broker.missed import Missed
from broker.notifier import Notifier
from broker.recorder import Recorder
from broker.recorder_doors import Context, RecorderDoors
from broker.rereading import Rereading
from broker.wire import Ask, Copy, Gone, Key, Message, Picture, Published, Verdict, WireError

logger = log.get(__name__)

#: Messages that one turn takes from each socket.
BURST: Final = {"copies": 16, "live": 1024, "pictures": 16}
#: Longest wait for a message in milliseconds: `stop` is noticed within it.
LONGEST_WAIT: Final = 50


class _Joined(Struct, gc=False):
    """What the recorder reads of a joined frame."""

    camera: str
    boot: str
    seq: int
    verdict: Verdict


_JOINED: Final = msgspec.msgpack.Decoder(_Joined)
_PUBLISHED: Final = msgspec.msgpack.Decoder(Published)


class RecorderServer:
    """Keeps pictures of one line. `run` opens, serves and closes everything in the calling thread.

    `copies` is the broker's endpoint, `live` and `catchup` the join's; `pictures` is bound here. `memory` and `disk` in
    MB; `keep`: verdicts whose pictures are stored. `context`: to share over inproc; a ZAP handler in it is asked about
    `pictures` as well (domain `plain`). `gate` asks consumers for a key, `broker` and `join` are what those ask
    for; `reread`: the line file, whose keys hold when it changed. Verdicts lost on the live stream are asked for again.
    `notifier`: who is told that the loop goes round, and after each message: a slow disk is no standstill.
    """

    def __init__(
        self,
        *,
        copies: str,
        live: str,
        catchup: str,
        pictures: str,
        folder: Path,
        memory: int,
        disk: int,
        keep: Collection[str],
        context: Context | None = None,
        gate: Gate | None = None,
        broker: Credentials | None = None,
        join: Credentials | None = None,
        reread: Rereading | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._gate = gate
        self._reread = reread
        self.counts: Counts = Counter()
        self.ready = threading.Event()
        self._folder = folder
        self._pictures_at = pictures
        self._doors = RecorderDoors(copies, live, catchup, pictures, context, self.counts, gate, broker, join)
        self._recorder = Recorder(folder, memory << 20, disk << 20, keep, self.counts)
        self._missed = Missed()
        self._notifier = notifier or Notifier()
        self._should_stop = threading.Event()

    def stop(self) -> None:
        """Ask `run` to end; callable from any thread and from signal handlers."""
        self._should_stop.set()

    def run(self) -> None:
        """Serve until `stop`. Raises OSError when the folder cannot be used, zmq.ZMQError when the endpoint cannot be
        bound, GateError when the gate has failed."""
        self._recorder.load()
        with self._doors:
            if not self._doors.tells_of_connections:
                self._missed.connected()
            logger.info("recorder open", folder=str(self._folder), pictures=self._pictures_at)
            self.ready.set()
            self._notifier.ready(time.monotonic())
            while not self._should_stop.is_set():
                self._turn()
            self._notifier.stopping()

    def samples(self) -> dict[tuple[str, ...], float]:
        """Counters and gauges, for `metrics.served`; callable from any thread."""
        denied = self._gate.samples() if self._gate is not None else {}
        return {**self.counts, **self._recorder.gauges(), **denied}

    def _turn(self) -> None:
        doors = self._doors
        doors.wait(LONGEST_WAIT)
        self._notifier.alive(time.monotonic())
        self._renew_keys()
        for segments in self._waiting(doors.copies, BURST["copies"]):
            self._checked(self._take_copy, segments)
        for _ in doors.connections():  # before what came over the new connection
            self._missed.connected()
        for segments in self._waiting(doors.live, BURST["live"]):
            self._checked(self._take_verdict, segments)
        self._catch_up(time.monotonic())
        for segments in self._waiting(doors.pictures, BURST["pictures"]):
            if self._gate is None or self._gate.who(doors.pictures, segments[0]) is not None:
                self._checked(self._answer, segments)

    def _renew_keys(self) -> None:
        if self._gate is None:
            return
        line = self._reread.changed(time.monotonic()) if self._reread is not None else None
        self._gate.renew(line.security if line is not None else None)
        self._gate.tend()

    def _waiting(self, socket: zmq.Socket[bytes], most: int) -> Iterator[list[zmq.Frame]]:
        """What has come, up to a bound, and no more once `stop` was asked for: the disk may take long for each."""
        for _ in range(most):
            if self._should_stop.is_set():
                return
            try:
                yield socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return

    def _checked(self, handle: Any, given: Any) -> None:
        self._notifier.alive(time.monotonic())  # the disk may take seconds for each
        try:
            handle(given)
        except WireError as error:
            self.counts["refused_total", error.reason] += 1

    def _take_copy(self, segments: list[zmq.Frame]) -> None:
        if len(segments) != 3:
            raise WireError("segments", f"{len(segments)} segments, 3 expected")
        copy = _message(segments, Copy)
        self._recorder.copy(copy, segments[2], len(segments[2].buffer))

    def _take_verdict(self, segments: list[zmq.Frame]) -> None:
        if len(segments) != 3:
            raise WireError("segments", f"{len(segments)} segments, 3 expected")
        topic, header, body = segments
        self._judge(body.buffer)
        try:
            self._missed.live(topic.bytes.decode(), _PUBLISHED.decode(header.buffer))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise WireError("header_invalid", str(error)) from None

    def _judge(self, body: Any) -> None:
        try:
            joined = _JOINED.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise WireError("header_invalid", str(error)) from None
        self._recorder.verdict(Key(joined.camera, joined.boot, joined.seq), joined.verdict)

    def _catch_up(self, now: float) -> None:
        """Ask for the verdicts that did not come, and take those that were asked for."""
        for message in self._doors.inquiry.answers():
            if isinstance(message, Gone):
                self.counts["verdicts_gone_total",] += 1
                logger.warning(
                    "verdicts are lost: the ledger was replaced, or has deleted them", oldest_seq=message.oldest
                )
            for entry in self._missed.answered(message, now):
                if self._should_stop.is_set():
                    return
                self.counts["verdicts_caught_up_total",] += 1
                self._checked(self._judge, entry.body)
        if self._missed.overdue(now):
            self._doors.inquiry.renew()
        question = self._missed.question(now)
        if question is not None:
            self._doors.inquiry.ask(question)

    def _answer(self, segments: list[zmq.Frame]) -> None:
        identity, *rest = segments
        ask = _message(rest, Ask)
        shown = self._recorder.find(ask.key)
        if shown is None:
            answer, payload = Picture(key=ask.key, found=False), b""
        else:
            encoding, shape, stride, payload = shown
            answer = Picture(key=ask.key, found=True, encoding=encoding, shape=shape, stride=stride)
        try:
            self._doors.pictures.send_multipart([identity, *wire.encode(answer), payload], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self.counts["undelivered_total", "Picture", "full"] += 1


def _message(segments: list[zmq.Frame], kind: type[Message]) -> Any:
    if len(segments) < 2:
        raise WireError("segments", f"{len(segments)} segments, at least 2 expected")
    message = wire.decode(segments[0].bytes, segments[1].buffer)
    if not isinstance(message, kind):
        raise WireError("unknown_type", f"{type(message).__name__} is no message for this socket")
    return message
