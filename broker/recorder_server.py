"""The recorder's loop: copies from the broker, verdicts from the live stream, pictures to whoever asks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq
from msgspec import Struct

from broker import curve, log, wire
from broker.curve import Credentials
from broker.gate import Gate, guarded
from broker.inquiry import Inquiry
from broker.missed import Missed
from broker.notifier import Notifier
from broker.recorder import Counts, Recorder
from broker.redial import keep_trying
from broker.rereading import Rereading
from broker.socket_monitor import SocketMonitor
from broker.wire import Ask, Copy, Gone, Key, Message, Picture, Published, Verdict, WireError

logger = log.get(__name__)

Context = zmq.Context[zmq.Socket[bytes]]

#: Copies that wait in front of the recorder; the broker drops what comes on top of them.
COPIES_WAITING: Final = 8
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
        self._broker = broker
        self._join = join
        self._reread = reread
        self.counts: Counts = Counter()
        self.ready = threading.Event()
        self._endpoints = copies, live, pictures
        self._folder = folder
        self._context = context
        self._recorder = Recorder(folder, memory << 20, disk << 20, keep, self.counts)
        self._missed = Missed()
        self._inquiry = Inquiry(catchup, self.counts, join)
        self._notifier = notifier or Notifier()
        self._should_stop = threading.Event()

    def stop(self) -> None:
        """Ask `run` to end; callable from any thread and from signal handlers."""
        self._should_stop.set()

    def run(self) -> None:
        """Serve until `stop`. Raises OSError when the folder cannot be used, zmq.ZMQError when the endpoint cannot be
        bound, GateError when the gate has failed."""
        self._recorder.load()
        with contextlib.ExitStack() as stack:
            self._open(stack)
            logger.info("recorder open", folder=str(self._folder), pictures=self._endpoints[2])
            self.ready.set()
            self._notifier.ready(time.monotonic())
            while not self._should_stop.is_set():
                self._turn()
            self._notifier.stopping()

    def samples(self) -> dict[tuple[str, ...], float]:
        """Counters and gauges, for `metrics.served`; callable from any thread."""
        denied = self._gate.samples() if self._gate is not None else {}
        return {**self.counts, **self._recorder.gauges(), **denied}

    def _open(self, stack: contextlib.ExitStack) -> None:
        context = self._context or stack.enter_context(zmq.Context())
        copies, live, pictures = self._endpoints
        self._pictures = stack.enter_context(context.socket(zmq.ROUTER))
        if self._gate is not None:  # after the door, for it closes before it
            stack.callback(self._gate.close)
            self._gate.open(context)
        self._pictures.setsockopt(zmq.LINGER, 0)
        self._pictures.setsockopt(zmq.SNDHWM, 16)
        self._pictures.setsockopt(zmq.MAXMSGSIZE, wire.HEADER_LIMIT)
        self._pictures.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        guarded(self._gate, self._pictures, pictures, "pictures")
        self._pictures.bind(pictures)
        self._copies = stack.enter_context(context.socket(zmq.PULL))
        self._copies.setsockopt(zmq.RCVHWM, COPIES_WAITING)
        keep_trying(self._copies)
        curve.call(self._copies, copies, self._broker)
        self._copies.connect(copies)
        self._live = stack.enter_context(context.socket(zmq.SUB))
        self._live.setsockopt(zmq.RCVHWM, 10_000)
        self._live.subscribe(b"frame/")
        keep_trying(self._live)
        curve.call(self._live, live, self._join)
        self._monitor = SocketMonitor(self._live, live, zmq.EVENT_HANDSHAKE_SUCCEEDED)
        stack.callback(self._monitor.close)
        self._monitor.open()
        self._live.connect(live)
        self._poller = zmq.Poller()
        for socket in (self._copies, self._live, self._pictures):
            self._poller.register(socket, zmq.POLLIN)
        if self._gate is not None:
            self._gate.watch(self._poller)
        if self._monitor.pair is not None:
            self._poller.register(self._monitor.pair, zmq.POLLIN)
        else:  # over inproc nobody tells of connections
            self._missed.connected()
        stack.callback(self._inquiry.close)
        self._inquiry.open(context, self._poller)

    def _turn(self) -> None:
        self._poller.poll(LONGEST_WAIT)
        self._notifier.alive(time.monotonic())
        self._renew_keys()
        for segments in self._waiting(self._copies, BURST["copies"]):
            self._checked(self._take_copy, segments)
        for _ in self._monitor.events():  # before what came over the new connection
            self._missed.connected()
        for segments in self._waiting(self._live, BURST["live"]):
            self._checked(self._take_verdict, segments)
        self._catch_up(time.monotonic())
        for segments in self._waiting(self._pictures, BURST["pictures"]):
            if self._gate is None or self._gate.who(self._pictures, segments[0]) is not None:
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
        self._notifier.alive(time.monotonic())
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
        for message in self._inquiry.answers():
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
            self._inquiry.renew()
        question = self._missed.question(now)
        if question is not None:
            self._inquiry.ask(question)

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
            self._pictures.send_multipart([identity, *wire.encode(answer), payload], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            self.counts["undelivered_total", "Picture", "full"] += 1


def _message(segments: list[zmq.Frame], kind: type[Message]) -> Any:
    if len(segments) < 2:
        raise WireError("segments", f"{len(segments)} segments, at least 2 expected")
    message = wire.decode(segments[0].bytes, segments[1].buffer)
    if not isinstance(message, kind):
        raise WireError("unknown_type", f"{type(message).__name__} is no message for this socket")
    return message
