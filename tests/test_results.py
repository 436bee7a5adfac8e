"""Consumers: whatever is lost on the way, each result is given once and in order, and what is gone is said."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import wire
from broker.catchup import CatchUp
from broker.join_server import JoinServer
from broker.ledger import Ledger
from broker.wire import Ask, Copy, Entry, Key, Picture, Published
from clients.cursor import Cursor, Position, Step
from clients.joined import Joined, JoinedPart, MalformedResult, read
from clients.past import HistoryGone
from clients.pictures import Pictures
from clients.results import Results
from tests.join_broker import PATIENCE, FakeBroker, when_free
from tests.join_world import BOOT, Bench, Items, body

Context = zmq.Context[zmq.Socket[bytes]]
Endpoint = Callable[[str], str]
START = Position("", 0)

# --- the cursor ------------------------------------------------------------------------------------------------------

TOPICS = ("frame/a/", "frame/b/", "part/s/")


def stream_of(topics: list[str]) -> list[tuple[str, Published]]:
    last: dict[str, int] = {}
    stream = []
    for seq, topic in enumerate(topics, 1):
        stream.append((topic, Published(ledger_id="l", seq=seq, previous=last.get(topic))))
        last[topic] = seq
    return stream


@given(
    topics=st.lists(st.sampled_from(TOPICS), max_size=60),
    follow=st.sampled_from([[], ["frame/a/"], ["frame/a/", "part/s/"]]),
    since=st.integers(0, 10),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_lost_each_message_is_taken_once_and_in_order(
    topics: list[str], follow: list[str], since: int, data: st.DataObject
) -> None:
    stream = stream_of(topics)
    cursor = Cursor(follow, Position("l", since))
    due = {(seq, name) for seq, (name, _) in enumerate(stream, 1) if seq > since and (not follow or name in follow)}
    taken: list[tuple[int, str]] = []

    def catch_up(published: int, limit: int) -> None:
        asked = sorted(cursor.behind)
        after = cursor.after(asked)
        new = [each for each in stream[:published] if (each[1].seq or 0) > after and (each[0] in asked or "" in asked)]
        for topic, header in new[:limit]:
            seq = header.seq or 0
            if cursor.past(Entry(topic=topic, seq=seq, previous=header.previous, body=b"")):
                taken.append((seq, topic))
        if new:
            cursor.passed(asked, new[:limit][-1][1].seq or 0)
        else:
            cursor.caught_up(asked, "l", max(published, after))

    for published, (topic, header) in enumerate(stream, 1):
        if follow and topic not in follow:
            continue
        for _ in range(data.draw(st.integers(0, 2), label="times it arrives")):
            if cursor.live(topic, header) is Step.TAKE:
                taken.append((header.seq or 0, topic))
        answers: bool = data.draw(st.booleans(), label="an answer comes")
        if cursor.behind and answers:
            catch_up(published, data.draw(st.integers(1, 4), label="page"))
        assert cursor.position is not None
        assert {each for each in due if each[0] <= cursor.position.seq} <= set(taken)
    for _ in range(len(stream) + 2):
        cursor.check()
        cursor.check()
        catch_up(len(stream), 4)
    expected = [
        (seq, name) for seq, (name, _) in enumerate(stream, 1) if seq > since and (not follow or name in follow)
    ]
    assert sorted(taken) == expected
    for name in TOPICS:
        mine = [seq for seq, topic in taken if topic == name]
        assert mine == sorted(mine)


def test_another_ledger_makes_everything_fall_behind() -> None:
    cursor = Cursor(["frame/a/", "frame/b/"], Position("old", 5))
    cursor.caught_up(["frame/a/", "frame/b/"], "old", 5)
    assert cursor.live("frame/a/", Published(ledger_id="new", seq=1, previous=None)) is Step.GAP
    assert cursor.behind == {"frame/a/", "frame/b/"}


def test_a_consumer_from_the_beginning_knows_its_ledger_from_the_first_page() -> None:
    cursor = Cursor([], Position("", 0))
    cursor.found("first")
    assert cursor.past(Entry(topic="frame/a/", seq=1, previous=None, body=b""))
    assert cursor.position == Position("first", 1)
    assert cursor.live("frame/a/", Published(ledger_id="first", seq=2, previous=1)) is Step.TAKE
    cursor.found("second")
    assert cursor.position == Position("first", 2), "another ledger is not taken for the same one"


def test_monitor_frames_are_no_part_of_the_chain() -> None:
    cursor = Cursor([], Position("l", 5))
    assert cursor.live("frame/eye/", Published(ledger_id="l", seq=None, previous=None)) is Step.TAKE
    assert cursor.position == Position("l", 5)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_what_the_join_publishes_is_read(tmp_path: Path) -> None:
    bench, items = Bench(tmp_path / "ledger.sqlite"), Items()
    try:
        top, side = Key("top", BOOT, 0), Key("side", BOOT, 4)
        bench.turn(items.line(), items.expect(*(items.expectation(each, part="p1") for each in (top, side))))
        turn = bench.turn(
            items.result(items.outcome(top, answer=body("scratch")), items.outcome(side, status="failed"))
        )
    finally:
        bench.close()
    first, second, part = (read(topic.decode(), seq, raw) for seq, (topic, _, raw) in enumerate(turn.live, 1))
    assert isinstance(first, Joined) and isinstance(second, Joined) and isinstance(part, JoinedPart)
    assert (first.key, first.verdict, first.outcome, first.part, first.missing) == (top, "ng", "complete", "p1", [])
    assert first.results["alpha"]["detections"][0]["name"] == "scratch"
    assert [(each.model, each.status) for each in second.missing] == [("alpha", "failed")]
    assert (part.station, part.part, part.verdict, sorted(part.frames)) == ("press", "p1", "ng", [side, top])
    with pytest.raises(MalformedResult):
        read("frame/top/", 1, turn.live[2][2])


@given(st.binary(max_size=40), st.sampled_from(TOPICS))
def test_reading_any_bytes_never_raises_anything_else(noise: bytes, topic: str) -> None:
    with pytest.raises(MalformedResult):
        read(topic, 1, noise)


# --- on sockets, with a join that loses what it is told to -----------------------------------------------------------


class FakeJoin:
    """A ledger, a PUB that sends what the test lets through, and a thread that answers catch-up."""

    def __init__(self, endpoint: Endpoint, context: Context, path: Path) -> None:
        self.live_at, self.catchup_at = endpoint("live"), endpoint("catchup")
        self.context = context
        self.path = path
        self.items = Items()
        self.bench = Bench(path)
        self.bench.turn(self.items.line())
        self.live = context.socket(zmq.PUB)
        self.live.linger = 0
        self.live.bind(self.live_at)
        self.seqs: dict[str, int] = {}
        self.questions = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()
        assert self._bound.wait(PATIENCE)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.live.close()
        self.bench.close()

    def publish(self, camera: str = "lone", live: bool = True) -> int:
        """A frame of `camera`; without `live` its message is lost on the way."""
        seq = self.seqs[camera] = self.seqs.get(camera, -1) + 1
        key = Key(camera, BOOT, seq)
        items = self.items
        with self._lock:
            turn = self.bench.turn(items.expect(items.expectation(key)), items.result(items.outcome(key)))
        for segments in turn.live if live else ():
            self.live.send_multipart(segments)
        return seq

    def monitor(self) -> None:
        key = Key("eye", BOOT, 0)
        header = msgspec.msgpack.encode(Published(ledger_id="l", seq=None, previous=None))
        frame = {"camera": "eye", "boot": BOOT, "seq": 0, "station": "free", "policy": "monitor"}
        frame |= {"outcome": "complete", "verdict": "none", "results": {}}
        self.live.send_multipart([f"frame/{key.camera}/".encode(), header, msgspec.msgpack.encode(frame)])

    def _answer(self) -> None:
        with self.context.socket(zmq.ROUTER) as socket:
            socket.linger = 0
            socket.bind(self.catchup_at)
            self._bound.set()
            while not self._stop.is_set():
                if not socket.poll(5):
                    continue
                identity, *segments = socket.recv_multipart()
                self.questions += 1
                with self._lock:
                    for answer in self._answers(identity, wire.decode_message(segments)):
                        socket.send_multipart([identity, *wire.encode(answer)])

    def _answers(self, identity: bytes, since: wire.Since) -> Iterator[wire.Message]:
        """From a connection of this thread's own."""
        reader = Reader(self.path)
        try:
            catchup = CatchUp(reader)
            catchup.ask(identity, since)
            while len(catchup):
                answer = catchup.step()
                if answer is not None:
                    yield answer[1]
        finally:
            reader.close()


