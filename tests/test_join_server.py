"""The join's loop on real sockets, against a fake broker: what it promises through faults, kills and full disks."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from structlog.testing import capture_logs

from broker import wire
from broker.join_server import JoinServer
from broker.ledger import Ledger, LedgerError
from broker.report import report
from broker.retention import FOR_EVER
from broker.rows import Rows
from broker.wire import End, Gone, Key, Page, Published, Since
from tests.conftest import free_port
from tests.join_broker import PATIENCE, FakeBroker, when_free
from tests.join_world import BOOT, Items, body

Context = zmq.Context[zmq.Socket[bytes]]
Endpoint = Callable[[str], str]


class DiskLedger(Ledger):
    """A ledger on a disk that has room for `pages` pages; for those that are there in any case."""

    pages: int = 1 << 30

    def commit(self, rows: Rows) -> list[str]:
        assert self._db is not None
        self._db.execute(f"PRAGMA max_page_count = {self.pages}")
        return super().commit(rows)


class Rig:
    """A join in a thread, a fake broker and a subscriber."""

    def __init__(self, endpoint: Endpoint, context: Context, ledger: Path) -> None:
        self.egress, self.live, self.catchup = (endpoint(name) for name in ("egress", "live", "catchup"))
        self.context = context
        self.ledger = ledger
        self.stack = contextlib.ExitStack()
        self.server: JoinServer | None = None
        self.thread: threading.Thread | None = None
        self.settings: dict[str, Any] = {}

    def open(self) -> None:
        self.broker = self.stack.enter_context(FakeBroker(self.egress, self.context))
        self.start()
        self.subscriber = self.stack.enter_context(self.context.socket(zmq.SUB))
        self.subscriber.linger = 0
        self.subscriber.rcvhwm = 0
        self.subscriber.subscribe(b"")
        self.subscriber.connect(self.live)
        self.broker.until(lambda: self.broker.join)
        self.received: list[tuple[str, Published, dict[str, Any], bytes]] = []
        self._subscribed()

    def start(self) -> None:
        self.disk = DiskLedger(self.ledger, self.settings.get("keep", FOR_EVER))
        self.server = JoinServer(
            egress=self.egress,
            live=self.live,
            catchup=self.catchup,
            ledger=self.disk,
            context=self.context,
            **self.settings,
        )
        self.thread = threading.Thread(target=when_free, args=(self.server.run,))
        self.thread.start()
        assert self.server.ready.wait(PATIENCE)

    def stop(self) -> None:
        if self.server is not None and self.thread is not None:
            self.server.stop()
            self.thread.join(PATIENCE)
            assert not self.thread.is_alive()
        self.server = None

    def close(self) -> None:
        self.stop()
        self.stack.close()

    def frames(self) -> list[int]:
        """The seqs of the joined frames that were published live, of camera `lone`."""
        self.take()
        return [sent["seq"] for topic, _, sent, _ in self.received if topic == "frame/lone/"]

    def take(self) -> None:
        while self.subscriber.poll(0):
            topic, header, sent = self.subscriber.recv_multipart()
            published = msgspec.msgpack.decode(header, type=Published)
            self.received.append((topic.decode(), published, msgspec.msgpack.decode(sent), sent))

    def ask(self, message: wire.Message) -> Any:
        with self.context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(self.catchup)
            socket.send_multipart(wire.encode(message))
            deadline = time.monotonic() + PATIENCE
            while not socket.poll(10):
                assert time.monotonic() < deadline, "no answer"
                self.broker.serve(0)
            return wire.decode_message(socket.recv_multipart())

    def _subscribed(self) -> None:
        """The subscription has arrived: monitor frames come through."""
        items, probe = self.broker.items, iter(range(10**6))

        def arrived() -> bool:
            key = Key("eye", BOOT, next(probe))
            self.broker.send(items.expect(items.expectation(key, policy="monitor")), items.result(items.outcome(key)))
            self.broker.serve()
            self.take()
            return bool(self.received)

        self.broker.until(arrived)


@pytest.fixture
def rig(endpoint: Endpoint, context: Context, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(endpoint, context, tmp_path / "ledger.sqlite")
    try:
        rig.open()
        yield rig
    finally:
        rig.close()


def key(seq: int) -> Key:
    return Key("lone", BOOT, seq)


def test_a_frame_is_acked_published_and_can_be_caught_up(rig: Rig) -> None:
    items = rig.broker.items
    rig.broker.tell(items.expectation(key(0), ["alpha", "beta"]))
    rig.broker.settle()
    rig.broker.tell(items.outcome(key(0), "alpha", answer=body("bolt")), items.outcome(key(0), "beta"))
    rig.broker.until(lambda: rig.frames() == [0])
    rig.broker.settle()
    topic, header, sent, raw = rig.received[-1]
    assert (topic, header.seq, header.previous, sent["outcome"]) == ("frame/lone/", 1, None, "complete")
    page = rig.ask(Since(ledger_id=header.ledger_id, seq=0))
    assert isinstance(page, Page)
    assert [(entry.topic, entry.seq, entry.body) for entry in page.items] == [(topic, 1, raw)]
    assert rig.ask(Since(ledger_id="", seq=1)) == End(ledger_id=header.ledger_id, seq=1)
    assert rig.ask(Since(ledger_id="other", seq=1)) == Gone(ledger_id=header.ledger_id, oldest=1)
    assert rig.server is not None
    samples = rig.server.samples()
    assert samples["joined_total", "lone", "complete"] == 1
    assert samples["joined_within_total", "+Inf"] == samples["published_total",]


def test_a_silent_broker_gets_closed(rig: Rig) -> None:
    rig.broker.tell(rig.broker.items.expectation(key(0), ["alpha", "beta"], budget=0.1))
    rig.broker.until(lambda: rig.broker.closings)
    [closing] = rig.broker.closings
    assert (closing.key, closing.models) == (key(0), ["alpha", "beta"])
    rig.broker.until(lambda: rig.frames() == [0])
    assert rig.received[-1][2]["outcome"] == "incomplete"


def test_a_join_that_hears_no_broker_says_so(endpoint: Endpoint, context: Context, tmp_path: Path) -> None:
    rig = Rig(endpoint, context, tmp_path / "ledger.sqlite")
    rig.settings = {"patience": 0.2}
    with capture_logs() as logs, contextlib.closing(rig):
        rig.start()
        deadline = time.monotonic() + PATIENCE
        while not told(logs):
            assert time.monotonic() < deadline, "no warning"
        broker = rig.stack.enter_context(FakeBroker(rig.egress, context))
        broker.until(lambda: len(told(logs)) > 1)
    lost, back = told(logs)[:2]
    assert (lost["event"], lost["log_level"], lost["egress"]) == ("no broker answers", "warning", rig.egress)
    assert (back["event"], back["log_level"]) == ("the broker answers again", "info")


def told(logs: Sequence[Any]) -> list[Any]:
    """What the join logged of the broker's silence."""
    return [entry for entry in logs if "answers" in entry["event"]]


