"""Consumers that never read, that are killed, and that come too late: none holds the line up, none is left in doubt."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zmq

from broker import wire
from broker.catchup import DEAF, DEAF_FOR, CatchUp
from broker.join_doors import LIVE_WAITING
from broker.ledger import Ledger
from broker.report import report
from broker.retention import LEAST_BYTES, Keep
from broker.wire import Key, Since
from clients.bookmark import Bookmark, BookmarkError
from clients.camera import Camera
from clients.cursor import Position
from clients.joined import Joined
from clients.past import HistoryGone
from clients.results import Results
from tests.conftest import free_port
from tests.join_broker import PATIENCE, FakeBroker
from tests.join_world import BOOT, Items
from tests.test_join_server import CODE, Rig
from tests.whole_line import whole_line
from workers.engine.fake import Fake

Context = zmq.Context[zmq.Socket[bytes]]
Endpoint = Callable[[str], str]
ROOT = Path(__file__).parents[1]
#: The largest answer that a two-byte length allows.
LARGE = b"\x81\xa1x\xc5\xff\xff" + b"x" * 65535


def lone(seq: int) -> Key:
    return Key("lone", BOOT, seq)


class Healthy(threading.Thread):
    """Takes every result, in a thread of its own."""

    def __init__(self, live: str, catchup: str, context: Context) -> None:
        super().__init__()
        self.keys: list[Key] = []
        self._results = Results(live, catchup=catchup, since=Position("", 0), timeout=0.2, context=context)
        self._end = threading.Event()

    def run(self) -> None:
        with self._results:
            while not self._end.is_set():
                self.keys += [result.key for result in self._results if isinstance(result, Joined)]

    def __enter__(self) -> Healthy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()


@contextlib.contextmanager
def deaf(kind: int, endpoint: str, context: Context) -> Iterator[zmq.Socket[bytes]]:
    """A consumer that connects, and never reads."""
    with context.socket(kind) as socket:
        socket.linger = 0
        socket.rcvhwm = 1
        socket.sndhwm = 10
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(endpoint)
        yield socket


def ask(socket: zmq.Socket[bytes]) -> None:
    with contextlib.suppress(zmq.Again):
        socket.send_multipart(wire.encode(Since(ledger_id="", seq=0)), zmq.NOBLOCK)


@contextlib.contextmanager
def join_process(*endpoints: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", CODE, *map(str, endpoints)], cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_consumers_that_never_read_hold_nobody_up(
    endpoint: Endpoint, transport: str, context: Context, tmp_path: Path
) -> None:
    """One listens to the live stream, one asks for the past; a third one, beside them, gets everything. The join, a
    process of its own, holds no more for them than its queues allow."""
    if transport == "inproc":
        pytest.skip("another process")
    egress, live, catchup = (endpoint(name) for name in ("egress", "live", "catchup"))
    frames, items = 4 * LIVE_WAITING, Items()
    with (
        FakeBroker(egress, context) as broker,
        join_process(egress, live, catchup, tmp_path / "l.sqlite") as process,
        deaf(zmq.SUB, live, context),
        deaf(zmq.DEALER, catchup, context) as asking,
        Healthy(live, catchup, context) as healthy,
    ):
        broker.items = items
        broker.until(lambda: broker.join)
        before = psutil.Process(process.pid).memory_info().rss
        todo = iter(range(frames))

        def feed() -> bool:
            ask(asking)
            for _ in range(20 if len(broker.unacked) < 400 else 0):
                seq = next(todo, None)
                if seq is not None:
                    broker.tell(items.expectation(lone(seq), budget=600.0), items.outcome(lone(seq), answer=LARGE))
            return broker.acked_total == 2 * frames

        deadline = time.monotonic() + 6 * PATIENCE
        while not feed():
            assert time.monotonic() < deadline, f"{broker.acked_total} acked"
            broker.serve()
        grown = psutil.Process(process.pid).memory_info().rss - before
        broker.until(lambda: len(healthy.keys) >= frames, f"{len(healthy.keys)} of {frames} received")
    assert healthy.keys == [lone(seq) for seq in range(frames)]
    assert grown < 2 * LIVE_WAITING * len(LARGE), f"{grown >> 20} MB for what nobody reads"
    assert report(tmp_path / "l.sqlite")["complete"] == frames


def test_a_whole_line_goes_on_beside_them(endpoint: Endpoint, transport: str, context: Context, tmp_path: Path) -> None:
    if transport == "inproc":
        pytest.skip("a consumer over inproc that does not read is in the join's own process")
    frames, picture = 150, np.zeros((64, 64, 3), np.uint8)
    with whole_line(endpoint, context, tmp_path, {"fake": Fake()}) as line:
        ends = line.line.endpoints
        with (
            deaf(zmq.SUB, ends.live, context),
            deaf(zmq.DEALER, ends.catchup, context) as asking,
            Healthy(ends.live, ends.catchup, context) as healthy,
            Camera("cam1", endpoint=ends.frontend, context=context, deadline=30.0) as camera,
        ):
            for _ in range(frames):
                ask(asking)
                camera.send(picture, encoding="bgr8", timeout=PATIENCE)
            assert camera.flush(PATIENCE)
            assert (camera.stats.complete, camera.stats.incomplete) == (frames, 0)
            line.wait_published(frames)
            deadline = time.monotonic() + PATIENCE
            while len(taken := [key.seq for key in healthy.keys if key.camera == "cam1"]) < frames:
                assert time.monotonic() < deadline, f"{len(taken)} of {frames} received"
                ask(asking)
                healthy.join(0.02)
        assert taken == list(range(frames))
        assert line.report()["complete"] == frames


def test_a_consumer_that_does_not_read_is_answered_once_a_second(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        catchup, since = CatchUp(ledger), Since(ledger_id="", seq=0)
        assert catchup.ask(b"deaf", since, 10.0) and catchup.step()
        catchup.unread(b"deaf", 10.0)
        assert not catchup.ask(b"deaf", since, 10.0 + 0.9 * DEAF_FOR)
        assert catchup.ask(b"other", since, 10.0)
        assert catchup.ask(b"deaf", since, 10.0 + DEAF_FOR)
        for number in range(2 * DEAF):
            catchup.unread(str(number).encode(), 20.0)
        assert len(catchup._deaf) == DEAF


def test_it_is_heard_of_that_somebody_does_not_read(endpoint: Endpoint, context: Context, tmp_path: Path) -> None:
    rig = Rig(endpoint, context, tmp_path / "ledger.sqlite")
    with contextlib.closing(rig):
        rig.open()
        items, server = rig.broker.items, rig.server
        assert server is not None
        for seq in range(40):
            rig.broker.tell(items.expectation(lone(seq), budget=60.0), items.outcome(lone(seq), answer=LARGE))
        rig.broker.settle()
        with deaf(zmq.DEALER, rig.catchup, context) as asking:

            def refused() -> bool:
                ask(asking)
                return server.counts["undelivered_total", "Page", "full"] > 0

            rig.broker.until(refused)
        assert rig.ask(Since(ledger_id="", seq=40)) == wire.End(ledger_id=rig.disk.ledger_id, seq=40)


# --- too late --------------------------------------------------------------------------------------------------------


def test_a_consumer_that_comes_too_late_is_told_how_much_it_missed(
    endpoint: Endpoint, context: Context, tmp_path: Path
) -> None:
    """A real join with a limit, on which the past does not find room."""
    rig = Rig(endpoint, context, tmp_path / "ledger.sqlite")
    rig.settings = {"keep": Keep(bytes=LEAST_BYTES)}
    frames = 700
    with contextlib.closing(rig):
        rig.open()
        items, server = rig.broker.items, rig.server
        assert server is not None
        for seq in range(frames):
            rig.broker.tell(items.expectation(lone(seq), budget=600.0), items.outcome(lone(seq), answer=LARGE))
            rig.broker.until(lambda: len(rig.broker.unacked) < 50)
        rig.broker.settle()
        rig.broker.until(lambda: len(rig.frames()) == frames, "who listens all the time gets everything")
        rig.broker.until(lambda: report(rig.ledger)["bytes"] <= LEAST_BYTES)
        rig.stop()
        told = report(rig.ledger)
        oldest, ledger_id = told["oldest_seq"], told["ledger_id"]
        assert 100 < oldest <= frames and told["deleted"]["frames"] == oldest - 1
        rig.start()
        with Results(
            rig.live, catchup=rig.catchup, since=Position(ledger_id, 3), timeout=0.1, context=context
        ) as results:
            found: list[int] = []
            told_of: list[HistoryGone] = []
            deadline = time.monotonic() + PATIENCE
            while frames - 1 not in found and time.monotonic() < deadline:
                try:
                    for result in results:
                        assert isinstance(result, Joined)
                        found.append(result.key.seq)
                except HistoryGone as gone:  # more than once where the join deletes on meanwhile
                    told_of.append(gone)
        first = told_of[0]
        assert f"{first.oldest - 4} publications since seq 3" in str(first)
        assert first.oldest >= oldest and first.missing == first.oldest - 4
        assert found == sorted(set(found)) and found[-1] == frames - 1
        assert len(found) + sum(gone.missing or 0 for gone in told_of) == frames - 3, (
            "each came, or is among the missing"
        )
    counts = report(rig.ledger)
    assert (counts["accepted"], counts["joined"], counts["unpublished"]) == (frames, frames, 0)


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_consumer_that_is_killed_misses_nothing(context: Context, tmp_path: Path) -> None:
    """kill -9 in the middle of pages and of the live stream, while the join is killed too."""
    egress, live, catchup = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))
    ledger, shown = tmp_path / "l.sqlite", tmp_path / "shown.jsonl"
    watch = [sys.executable, "-m", "clients", "watch", "--live", live, "--catchup", catchup, "--since", "0", "--json"]
    watch += ["--bookmark", str(tmp_path / "bookmark.json"), "--log-level", "error"]
    frames, items = 1200, Items()
    with FakeBroker(egress, context) as broker:
        broker.items = items
        todo = iter(range(frames))
        for turn in range(6):
            with (
                join_process(egress, live, catchup, ledger),
                shown.open("ab") as out,
                subprocess.Popen(watch, cwd=ROOT, stdout=out) as consumer,
            ):
                begun = lines(shown)

                def feed(turn: int = turn, begun: int = begun) -> bool:
                    for seq in [seq for _, seq in zip(range(10), todo, strict=False)]:
                        broker.tell(items.expectation(lone(seq), budget=600.0), items.outcome(lone(seq)))
                    if turn == 5:
                        return seen(shown) == set(range(frames))
                    return broker.acked_total > 400 * turn and lines(shown) > begun + 50

                try:
                    broker.until(feed, f"{len(seen(shown))} of {frames} shown")
                finally:
                    consumer.kill()
    assert seen(shown) == set(range(frames))


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def seen(path: Path) -> set[int]:
    """The seqs in lines that are whole; a kill may have cut one off, and the next one begins behind it."""
    found = set()
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            found.add(json.loads(line)["seq"])
    return found


SAVER = """
import sys
from pathlib import Path
from clients.camera import Camera
from clients.bookmark import Bookmark
from clients.cursor import Position
mark = Bookmark(Path(sys.argv[1]))
position = mark.load() or Position("ledger", 0)
while True:
    position = Position(position.ledger_id, position.seq + 1)
    mark.save(position)
    print(position.seq, flush=True)
"""


@pytest.mark.slow
def test_a_bookmark_outlives_every_kill(tmp_path: Path) -> None:
    """Whatever was being written when it was killed: the file holds a position, and no older one than was said."""
    path, highest = tmp_path / "bookmark.json", 0
    for number in range(12):
        with subprocess.Popen([sys.executable, "-c", SAVER, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(3 + 7 * number):
                highest = max(highest, int(process.stdout.readline()))
            process.kill()
            for line in process.stdout:
                highest = max(highest, int(line)) if line.endswith(b"\n") else highest
        found = Bookmark(path).load()
        assert found is not None and highest <= found.seq <= highest + 1
    assert {each.name for each in tmp_path.iterdir()} <= {"bookmark.json", "bookmark.json.new"}


def test_a_bookmark_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "bookmark.json"
    assert Bookmark(path).load() is None
    path.write_text('["ledger"')
    with pytest.raises(BookmarkError, match="holds no position"):
        Bookmark(path).load()
    Bookmark(path).save(Position("ledger", 7))
    assert Bookmark(path).load() == Position("ledger", 7)
    with pytest.raises(BookmarkError, match="cannot be written"):
        Bookmark(tmp_path / "no" / "folder").save(Position("ledger", 7))