class Reader(Ledger):
    """A ledger that is only read, beside the one that writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._db = sqlite3.connect(path, isolation_level=None)
        self.ledger_id = self._db.execute("SELECT value FROM meta").fetchone()[0]


@pytest.fixture
def join(endpoint: Endpoint, context: Context, tmp_path: Path) -> Iterator[FakeJoin]:
    join = FakeJoin(endpoint, context, tmp_path / "ledger.sqlite")
    yield join
    join.close()


def consumer(join: FakeJoin, since: Position | None = START, cameras: list[str] | None = None) -> Results:
    """Looks up every 0.05 s."""
    return Results(
        join.live_at, catchup=join.catchup_at, cameras=cameras or [], since=since, timeout=0.05, context=join.context
    )


def take(results: Results, count: int) -> list[tuple[str, int]]:
    """The next results but those of camera `eye`, whose frames only show that the subscription has arrived."""
    deadline = time.monotonic() + PATIENCE
    found: list[tuple[str, int]] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} results"
        result = next(results, None)
        if isinstance(result, Joined) and result.key.camera != "eye":
            found.append((result.key.camera, result.key.seq))
    return found


def lone(*seqs: int) -> list[tuple[str, int]]:
    return [("lone", seq) for seq in seqs]


def connected(join: FakeJoin, results: Results) -> None:
    """Until its subscription has arrived: a monitor frame came through."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, "no subscription"
        join.monitor()
        result = next(results, None)
        if isinstance(result, Joined) and result.key.camera == "eye":
            return


