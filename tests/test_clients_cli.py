"""The `clients` command, run as a user runs it: in a process of its own, against a broker of this one."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import zmq

from clients.errors import SourceError
from clients.fake import FakeBroker
from clients.progress import describe
from clients.recorded import in_folder, recorded
from clients.stats import Stats
from tests.conftest import free_port

Context = zmq.Context[zmq.Socket[bytes]]
PATIENCE = 30.0
ROOT = Path(__file__).resolve().parents[1]
INTERRUPT: signal.Signals = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)


@pytest.fixture
def broker(context: Context) -> Iterator[FakeBroker]:
    with FakeBroker(f"tcp://127.0.0.1:{free_port()}", context) as broker:
        yield broker


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "clients", *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, encoding="utf-8", timeout=PATIENCE, cwd=ROOT, env=environment()
    )


def start(*words: str | Path) -> subprocess.Popen[str]:
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    return subprocess.Popen(
        command(*words), stderr=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT, env=environment(),
        creationflags=flags,
    )  # fmt: skip


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {PATIENCE} s"
        pause.wait(0.01)


def picture(value: int = 90) -> bytes:
    return cv2.imencode(".jpg", np.full((24, 32, 3), value, np.uint8))[1].tobytes()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr of a process that is about to end."""
    try:
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, errors


# --- camera ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_published_and_reported(broker: FakeBroker, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number * 20))
    report = tmp_path / "report.json"
    done = run("camera", "--name", "cam1", "--source", tmp_path, "--broker", broker.endpoint, "--run", "lot7",
               "--report", report)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [frame.payload for frame in broker.frames] == [picture(number * 20) for number in range(12)]
    assert [frame.header.part for frame in broker.frames] == [f"lot7-{number:06d}" for number in range(12)]
    told = json.loads(report.read_text())
    assert (told["camera"], told["taken"], told["sent"], told["complete"], told["unsettled"]) == ("cam1", 12, 12, 12, 0)
    assert len(told["latencies"]) == 12 and told["latency_p50"] > 0
    assert "cam1  12 settled" in done.stderr
    until(lambda: broker.byes, "BYE")
    assert broker.byes[0].last_seq == 11


def test_the_line_file_says_what_flags_do_not(broker: FakeBroker, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.jpg").write_bytes(picture())
    line = tmp_path / "line.toml"
    line.write_text(f"""
        [endpoints]
        frontend = "{broker.endpoint}"
        [stations.s1]
        [models.m1]
        [cameras.cam1]
        station = "s1"
        source = "parts"
        policy = "monitor"
        deadline = 1.5
        [routes.cam1]
        models = ["m1"]
    """)
    done = run("camera", "--name", "cam1", "--line", line, "--deadline", "0.75")
    assert done.returncode == 0, done.stderr
    (frame,) = broker.frames
    assert (frame.header.policy, frame.header.budget) == ("monitor", 0.75)
    unknown = run("camera", "--name", "cam9", "--line", line)
    assert unknown.returncode == 2 and "no [cameras.cam9]; it has cam1" in unknown.stderr


@pytest.mark.parametrize("request_to_end", [INTERRUPT, signal.SIGTERM])
def test_asked_to_end_it_settles_first(broker: FakeBroker, request_to_end: signal.Signals) -> None:
    if sys.platform == "win32" and request_to_end == signal.SIGTERM:
        pytest.skip("Windows ends a process at SIGTERM without asking it")
    broker.judge = lambda frame: None
    process = start("camera", "--name", "cam1", "--source", "synthetic:64x64", "--broker", broker.endpoint)
    until(lambda: len(broker.frames) == broker.window, "a full window")
    process.send_signal(request_to_end)
    pause = threading.Event()
    while process.poll() is None and len(broker.byes) == 0:
        broker.settle_open()
        pause.wait(0.01)
    code, errors = ended(process)
    assert code == 0, errors
    assert f"{broker.window} settled" in errors
    assert broker.byes[0].last_seq == broker.window - 1


def test_asked_twice_it_does_not_wait(broker: FakeBroker) -> None:
    broker.judge = lambda frame: None
    process = start(
        "camera", "--name", "cam1", "--source", "synthetic:64x64", "--broker", broker.endpoint, "--deadline", "600"
    )
    until(lambda: len(broker.frames) == broker.window, "a full window")
    pause = threading.Event()
    while not broker.byes:  # two of them may be taken for one
        process.send_signal(INTERRUPT)
        pause.wait(0.2)
    code, errors = ended(process)
    assert code == 1
    assert f"{broker.window} unsettled" in errors


def test_a_triggered_source_skips_what_it_has_no_credit_for(broker: FakeBroker) -> None:
    broker.judge, broker.window = (lambda frame: None), 2
    process = start("camera", "--name", "cam1", "--source", "synthetic:64x64", "--rate", "200", "--frames", "30",
                    "--broker", broker.endpoint)  # fmt: skip
    until(lambda: len(broker.skips) + len(broker.frames) == 30, "all triggers")
    broker.settle_open()
    code, errors = ended(process)
    assert code == 0, errors
    assert f"{len(broker.skips)} skipped" in errors
    assert {skip.reason for skip in broker.skips} == {"no_credit"}


def test_rejected_frames_are_a_failure(broker: FakeBroker) -> None:
    broker.judge = lambda frame: "part_duplicate" if frame.key.seq == 1 else "complete"
    done = run("camera", "--name", "cam1", "--source", "synthetic:64x64", "--frames", "3", "--broker", broker.endpoint)
    assert done.returncode == 1
    assert "1 rejected (part_duplicate 1)" in done.stderr


def test_a_refused_camera_ends_with_the_reason(broker: FakeBroker) -> None:
    broker.refuse = "unknown_camera"
    done = run("camera", "--name", "cam9", "--source", "synthetic:", "--broker", broker.endpoint)
    assert done.returncode == 1
    assert "add [cameras.cam9]" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("camera", "--source", "synthetic:64x64"), ("replay",)])
