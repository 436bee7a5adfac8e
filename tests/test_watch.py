"""Watching: every result is shown once, pictures are saved or their lack is said, and it ends when it is asked to."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import zmq
from rich.console import Console

from broker.wire import Ask, End, Entry, Key, Page, Picture, Published, Since, decode_message, encode
from clients.board import Board, JsonLines, Lines, cells
from clients.encoding import decode_image
from clients.errors import ImageError
from clients.joined import Joined, JoinedPart, Missing, MissingCamera
from clients.past import HistoryGone
from clients.pictures import Shown
from clients.watch import Saver, Watch, body_of
from tests.conftest import free_port

Context = zmq.Context[zmq.Socket[bytes]]
ROOT = Path(__file__).resolve().parents[1]
BOOT = "b00700000001"
PATIENCE = 30.0
IMAGE = np.full((48, 64, 3), 90, np.uint8)
JPEG = cv2.imencode(".jpg", IMAGE)[1].tobytes()
DENT = {"class": 1, "name": "dent", "score": 0.875, "box": [8, 8, 40, 40], "area": 1024.0}


def frame(seq: int, **fields: Any) -> Joined:
    given: dict[str, Any] = {
        "topic": "frame/cam1/",
        "seq": seq + 100,
        "key": Key("cam1", BOOT, seq),
        "station": "s1",
        "part": None,
        "policy": "inspect",
        "outcome": "complete",
        "verdict": "ok",
        "missing": [],
        "results": {"det": {"task": "detect", "detections": [], "status": "ok", "reason": "", "tries": 1}},
        "seconds": 0.0123,
        "published_at": 0.0,
    }
    return Joined(**{**given, **fields})


def part() -> JoinedPart:
    return JoinedPart(
        topic="part/s1/",
        seq=200,
        station="s1",
        part="p-7",
        outcome="incomplete",
        verdict="incomplete",
        frames=[Key("cam1", BOOT, 0)],
        missing=[MissingCamera("cam2", "no_frame")],
        published_at=0.0,
    )


class Shelf:
    """Stands for `Results`: gives what it was given, and then nothing."""

    live, catchup = "tcp://127.0.0.1:7004", "tcp://127.0.0.1:7005"

    def __init__(self, *given: Joined | JoinedPart | HistoryGone) -> None:
        self.given = list(given)
        self.heard = 0

    def __next__(self) -> Joined | JoinedPart:
        if not self.given:
            raise StopIteration
        self.heard += 1
        first = self.given.pop(0)
        if isinstance(first, HistoryGone):
            raise first
        return first


class Notebook:
    """A view that remembers."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def show(self, result: Joined | JoinedPart, body: dict[str, Any]) -> None:
        self.bodies.append(body)


class Album:
    """Stands for `Pictures`: what it has by seq; `asked` are the questions."""

    def __init__(self, shown: dict[int, Shown], *, there: bool = True) -> None:
        self.shown = shown
        self.there = there
        self.asked: list[int] = []

    def get(self, key: Key, timeout: float = 1.0) -> Shown | None:
        self.asked.append(key.seq)
        if not self.there:
            raise TimeoutError("no recorder answered")
        return self.shown.get(key.seq)


def watch(*given: Joined | JoinedPart | HistoryGone, saver: Saver | None = None, **options: Any) -> tuple[Any, Any]:
    notebook = Notebook()
    watching = Watch(Shelf(*given), notebook, saver, **options)  # type: ignore[arg-type]
    return watching, notebook


# --- the loop --------------------------------------------------------------------------------------------------------


def test_every_result_is_shown_and_a_lost_history_is_counted() -> None:
    gone = HistoryGone(None, "ledger", 5)
    watching, notebook = watch(frame(0), gone, part(), frame(1), timeout=0.0)
    assert watching.run()
    assert [body.get("seq") for body in notebook.bodies] == [0, None, 1]
    assert (watching.taken, watching.gone) == (2, 1)


def test_it_ends_after_the_frames_asked_for() -> None:
    watching, notebook = watch(*(frame(seq) for seq in range(9)), frames=3)
    assert watching.run() and len(notebook.bodies) == 3


def test_too_few_frames_in_time_is_a_failure() -> None:
    assert not watch(frame(0), frames=2, timeout=0.0)[0].run()
    assert not watch(timeout=0.0)[0].run(), "nothing at all came"
    assert not watch(part(), timeout=0.0)[0].run()