def test_an_away_consumer_misses_nothing(join: FakeJoin) -> None:
    for _ in range(3):
        join.publish()
    with consumer(join) as results:
        assert take(results, 3) == lone(0, 1, 2)
        position = results.position
    assert position is not None and position.seq == 3
    for _ in range(600):
        join.publish(live=False)
    with consumer(join, since=position) as results:
        assert take(results, 600) == lone(*range(3, 603))
        join.publish()
        assert take(results, 1) == lone(603)


def test_the_position_is_that_of_the_result_that_was_given(join: FakeJoin) -> None:
    for _ in range(5):
        join.publish()
    with consumer(join) as results:
        take(results, 2)
        position = results.position
    assert position is not None and position.seq == 2
    with consumer(join, since=position) as results:
        assert take(results, 3) == lone(2, 3, 4)


def test_a_gap_in_the_live_stream_is_filled(join: FakeJoin) -> None:
    with consumer(join) as results:
        connected(join, results)
        join.publish()
        assert take(results, 1) == lone(0)
        join.publish(live=False)
        join.publish(live=False)
        join.publish()
        assert take(results, 3) == lone(1, 2, 3)
        assert results.gaps == 1 and results.malformed == 0


def test_a_lost_last_message_is_found_too(join: FakeJoin) -> None:
    with consumer(join) as results:
        connected(join, results)
        join.publish()
        assert take(results, 1) == lone(0)
        join.publish(live=False)
        assert take(results, 1) == lone(1)


def test_chosen_cameras_only(join: FakeJoin) -> None:
    with consumer(join, cameras=["lone", "top"]) as results:
        for camera in ("lone", "side", "top", "side", "lone"):
            join.publish(camera)
        assert take(results, 3) == [("lone", 0), ("top", 0), ("lone", 1)]
        for _ in range(3):
            join.publish("side", live=False)
        join.publish("top")
        assert take(results, 1) == [("top", 1)]
        assert results.position is not None


def test_from_now_on_is_the_default(join: FakeJoin) -> None:
    join.publish()
    with consumer(join, since=None) as results:
        deadline = time.monotonic() + PATIENCE
        while results.position is None and time.monotonic() < deadline:
            assert list(results) == []
        join.publish()
        assert take(results, 1) == lone(1)


def test_the_iteration_ends_after_its_timeout_and_can_be_taken_up(join: FakeJoin) -> None:
    with consumer(join) as results:
        assert list(results) == []
        join.publish()
        assert take(results, 1) == lone(0)


def test_without_a_join_it_waits(endpoint: Endpoint, context: Context) -> None:
    with Results(endpoint("l"), catchup=endpoint("c"), timeout=0.05, context=context) as results:
        assert list(results) == [] and results.position is None


def test_what_is_gone_is_said_and_the_rest_is_given(join: FakeJoin) -> None:
    for _ in range(4):
        join.publish(live=False)
    db = join.bench.ledger._db
    assert db is not None
    db.execute("DELETE FROM published WHERE seq <= 2")
    with consumer(join) as results:
        with pytest.raises(HistoryGone) as gone:
            take(results, 1)
        assert (gone.value.oldest, gone.value.missing) == (3, 2)
        assert take(results, 2) == lone(2, 3)
    with consumer(join, since=Position("another", 77)) as results:
        with pytest.raises(HistoryGone, match=r"unknown number .* seq 77 of ledger another") as gone:
            take(results, 1)
        assert gone.value.missing is None
        assert take(results, 2) == lone(2, 3)