@pytest.mark.parametrize("policy", ["inspect", "monitor"])
def test_a_camera_that_never_reached_a_broker_has_failed_and_says_so(
    words: tuple[str, ...], policy: str, tmp_path: Path
) -> None:
    (tmp_path / "one.jpg").write_bytes(picture())
    nobody = f"tcp://127.0.0.1:{free_port()}"
    source = [tmp_path] if words == ("replay",) else []
    process = start(*words, *source, "--name", "cam1", "--broker", nobody, "--deadline", "0.1", "--rate", "100",
                    "--frames", "5", "--policy", policy)  # fmt: skip
    if words == ("replay",) and policy == "inspect":  # it waits for a broker until somebody has enough of that
        assert process.stderr is not None
        assert "no broker answers" in process.stderr.readline()
        process.send_signal(INTERRUPT)
    code, errors = ended(process)
    assert code == 1, errors
    assert f"no broker answered at {nobody} in " in errors
    waited = words == ("replay",) and policy == "inspect"
    sent = "no frame was taken" if waited else "1 frame was never sent" if source else "5 frames were never sent"
    assert sent in errors
    assert "--broker" in errors and "firewall" in errors
    assert "unsettled=0" not in errors and ("unsettled frames" in errors) is (policy == "monitor")


@pytest.mark.parametrize("live", [True, False])
def test_a_camera_that_published_nothing_has_failed_and_says_why(
    broker: FakeBroker, live: bool, tmp_path: Path
) -> None:
    """A source that gives no picture; a broker that gives no credit."""
    (tmp_path / "one.jpg").write_bytes(picture())
    broker.window = 8 if live else 0
    source = f"http://127.0.0.1:{free_port()}/stream" if live else tmp_path
    process = start("camera", "--name", "cam1", "--source", source, "--broker", broker.endpoint)
    until(lambda: len(broker.hellos) > 3, "a camera that was welcomed and greets again")
    process.send_signal(INTERRUPT)
    code, errors = ended(process)
    assert code == 1, errors
    assert ("no picture came from the source" if live else "gave no credit") in errors


def test_a_report_that_cannot_be_written_is_said(broker: FakeBroker, tmp_path: Path) -> None:
    done = run("camera", "--name", "cam1", "--source", "synthetic:64x64", "--frames", "1", "--broker", broker.endpoint,
               "--report", tmp_path / "none" / "report.json")  # fmt: skip
    assert done.returncode == 1
    assert "report.json: cannot be written" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--source", "nowhere.mp4"], "no such file"),
        ([], "give --source"),
        (["--source", "synthetic:", "--policy", "best"], "inspect or monitor"),
        (["--source", "synthetic:", "--deadline", "0"], "deadline"),
        (["--source", "synthetic:", "--line", "nowhere.toml"], "cannot be read"),
    ],
)
def test_what_cannot_be_understood_is_a_usage_error(words: list[str], text: str) -> None:
    done = run("camera", "--name", "cam1", *words)
    assert done.returncode == 2
    assert text in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["camera", "replay"])