def test_it_stops_when_asked_to() -> None:
    watching, _ = watch()
    thread = threading.Thread(target=watching.run)
    thread.start()
    watching.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_body_is_what_was_published() -> None:
    body = body_of(frame(3, part="p-7", missing=[Missing("m2", "expired", "queued")]))
    assert (body["camera"], body["boot"], body["seq"], body["ledger_seq"]) == ("cam1", BOOT, 3, 103)
    assert body["missing"] == [{"model": "m2", "status": "expired", "reason": "queued"}]
    assert "key" not in body and body["results"]["det"]["status"] == "ok"
    assert body_of(part())["frames"] == [("cam1", BOOT, 0)]


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_are_annotated_and_their_lack_is_said(tmp_path: Path) -> None:
    raw = Shown("bgr8", [48, 64, 3], None, IMAGE.tobytes())
    album = Album({0: Shown("jpeg", [], None, JPEG), 1: raw, 3: Shown("jpeg", [], None, b"broken")})
    saver = Saver(tmp_path, album)  # type: ignore[arg-type]
    odd = {"det": {"detections": [{"box": "somewhere", "score": None}], "status": "ok"}}
    seen = {"det": {"detections": [DENT], "status": "ok"}}
    given: list[Joined | JoinedPart] = [
        frame(0, results=seen, verdict="ng"),
        frame(1),
        frame(2),
        frame(3),
        part(),
        frame(0, results=odd),
    ]
    watching, _ = watch(*given, saver=saver, timeout=0.0)
    watching.run()
    assert saver.counts == {"saved": 2, "missing": 1, "not_drawn": 2}
    drawn = cv2.imread(str(tmp_path / "ng" / f"cam1-{BOOT}-0.jpg"))
    assert drawn is not None and drawn.shape[1] >= 480, "it was enlarged so that it can be read"
    assert (tmp_path / "ok" / f"cam1-{BOOT}-1.jpg").is_file()
    assert "2 pictures saved" in saver.summary() and "1 missing: the recorder does not have them" in saver.summary()


def test_a_recorder_that_does_not_answer_is_not_asked_for_every_frame(tmp_path: Path) -> None:
    album = Album({}, there=False)
    saver = Saver(tmp_path, album)  # type: ignore[arg-type]
    watch(*(frame(seq) for seq in range(20)), saver=saver, timeout=0.0)[0].run()
    assert album.asked == [0]
    assert saver.counts == {"no_recorder": 20}
    assert saver.unanswered and "broker recorder --line" in saver.summary()


def test_one_answer_of_a_recorder_is_an_answer(tmp_path: Path) -> None:
    saver = Saver(tmp_path, Album({}))  # type: ignore[arg-type]
    assert not saver.unanswered, "nothing was asked for"
    watch(frame(0), saver=saver, timeout=0.0)[0].run()
    saver.counts["no_recorder"] += 3
    assert not saver.unanswered and "broker recorder" not in saver.summary()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    saver = Saver(tmp_path / "file", Album({0: Shown("jpeg", [], None, JPEG)}))  # type: ignore[arg-type]
    watch(frame(0), saver=saver, timeout=0.0)[0].run()
    assert saver.counts == {"not_written": 1}
    assert saver.failed and not saver.unanswered
    saver.counts["saved"] += 1
    assert not saver.failed


def test_raw_pictures_are_decoded_and_wrong_ones_refused() -> None:
    padded = np.zeros((4, 8), np.uint8)
    padded[:, :6] = np.arange(24).reshape(4, 6)
    assert np.array_equal(decode_image(padded.tobytes(), "mono8", [4, 6], 8)[:, :, 0], padded[:, :6])
    assert decode_image(bytes(16 * 16), "bayer_rg8", [16, 16]).shape == (16, 16, 3)
    for payload, encoding, shape in ((b"x" * 5, "bgr8", [4, 4, 3]), (b"x", "jpeg", []), (b"", "mono8", [])):
        with pytest.raises(ImageError):
            decode_image(payload, encoding, shape)  # type: ignore[arg-type]


# --- views -----------------------------------------------------------------------------------------------------------