def test_malformed_messages_are_counted_and_skipped(join: FakeJoin) -> None:
    with consumer(join) as results:
        connected(join, results)
        header = msgspec.msgpack.encode(Published(ledger_id="l", seq=None, previous=None))
        bad = [
            [b"frame/lone/"],
            [b"\xff", header, b""],
            [b"frame/lone/", b"\xc1", b""],
            [b"frame/lone/", header, b"\x80"],
        ]
        for segments in bad:
            join.live.send_multipart(segments)
        join.publish()
        assert take(results, 1) == lone(0)
        assert results.malformed == len(bad)


def test_without_a_context_it_has_its_own(join: FakeJoin, transport: str) -> None:
    if transport == "inproc":
        pytest.skip("inproc needs a shared context")
    join.publish()
    with Results(join.live_at, catchup=join.catchup_at, since=START, timeout=0.05) as results:
        assert take(results, 1) == lone(0)


# --- on sockets, with the real join ----------------------------------------------------------------------------------


def test_a_consumer_outlives_the_join(endpoint: Endpoint, transport: str, context: Context, tmp_path: Path) -> None:
    """Everything is given once and in order while the join is stopped and started under load."""
    if transport == "inproc":
        pytest.skip("inproc does not connect again")
    egress, live, catchup = (endpoint(name) for name in ("egress", "live", "catchup"))
    got: list[tuple[str, int]] = []
    total, ended = 400, threading.Event()

    def consume() -> None:
        with Results(live, catchup=catchup, since=START, timeout=0.2, context=context) as results:
            while len(got) < total and not ended.is_set():
                got.extend((result.key.camera, result.key.seq) for result in results if isinstance(result, Joined))

    thread = threading.Thread(target=consume)
    thread.start()
    items = Items()
    try:
        with FakeBroker(egress, context) as broker:
            broker.items = items
            for part in range(4):
                server = JoinServer(
                    egress=egress, live=live, catchup=catchup, ledger=tmp_path / "ledger.sqlite", context=context
                )
                running = threading.Thread(target=when_free, args=(server.run,))
                running.start()
                try:
                    for seq in range(part * total // 4, (part + 1) * total // 4):
                        key = Key("lone", BOOT, seq)
                        broker.tell(items.expectation(key, budget=600.0), items.outcome(key))
                        broker.serve(0)
                    broker.settle()
                    if part == 3:
                        broker.until(lambda: len(got) >= total, "the consumer misses something")
                finally:
                    server.stop()
                    running.join()
    finally:
        ended.set()
        thread.join()
    assert got == lone(*range(total))


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_by_key(endpoint: Endpoint, context: Context) -> None:
    at = endpoint("pictures")
    held, lost = Key("cam1", BOOT, 1), Key("cam1", BOOT, 2)
    stop = threading.Event()

    def recorder() -> None:
        with context.socket(zmq.ROUTER) as socket:
            socket.linger = 0
            socket.bind(at)
            while not stop.is_set():
                if not socket.poll(5):
                    continue
                identity, kind, header = socket.recv_multipart()
                ask: Ask = wire.decode(kind, header)
                stale = Picture(key=Key("cam9", BOOT, 9), found=True, encoding="jpeg")
                answer = Picture(key=ask.key, found=ask.key == held, encoding="png", shape=[4, 4])
                copy = Copy(key=held, encoding="png", shape=[4, 4])
                for message, payload in ((stale, [b"old"]), (copy, [b""]), (answer, []), (answer, [b"bytes"])):
                    socket.send_multipart([identity, *wire.encode(message), *payload])

    thread = threading.Thread(target=recorder)
    thread.start()
    try:
        with Pictures(at, context) as pictures:
            found = pictures.get(held, timeout=PATIENCE)
            assert found is not None
            assert (found.encoding, found.shape, found.stride, found.payload) == ("png", [4, 4], None, b"bytes")
            assert pictures.get(lost, timeout=PATIENCE) is None
            assert pictures.malformed
    finally:
        stop.set()
        thread.join()


def test_without_a_recorder_there_is_a_clear_error(endpoint: Endpoint, context: Context) -> None:
    with Pictures(endpoint("nobody"), context) as pictures, pytest.raises(TimeoutError, match="no recorder answered"):
        pictures.get(Key("cam1", BOOT, 1), timeout=0.05)