def test_help_has_examples_and_fits_80_columns(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    assert f"clients {name} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_says_what_happened_and_nothing_else() -> None:
    quiet = Stats(True, 9, 0, 0, 0, 0, 0, 0, 0, 0, {}, {}, 0, 0, 0, None, None)
    assert describe("cam1", quiet._replace(connected=False), 3.0) == "cam1  waiting for a broker"
    assert describe("cam1", quiet, 3.0) == "cam1  0 settled"
    busy = quiet._replace(complete=99, incomplete=1, rejected={"a": 2, "b": 3}, latency_p50=0.0123, latency_p99=0.5)
    shown = "cam1  100 settled  10.0/s  p50 12 ms p99 500 ms  1 incomplete  5 rejected (b 3, a 2)"
    assert describe("cam1", busy, 10.0) == shown
    assert describe("cam1", busy._replace(connected=False), 10.0).endswith("NOT CONNECTED")


# --- replay ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A recorder's folder: two boots of cam1 (the younger has the smaller name), one of cam2."""
    folder = tmp_path / "pictures"
    keys = [("ok", "cam1", "bbbbbbbbbbbb", seq) for seq in (0, 1, 10, 2)]
    keys += [("ng", "cam1", "bbbbbbbbbbbb", 3), ("ok", "cam1", "aaaaaaaaaaaa", 0), ("ng", "cam2", "cccccccccccc", 0)]
    for number, (verdict, camera, boot, seq) in enumerate(keys):
        path = folder / verdict / camera / f"{boot}-{seq}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
        os.utime(path, (1000.0 + number, 1000.0 + number))
    (folder / "ok" / "cam1" / "index.txt").write_text("no picture")
    return folder


def test_recorded_pictures_come_as_they_were_taken(pictures: Path) -> None:
    order = [(one.boot[0], one.seq) for one in in_folder(pictures, "cam1")]
    assert order == [("b", 0), ("b", 1), ("b", 2), ("b", 3), ("b", 10), ("a", 0)]
    assert [one.camera for one in in_folder(pictures)][-1] == "cam2"
    assert [(one.boot[0], one.seq) for one in in_folder(pictures / "ng", "cam1")] == [("b", 3)]
    with pytest.raises(SourceError, match="no recorded picture of camera 'cam9'"):
        recorded([pictures], "cam9")
    with pytest.raises(SourceError, match="no such folder or ledger"):
        recorded([pictures / "nowhere"])


def test_other_folders_may_be_replayed_too(tmp_path: Path) -> None:
    for number in (10, 9):
        (tmp_path / f"part{number}.jpg").write_bytes(picture())
    assert [path.stem for path in recorded([tmp_path])] == ["part9", "part10"]


def test_a_replay_is_published(broker: FakeBroker, pictures: Path) -> None:
    done = run("replay", pictures, "--name", "again1", "--camera", "cam1", "--broker", broker.endpoint)
    assert done.returncode == 0, done.stderr
    assert [frame.payload for frame in broker.frames] == [picture(number) for number in (0, 1, 3, 4, 2, 5)]
    assert {frame.header.key.camera for frame in broker.frames} == {"again1"}
    empty = run("replay", pictures / "ok" / "cam1" / "index.txt", "--name", "again1")
    assert empty.returncode == 2 and "is no ledger" in empty.stderr


def test_a_ledger_gives_the_order_of_publication(pictures: Path, tmp_path: Path) -> None:
    ledger = pictures.parent / "ledger.sqlite"
    keys = [("cam2", "cccccccccccc", 0), ("cam1", "aaaaaaaaaaaa", 0), ("cam1", "bbbbbbbbbbbb", 77)]
    with sqlite3.connect(ledger) as connection:
        connection.execute("CREATE TABLE published (seq INTEGER PRIMARY KEY, frame INTEGER, head BLOB)")
        for seq, (camera, boot, number) in enumerate(keys):
            head = msgspec.msgpack.encode({"camera": camera, "boot": boot, "seq": number, "results": {}})
            connection.execute("INSERT INTO published VALUES (?, ?, ?)", (seq, seq, head.removesuffix(b"\x80")))
        connection.execute("INSERT INTO published VALUES (99, NULL, x'80')")
    connection.close()
    names = [f"{path.parent.name}/{path.stem}" for path in recorded([ledger])]
    assert names == ["cam2/cccccccccccc-0", "cam1/aaaaaaaaaaaa-0"]
    assert len(recorded([ledger], "cam2", pictures)) == 1
    pictures.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"no recorded picture.*ledger\.sqlite.*pictures.*--pictures FOLDER"):
        recorded([ledger])
    assert len(recorded([ledger], pictures=tmp_path / "elsewhere")) == 2
    done = run("replay", ledger, "--name", "again1")
    assert done.returncode == 2 and "--pictures FOLDER" in done.stderr