def test_a_line_says_what_was_found_and_what_is_missing() -> None:
    found = {
        "det": {"detections": [DENT, {**DENT, "score": 0.5}]},
        "kind": {"classes": [{"name": "plate", "score": 1}]},
    }
    result = frame(7, part="p-1", verdict="ng", missing=[Missing("m2", "expired", "queued")], results=found)
    _, name, verdict, milliseconds, what = cells(result, body_of(result))
    assert (name, verdict, milliseconds) == ("cam1/7", "NG", "12.3")
    assert what == "part p-1, no m2 (expired: queued), plate 1.00, 2 × dent 0.88"
    assert cells(frame(0), body_of(frame(0)))[4] == "nothing found"
    untrained = frame(0, results={"zoo": {"detections": [DENT], "random": True}})
    assert cells(untrained, body_of(untrained))[4] == "zoo: random weights, dent 0.88"
    assert cells(part(), body_of(part()))[1:] == ("s1 part p-7", "INCOMPLETE", "", "1 frame, no cam2 (no_frame)")


def test_lines_are_flushed_one_by_one() -> None:
    out = io.StringIO()
    Lines(out).show(frame(7), body_of(frame(7)))
    assert out.getvalue().endswith("cam1/7  OK  12.3  nothing found\n")


def test_json_lines_hold_the_body() -> None:
    out = io.BytesIO()
    with JsonLines(out) as view:
        for result in (frame(1, part="工位"), part()):
            view.show(result, body_of(result))
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["camera"], first["part"]) == ("cam1", "工位")
    assert second["frames"] == [["cam1", BOOT, 0]]


def test_the_table_fits_80_columns_and_counts_verdicts() -> None:
    console = Console(width=80, height=20, file=io.StringIO(), force_terminal=True, color_system=None)
    board = Board(console)
    for seq in range(30):
        board.show(frame(seq, part="a-very-long-part-number" * 9), {**body_of(frame(seq))})
    board.show(part(), body_of(part()))
    with console.capture() as capture:
        console.print(board._render())
    lines = capture.get().splitlines()
    assert len(lines) <= 20 and max(map(len, lines)) <= 80
    assert "30 frames" in lines[-1] and "30 ok" in lines[-1]
    assert "s1 part p-7" in lines[-2] and "cam1/29" in lines[-3]


# --- the command -----------------------------------------------------------------------------------------------------


class FakeJoin:
    """The consumers' side of a join and a recorder: a past of frames, and the picture of each even seq."""

    def __init__(self, context: Context, frames: int) -> None:
        self.live, self.catchup, self.pictures = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))
        self.entries = [self._entry(seq) for seq in range(frames)]
        self._context = context
        self._should_stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._bound = threading.Event()

    def _entry(self, seq: int) -> Entry:
        body = body_of(frame(seq, results={"det": {"detections": [DENT], "status": "ok", "reason": "", "tries": 1}}))
        return Entry(topic="frame/cam1/", seq=seq + 1, previous=seq or None, body=msgspec.msgpack.encode(body))

    def __enter__(self) -> FakeJoin:
        self._thread.start()
        assert self._bound.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._should_stop.set()
        self._thread.join()

    def _run(self) -> None:
        context = self._context
        with context.socket(zmq.PUB) as live, context.socket(zmq.ROUTER) as past, context.socket(zmq.ROUTER) as album:
            for socket, address in ((live, self.live), (past, self.catchup), (album, self.pictures)):
                socket.linger = 0
                socket.bind(address)
            self._bound.set()
            while not self._should_stop.is_set():
                for socket in (past, album):
                    if socket.poll(5):
                        identity, *segments = socket.recv_multipart()
                        socket.send_multipart([identity, *self._answer(decode_message(segments))])
                last = self.entries[-1]
                header = Published(ledger_id="abc", seq=last.seq, previous=last.previous)
                live.send_multipart([last.topic.encode(), msgspec.msgpack.encode(header), last.body])

    def _answer(self, message: Since | Ask) -> list[bytes]:
        if isinstance(message, Ask):
            found = message.key.seq % 2 == 0
            return [*encode(Picture(key=message.key, found=found, encoding="jpeg" if found else None)), JPEG]
        newer = [entry for entry in self.entries if entry.seq > message.seq]
        page = Page(ledger_id="abc", items=newer[:4])
        return encode(page if newer else End(ledger_id="abc", seq=len(self.entries)))

    def options(self) -> list[str]:
        return ["--live", self.live, "--catchup", self.catchup, "--pictures", self.pictures]


