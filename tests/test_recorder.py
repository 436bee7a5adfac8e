"""The recorder: which pictures are kept, where, and how little room they take; and its loop on real sockets."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import zmq

from broker import wire
from broker.missed import AGAIN_AFTER, Missed
from broker.notifier import Notifier
from broker.patience import LEAST
from broker.recorder import Recorder
from broker.recorder_server import RecorderServer
from broker.wire import Ask, Copy, Encoding, End, Entry, Gone, Key, Page, Picture, Published, Since
from tests.join_broker import when_free

Context = zmq.Context[zmq.Socket[bytes]]
BOOT = "c0ffee000000"
VERDICTS = ("ok", "ng", "incomplete", "none")
PATIENCE = 20.0
JPEG = cv2.imencode(".jpg", np.full((8, 12, 3), 90, np.uint8))[1].tobytes()


def key(seq: int, camera: str = "cam1", boot: str = BOOT) -> Key:
    return Key(camera, boot, seq)


def copy_of(
    key: Key, encoding: Encoding = "jpeg", shape: tuple[int, ...] = (8, 12, 3), stride: int | None = None
) -> Copy:
    return Copy(key=key, encoding=encoding, shape=list(shape), stride=stride)


def make(folder: Path, memory: int = 1 << 20, disk: int = 1 << 20, keep: tuple[str, ...] = VERDICTS) -> Recorder:
    recorder = Recorder(folder, memory, disk, keep, Counter())
    recorder.load()
    return recorder


def put(recorder: Recorder, key: Key, payload: bytes = JPEG, verdict: str | None = "ng") -> None:
    recorder.copy(copy_of(key), payload, len(payload))
    if verdict is not None:
        recorder.verdict(key, verdict)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_picture_waits_in_memory_and_is_stored_by_its_verdict(tmp_path: Path) -> None:
    recorder = make(tmp_path)
    put(recorder, key(7), verdict=None)
    found = recorder.find(key(7))
    assert found is not None and (found.encoding, found.shape, found.payload) == ("jpeg", [8, 12, 3], JPEG)
    assert files(tmp_path) == []
    recorder.verdict(key(7), "ng")
    assert files(tmp_path) == [f"ng/cam1/{BOOT}-7.jpg"]
    assert (tmp_path / "ng" / "cam1" / f"{BOOT}-7.jpg").read_bytes() == JPEG
    found = recorder.find(key(7))
    assert found is not None and (found.encoding, found.shape, found.payload) == ("jpeg", [], JPEG)
    assert recorder.memory_bytes == 0 and recorder.disk_bytes == len(JPEG)


def test_a_verdict_may_come_first(tmp_path: Path) -> None:
    recorder = make(tmp_path)
    recorder.verdict(key(0), "ok")
    put(recorder, key(0), verdict=None)
    assert files(tmp_path) == [f"ok/cam1/{BOOT}-0.jpg"]


def test_other_verdicts_are_not_kept(tmp_path: Path) -> None:
    recorder = make(tmp_path, keep=("ng",))
    put(recorder, key(0), verdict="ok")
    put(recorder, key(1), verdict="ng")
    assert files(tmp_path) == [f"ng/cam1/{BOOT}-1.jpg"]
    assert recorder.counts["pictures_not_kept_total", "ok"] == 1
    assert recorder.find(key(0)) is None and recorder.memory_bytes == 0


def test_the_same_frame_twice_is_one_picture(tmp_path: Path) -> None:
    recorder = make(tmp_path)
    put(recorder, key(0), verdict=None)
    put(recorder, key(0))
    put(recorder, key(0), verdict=None)
    assert (recorder.memory_bytes, recorder.disk_bytes) == (0, len(JPEG))


def test_memory_is_bounded_and_the_oldest_goes(tmp_path: Path) -> None:
    recorder = make(tmp_path, memory=3 * len(JPEG) + 1)
    for seq in range(5):
        put(recorder, key(seq), verdict=None)
    assert recorder.counts["copies_dropped_total", "cam1"] == 2
    assert [recorder.find(key(seq)) is not None for seq in range(5)] == [False, False, True, True, True]
    put(recorder, key(5), b"x" * 10_000, verdict=None)
    assert recorder.memory_bytes == 0  # it alone is more than there is room for


def test_the_disk_is_bounded_across_restarts(tmp_path: Path) -> None:
    for start in (0, 5):
        recorder = make(tmp_path, disk=3 * len(JPEG) + 1)
        for seq in range(start, start + 5):
            put(recorder, key(seq))
    assert files(tmp_path) == [f"ng/cam1/{BOOT}-{seq}.jpg" for seq in (7, 8, 9)]
    assert recorder.disk_bytes == 3 * len(JPEG)
    put(recorder, key(10), b"x" * 10_000)
    assert recorder.counts["copies_refused_total", "too_large"] == 1
    assert len(files(tmp_path)) == 3


def test_pictures_of_before_are_found_and_foreign_files_left_alone(tmp_path: Path) -> None:
    put(make(tmp_path), key(3))
    foreign = [
        tmp_path / "readme.txt",
        tmp_path / "ng" / "cam1" / "mine.jpg",
        tmp_path / "ng" / "Odd" / f"{BOOT}-1.jpg",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 5000)
    rest = tmp_path / "ng" / "cam1" / f"{BOOT}-4.part"
    rest.write_bytes(b"half")
    recorder = make(tmp_path, disk=len(JPEG) + 10)
    assert recorder.find(key(3)) is not None and not rest.exists()
    put(recorder, key(4))
    assert all(path.exists() for path in foreign)
    assert recorder.find(key(3)) is None and recorder.find(key(4)) is not None


@pytest.mark.parametrize(
    "bad",
    [
        key(0, "../../etc"),
        key(0, "UPPER"),
        key(0, "a/b"),
        key(0, ".."),
        key(0, boot="../c0ffee00"),
        key(0, boot="c0ffee"),
    ],
)
def test_names_that_are_none_never_become_paths(tmp_path: Path, bad: Key) -> None:
    folder = tmp_path / "pictures"
    recorder = make(folder)
    put(recorder, bad)
    assert recorder.counts["copies_refused_total", "name"] == 1
    assert recorder.find(bad) is None
    assert files(tmp_path) == []


@pytest.mark.parametrize(("encoding", "shape"), [("bgr8", (6, 8, 3)), ("mono8", (6, 8)), ("bayer_rg8", (6, 8))])
@pytest.mark.parametrize("padding", [0, 5])
def test_raw_pictures_are_stored_as_png(
    tmp_path: Path, encoding: Encoding, shape: tuple[int, ...], padding: int
) -> None:
    recorder = make(tmp_path)
    row = 8 * (3 if encoding == "bgr8" else 1)
    picture = np.random.default_rng(1).integers(0, 255, shape, np.uint8)
    padded = np.zeros((6, row + padding), np.uint8)
    padded[:, :row] = picture.reshape(6, row)
    payload = padded.tobytes()
    recorder.copy(copy_of(key(0), encoding, shape, row + padding if padding else None), payload, len(payload))
    recorder.verdict(key(0), "none")
    stored = cv2.imdecode(np.fromfile(tmp_path / "none" / "cam1" / f"{BOOT}-0.png", np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    if encoding == "bayer_rg8":
        assert stored.shape == (6, 8, 3)
    else:
        assert np.array_equal(stored, picture)


@pytest.mark.parametrize(
    ("encoding", "shape", "stride", "size"),
    [
        ("bgr8", (6, 8, 3), None, 6 * 24 - 1),
        ("bgr8", (6, 8, 3), 23, 6 * 24),
        ("mono8", (0, 8), None, 48),
        ("mono8", (8,), None, 48),
        ("bayer_rg8", (2, 2), None, 4),
        ("mono8", (1 << 40, 1 << 40), None, 48),
    ],
)
def test_a_payload_that_is_no_picture_is_refused(
    tmp_path: Path, encoding: Encoding, shape: tuple[int, ...], stride: int | None, size: int
) -> None:
    recorder = make(tmp_path)
    recorder.copy(copy_of(key(0), encoding, shape, stride), b"x" * size, size)
    recorder.verdict(key(0), "ng")
    assert recorder.counts["copies_refused_total", "payload"] == 1
    assert files(tmp_path) == []


def test_errors_of_the_disk_are_counted_and_stop_nothing(tmp_path: Path) -> None:
    recorder = make(tmp_path)
    (tmp_path / "ng").write_text("a file where the folder should be")
    put(recorder, key(0))
    assert recorder.counts["disk_errors_total", "write"] == 1
    put(recorder, key(1), verdict="ok")
    (tmp_path / "ok" / "cam1" / f"{BOOT}-1.jpg").unlink()
    assert recorder.find(key(1)) is None
    assert recorder.counts["disk_errors_total", "read"] == 1


# --- the loop --------------------------------------------------------------------------------------------------------


class Rig:
    """A recorder in a thread, between a broker's PUSH and a join's PUB."""

    def __init__(
        self,
        endpoint: Callable[[str], str],
        context: Context,
        folder: Path,
        notifier: Notifier | None = None,
    ) -> None:
        self.copies, self.live, self.asks = (
            context.socket(zmq.PUSH),
            context.socket(zmq.PUB),
            context.socket(zmq.DEALER),
        )
        ends: dict[str, Any] = {name: endpoint(name) for name in ("copies", "live", "catchup", "pictures")}
        for socket in (self.copies, self.live, self.asks):
            socket.linger = 0
        self.catchup = context.socket(zmq.ROUTER)
        self.catchup.linger = 0
        self.live_at = ends["live"]
        self.stream: list[Entry] = []  # all that the join has published
        self.copies.bind(ends["copies"])
        self.live.bind(ends["live"])
        self.catchup.bind(ends["catchup"])
        self.server = RecorderServer(
            folder=folder, memory=8, disk=8, keep=["ng"], context=context, notifier=notifier, **ends
        )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        assert self.server.ready.wait(PATIENCE)
        self.asks.connect(ends["pictures"])

    def close(self) -> None:
        self.server.stop()
        self.thread.join(PATIENCE)
        for socket in (self.copies, self.live, self.asks, self.catchup):
            socket.close()
        assert not self.thread.is_alive()

    def copy(self, key: Key) -> None:
        assert self.copies.poll(int(1000 * PATIENCE), zmq.POLLOUT)
        self.copies.send_multipart([*wire.encode(copy_of(key)), JPEG])

    def publish(self, key: Key, verdict: str) -> None:
        body = {"camera": key.camera, "boot": key.boot, "seq": key.seq, "verdict": verdict, "more": [1, 2]}
        header = msgspec.msgpack.encode(Published(ledger_id="l", seq=1, previous=None))
        self.live.send_multipart([f"frame/{key.camera}/".encode(), header, msgspec.msgpack.encode(body)])

    def commit(self, key: Key, verdict: str) -> None:
        """Publish the next of a stream that can be caught up with."""
        body = msgspec.msgpack.encode({"camera": key.camera, "boot": key.boot, "seq": key.seq, "verdict": verdict})
        seq, topic = len(self.stream) + 1, f"frame/{key.camera}/"
        entry = Entry(topic=topic, seq=seq, previous=seq - 1 or None, body=body)
        self.stream.append(entry)
        header = msgspec.msgpack.encode(Published(ledger_id="l", seq=seq, previous=entry.previous))
        self.live.send_multipart([topic.encode(), header, body])

    def answer(self) -> Since | None:
        """Answer a question of the recorder, if there is one, as the join does."""
        if not self.catchup.poll(10):
            return None
        identity, *segments = self.catchup.recv_multipart()
        since: Any = wire.decode_message(segments)
        items = [entry for entry in self.stream if entry.seq > since.seq][:2]
        answer: Any = Page(ledger_id="l", items=items) if items else End(ledger_id="l", seq=len(self.stream))
        self.catchup.send_multipart([identity, *wire.encode(answer)])
        assert isinstance(since, Since)
        return since

    def ask(self, key: Key) -> tuple[Picture, bytes]:
        self.asks.send_multipart(wire.encode(Ask(key=key)))
        assert self.asks.poll(int(1000 * PATIENCE))
        kind, header, payload = self.asks.recv_multipart()
        answer: Any = wire.decode(kind, header)
        assert isinstance(answer, Picture) and answer.key == key
        return answer, payload


@pytest.fixture
def rig(endpoint: Callable[[str], str], context: Context, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(endpoint, context, tmp_path)
    yield rig
    rig.close()


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


def test_copies_and_verdicts_become_pictures(rig: Rig, tmp_path: Path) -> None:
    rig.copy(key(0))
    wait_for(lambda: rig.ask(key(0))[0].found)
    answer, payload = rig.ask(key(0))
    assert (answer.encoding, answer.shape, payload) == ("jpeg", [8, 12, 3], JPEG)

    def published() -> bool:
        rig.publish(key(0), "ng")  # until the subscription is there
        return bool(rig.server.counts["pictures_kept_total", "ng"])

    wait_for(published)
    assert (tmp_path / "ng" / "cam1" / f"{BOOT}-0.jpg").read_bytes() == JPEG
    assert rig.ask(key(0))[1] == JPEG
    missing, payload = rig.ask(key(99))
    assert (missing.found, missing.encoding, payload) == (False, None, b"")
    assert rig.server.samples()["recorder_disk_pictures",] == 1


def test_bad_bytes_stop_nothing(rig: Rig) -> None:
    bad = [[b""], [b"\x65", b"\xc1", b""], [b"\x65", b"\x80", b""], [b"\x66", b"\x80", b""], [b"\x01", b"\x80"]]
    for segments in bad:
        rig.copies.send_multipart(segments)
        rig.asks.send_multipart(segments)
    wait_for(lambda: sum(n for (name, *_), n in rig.server.counts.items() if name == "refused_total") >= 2 * len(bad))
    rig.copy(key(0))
    wait_for(lambda: rig.ask(key(0))[0].found)

    def published() -> bool:
        for body in (b"", b"\xc1", b"\x80", b"\x81\xa7verdict\xa3bad", b"\x81\xa4boot\xa1\xff"):
            rig.live.send_multipart([b"frame/cam1/", b"", body])
        rig.live.send_multipart([b"frame/cam1/"])
        rig.publish(key(0), "ng")
        return bool(rig.server.counts["pictures_kept_total", "ng"])

    wait_for(published)


# --- verdicts that did not come --------------------------------------------------------------------------------------


def kept(rig: Rig) -> int:
    return rig.server.counts["pictures_kept_total", "ng"]


def test_verdicts_of_while_the_live_door_was_shut_are_asked_for(rig: Rig, transport: str, context: Context) -> None:
    if transport == "inproc":
        pytest.skip("nothing is shut within a process")
    wait_for(rig.answer)  # where the stream stands
    for seq in range(6):
        rig.copy(key(seq))
    wait_for(lambda: all(rig.ask(key(seq))[0].found for seq in range(6)))

    def first_is_kept() -> bool:
        rig.answer()
        if not kept(rig):
            rig.commit(key(0), "ng")
        return bool(kept(rig))

    wait_for(first_is_kept)
    endpoint = rig.live.get_string(zmq.LAST_ENDPOINT).rstrip("\0")
    rig.live.close(0)  # unbinding alone leaves connections a moment in which they still carry
    rig.live = context.socket(zmq.PUB)
    rig.live.linger = 0
    for seq in range(1, 6):
        rig.commit(key(seq), "ng")
    when_free(lambda: rig.live.bind(endpoint))

    def all_are_kept() -> bool:
        rig.answer()
        return kept(rig) == 6

    wait_for(all_are_kept)
    assert rig.server.counts["verdicts_caught_up_total",] >= 5


def test_a_verdict_that_the_stream_lost_is_asked_for(rig: Rig) -> None:
    """Whoever sees the next of its topic knows."""
    wait_for(rig.answer)
    for seq in range(3):
        rig.copy(key(seq))
    wait_for(lambda: all(rig.ask(key(seq))[0].found for seq in range(3)))

    def first_is_kept() -> bool:
        rig.answer()
        if not kept(rig):
            rig.commit(key(0), "ng")
        return bool(kept(rig))

    wait_for(first_is_kept)
    body = msgspec.msgpack.encode({"camera": "cam1", "boot": BOOT, "seq": 1, "verdict": "ng"})
    seq = len(rig.stream) + 1
    rig.stream.append(Entry(topic="frame/cam1/", seq=seq, previous=seq - 1, body=body))  # and not sent
    rig.commit(key(2), "ng")

    def all_are_kept() -> bool:
        rig.answer()
        return kept(rig) == 3

    wait_for(all_are_kept)


def test_a_join_that_is_silent_is_asked_again(rig: Rig) -> None:
    wait_for(lambda: rig.catchup.poll(10))
    rig.catchup.recv_multipart()  # and no answer
    wait_for(rig.answer)


def test_verdicts_that_are_gone_are_counted(rig: Rig) -> None:
    wait_for(lambda: rig.catchup.poll(10))
    identity, *_ = rig.catchup.recv_multipart()
    rig.catchup.send_multipart([identity, *wire.encode(Gone(ledger_id="l", oldest=5))])
    wait_for(lambda: rig.server.counts["verdicts_gone_total",] == 1)


def came(seq: int, previous: int | None, ledger: str = "l") -> Published:
    return Published(ledger_id=ledger, seq=seq, previous=previous)


def page(*seqs: int) -> Page:
    return Page(ledger_id="l", items=[Entry(topic="frame/a/", seq=seq, previous=None, body=b"") for seq in seqs])


def seqs(entries: list[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


def test_nothing_is_asked_as_long_as_nothing_is_missing() -> None:
    missed = Missed()
    assert missed.question(0.0) is None
    missed.connected()
    first = missed.question(0.0)
    assert first is not None and first.ledger_id == "" and missed.question(0.0) is None
    missed.answered(End(ledger_id="l", seq=7), 0.0)
    again = missed.question(AGAIN_AFTER)
    assert again == Since(ledger_id="l", seq=7, topics=["frame/"]), "once more: a subscription takes a moment"
    missed.answered(End(ledger_id="l", seq=7), AGAIN_AFTER)
    missed.live("frame/a/", came(9, 3))  # before it began
    missed.live("frame/b/", came(10, None))
    missed.live("frame/a/", came(12, 9))
    assert missed.question(100.0) is None


def test_a_gap_is_asked_for_page_by_page_from_the_last_that_came() -> None:
    missed = Missed()
    missed.live("frame/a/", came(3, 1))
    missed.live("frame/b/", came(4, None))
    missed.live("frame/a/", came(9, 7))
    question = missed.question(0.0)
    assert question is not None and question.seq == 3
    assert seqs(missed.answered(page(4, 7), 0.0)) == [4, 7]
    question = missed.question(0.0)
    assert question is not None and question.seq == 7
    missed.answered(End(ledger_id="l", seq=9), 0.0)
    assert missed.question(0.0) is None


def test_a_question_without_an_answer_is_asked_again() -> None:
    missed = Missed()
    missed.connected()
    assert missed.question(0.0) is not None and not missed.overdue(0.0)
    assert missed.overdue(LEAST) and missed.question(LEAST) is not None


def test_an_answer_that_takes_long_is_waited_for_and_the_next_one_too() -> None:
    missed = Missed()
    missed.connected()
    asked: list[float] = []
    now = 0.0
    while len(asked) < 5:
        if missed.question(now) is not None:
            asked.append(now)
        elif now - asked[-1] >= 2.5:  # the page has come in over a slow link
            missed.answered(page(len(asked)), now)
        now += 0.25
    assert asked[:3] == [0.0, 1.0, 3.0]
    assert [later - at for at, later in pairwise(asked[2:])] == [2.75, 2.75]


def test_a_join_that_is_back_is_asked_at_once_however_long_it_was_away() -> None:
    missed = Missed()
    missed.connected()
    for now in (0.0, 1.0, 3.0, 7.0):
        assert missed.question(now) is not None
    assert not missed.overdue(10.0)
    missed.connected()
    assert missed.overdue(10.0) and missed.question(10.0) is not None


def test_another_ledger_is_followed_from_its_oldest() -> None:
    missed = Missed()
    missed.live("frame/a/", came(30, 29))
    missed.connected()
    assert missed.question(0.0) is not None
    missed.answered(Gone(ledger_id="new", oldest=1), 0.0)
    assert missed.question(0.0) == Since(ledger_id="new", seq=0, topics=["frame/"])
    missed.answered(End(ledger_id="new", seq=0), 0.0)
    missed.live("frame/a/", came(1, None, "new"))
    assert missed.question(0.5) is None