def test_bad_bytes_stop_nothing(rig: Rig) -> None:
    bad: list[tuple[bytes, ...]] = [
        (b"",),
        (b"A",),
        (b"A", b"\xc1"),
        (b"\xff", b"\x80"),
        (b"a", b"\x80"),
        (b"Q", b"\x80"),
    ]
    for segments in bad:
        rig.broker.raw(*segments)
    with rig.context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(rig.catchup)
        for segments in [*bad[:4], (b"a", b"b", b"c")]:
            socket.send_multipart(segments)
        socket.send_multipart(wire.encode(Since(ledger_id="", seq=0)))
        rig.broker.until(lambda: socket.poll(0))
        assert isinstance(wire.decode_message(socket.recv_multipart()), End)
    rig.broker.tell(rig.broker.items.expectation(key(0)), rig.broker.items.outcome(key(0)))
    rig.broker.settle()
    assert rig.server is not None
    refused = sum(count for (name, *_), count in rig.server.counts.items() if name == "refused_total")
    assert refused == 11


def test_another_join_process_goes_on_where_this_one_stopped(rig: Rig) -> None:
    items = rig.broker.items
    rig.broker.tell(items.expectation(key(0)), items.outcome(key(0)), items.expectation(key(1), ["alpha", "beta"]))
    rig.broker.tell(items.outcome(key(1), "alpha"))
    rig.broker.settle()
    rig.broker.until(lambda: rig.frames() == [0])
    rig.stop()
    rig.start()
    first = rig.broker.join_epoch
    rig.broker.until(lambda: rig.broker.join_epoch != first)
    again = items.expectation(key(1), ["alpha", "beta"])
    rig.broker.tell(again, items.outcome(key(1), "beta"))
    rig.broker.settle()
    assert rig.broker.known[again.ticket].statuses == {"alpha": "ok"}
    counts = report(rig.ledger)
    assert (counts["complete"], counts["open"], counts["duplicates"]) == (2, 0, 0)