@pytest.fixture
def join(context: Context) -> Iterator[FakeJoin]:
    with FakeJoin(context, frames=10) as join:
        yield join


def run(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "clients", "watch", *map(str, words)],
        capture_output=True,
        timeout=PATIENCE,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
    )


def test_the_command_gives_all_of_the_past_as_json(join: FakeJoin) -> None:
    done = run(*join.options(), "--since", "0", "--frames", "10", "--json")
    assert done.returncode == 0, done.stderr
    bodies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [body["seq"] for body in bodies] == list(range(10))
    assert bodies[0]["results"]["det"]["detections"][0]["name"] == "dent"


def test_the_command_saves_what_the_recorder_has(join: FakeJoin, tmp_path: Path) -> None:
    done = run(*join.options(), "--since", "4", "--timeout", "0.5", "--save", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert b"cam1/4  OK" in done.stdout and b"dent 0.88" in done.stdout
    assert sorted(path.stem[-1] for path in (tmp_path / "ok").iterdir()) == ["4", "6", "8"]
    assert b"3 pictures saved" in done.stderr and b"3 missing: the recorder does not have them" in done.stderr


def test_the_command_fails_when_no_recorder_answers(join: FakeJoin, tmp_path: Path) -> None:
    ends = [*join.options(), "--pictures", f"tcp://127.0.0.1:{free_port()}"]
    done = run(*ends, "--since", "4", "--frames", "6", "--save", tmp_path)
    assert done.returncode == 1
    assert b"6 missing: no recorder answered; start one with `broker recorder" in done.stderr


def test_the_command_fails_when_nothing_comes(tmp_path: Path) -> None:
    ends = [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
    done = run("--live", ends[0], "--catchup", ends[1], "--timeout", "0.3")
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert f"no join answered at {ends[1]} in ".encode() in done.stderr and b"--catchup" in done.stderr


def test_the_command_says_how_far_it_came(join: FakeJoin) -> None:
    done = run(*join.options(), "--since", "0", "--frames", "11", "--timeout", "0.5")
    assert done.returncode == 1
    assert b"10 of 11 frames came, and then nothing for 0.5 s" in done.stderr


@pytest.mark.parametrize("option", ["--live", "--catchup", "--pictures"])
def test_an_address_that_is_none_is_a_usage_error(join: FakeJoin, option: str, tmp_path: Path) -> None:
    done = run(*join.options(), "--since", "0", "--frames", "1", "--save", tmp_path, option, "nonsense")
    assert done.returncode == 2, done.stderr
    assert b"'nonsense' cannot be called on" in done.stderr and b"Traceback" not in done.stderr


def test_it_says_on_stderr_what_it_waits_for_and_when_that_answers(context: Context) -> None:
    late = FakeJoin(context, frames=1)
    words = [sys.executable, "-m", "clients", "watch", *late.options(), "--since", "0", "--frames", "1", "--json"]
    environment = {**os.environ, "NO_COLOR": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        waiting = process.stderr.readline()
        assert b"waiting for the join, which does not answer" in waiting and late.catchup.encode() in waiting
        with late:
            assert b"the join answers" in process.stderr.readline()
            (line,) = process.stdout.read().splitlines()
            assert process.wait(PATIENCE) == 0
    assert json.loads(line)["seq"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C to one process of a console is not to be had")
def test_stopped_before_any_join_has_answered_it_has_failed() -> None:
    nobody = f"tcp://127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "clients", "watch", "--live", nobody, "--catchup", nobody]
    with subprocess.Popen(words, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert b"no join answered" in process.stderr.read()
        assert process.wait(PATIENCE) == 1


def test_the_command_ends_when_its_reader_does(join: FakeJoin) -> None:
    words = [sys.executable, "-m", "clients", "watch", *join.options(), "--since", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        join.entries += [join._entry(seq) for seq in range(10, 2000)]
        errors = process.stderr.read()
        assert process.wait(PATIENCE) == 1
    assert b"Traceback" not in errors


def test_help_has_examples() -> None:
    done = run("--help")
    assert done.returncode == 0 and b"clients watch --line line.toml" in done.stdout