def test_another_broker_goes_on_where_the_first_one_stopped(rig: Rig) -> None:
    """It knows nothing; the cameras send again what was not settled."""
    items = rig.broker.items
    rig.broker.tell(items.expectation(key(0), ["alpha", "beta"], budget=60.0), items.outcome(key(0), "alpha"))
    rig.broker.settle()
    rig.broker.__exit__()
    with FakeBroker(rig.egress, rig.context) as broker:
        broker.items = items = Items("ffffffffffff")
        again = items.expectation(key(0), ["alpha", "beta"], budget=50.0)
        broker.tell(again)
        broker.settle()
        assert broker.known[again.ticket].statuses == {"alpha": "ok"}
        broker.tell(items.outcome(key(0), "beta"))
        broker.settle()
        broker.until(lambda: rig.frames() == [0])
    assert report(rig.ledger)["complete"] == 1


def test_a_second_join_on_the_ledger_says_so(rig: Rig, endpoint: Endpoint) -> None:
    names = (endpoint(name) for name in ("egress2", "live2", "catchup2"))
    egress, live, catchup = names
    other = JoinServer(egress=egress, live=live, catchup=catchup, ledger=rig.ledger, context=rig.context)
    with pytest.raises(LedgerError, match="another join"):
        other.run()


def test_a_taken_endpoint_says_so(tmp_path: Path, context: Context) -> None:
    taken = f"tcp://127.0.0.1:{free_port()}"
    server = JoinServer(egress="inproc://e", live=taken, catchup=taken, ledger=tmp_path / "l.sqlite", context=context)
    with pytest.raises(zmq.ZMQError, match="in use"):
        server.run()
    with Ledger(tmp_path / "l.sqlite") as ledger:  # and nothing was left open
        assert ledger.last_seq() == 0


def test_a_full_disk_holds_the_line_up_and_loses_nothing(rig: Rig) -> None:
    assert rig.server is not None
    server, items = rig.server, rig.broker.items
    rig.broker.tell(items.expectation(key(0), budget=60.0))
    rig.broker.settle()
    rig.disk.pages = 1
    large = b"\x81\xa1x\xc5\xff\xff" + b"x" * 65535
    rig.broker.tell(items.outcome(key(0), answer=large))
    for seq in range(1, 20):
        rig.broker.tell(items.expectation(key(seq), budget=60.0), items.outcome(key(seq), answer=large))
    rig.broker.until(lambda: server.counts["ledger_failures_total",] >= 2)
    assert rig.frames() == [] and len(rig.broker.unacked) >= 20  # a row without a body may still have found room
    monitor = Key("eye", BOOT, 10**7)  # which the ledger does not hold up
    rig.broker.send(items.expect(items.expectation(monitor, policy="monitor")), items.result(items.outcome(monitor)))

    def seen() -> bool:
        rig.take()
        return any(sent["seq"] == monitor.seq for _, _, sent, _ in rig.received)

    rig.broker.until(seen)
    rig.disk.pages = 1 << 30
    rig.broker.settle()
    rig.broker.until(lambda: len(rig.frames()) == 20)
    assert sorted(rig.frames()) == list(range(20))
    counts = report(rig.ledger)
    assert (counts["complete"], counts["duplicates"], counts["published"]) == (20, 0, 20)


# --- killed ----------------------------------------------------------------------------------------------------------

CODE = """
import sys
from pathlib import Path
from broker.join_server import JoinServer
egress, live, catchup, ledger = sys.argv[1:]
JoinServer(egress=egress, live=live, catchup=catchup, ledger=Path(ledger)).run()
"""


def test_killed_in_the_middle_nothing_is_lost_and_nothing_twice(tmp_path: Path, context: Context) -> None:
    egress, live, catchup = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))
    ledger = tmp_path / "ledger.sqlite"
    command = [sys.executable, "-c", CODE, egress, live, catchup, str(ledger)]
    root = Path(__file__).parents[1]
    frames = 1500
    items = Items()
    with FakeBroker(egress, context) as broker:
        broker.items = items
        todo = iter(range(frames))
        for kill_at in (300, 800, 1300, None):
            with subprocess.Popen(command, cwd=root) as process:
                try:
                    target = frames * 2 if kill_at is None else kill_at * 2

                    def feed(target: int = target) -> bool:
                        for seq in [seq for _, seq in zip(range(20), todo, strict=False)]:
                            broker.tell(items.expectation(key(seq), budget=600.0), items.outcome(key(seq)))
                        return broker.acked_total >= target

                    broker.until(feed, f"{broker.acked_total} acked")
                finally:
                    process.kill()
    counts = report(ledger)
    assert (counts["accepted"], counts["complete"], counts["duplicates"]) == (frames, frames, 0)
    assert counts["published"] == frames and counts["unpublished"] == counts["late_results"] == 0
    with Ledger(ledger) as opened:
        assert opened.last_seq() == frames
