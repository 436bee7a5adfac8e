"""The demo: its reconciliation (pure), the line that it makes, the files that it reads, and a whole run."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from broker.wire import Key
from ops import facts, gallery, summary
from ops.__main__ import app
from ops.accounts import Tail, read_told, told
from ops.demo_line import DemoError, Settings, check_classes, free_ports, make_line, resolve
from ops.process import ASK, own_group
from ops.report import Consumed, Latency, Report, Told, latency, reconcile
from workers import tiny

BOOT = "0123456789ab"


def home(folder: Path) -> dict[str, str]:
    """An environment in which this user's data lie in `folder`."""
    return {"XDG_DATA_HOME": str(folder), "LOCALAPPDATA": str(folder)}


def ledger(**changes: Any) -> dict[str, Any]:
    """What `broker.report` says of two frames of one camera, all well."""
    counts = {"accepted": 2, "joined": 2, "complete": 2, "incomplete": 0, "open": 0}
    return {
        **counts,
        "cameras": {"cam1": counts},
        "statuses": {"tiny": {"ok": 2}},
        "duplicates": 0,
        "unpublished": 0,
        "late_results": 0,
        "requeued": 0,
        "verdicts": {"a": {"ok": 1}, "b": {"ok": 2, "ng": 1}},
        **changes,
    }


def received(*seqs: int) -> Consumed:
    consumed = Consumed()
    for seq in seqs:
        body = {"camera": "cam1", "boot": BOOT, "seq": seq}
        consumed.take(body | {"results": {"tiny": {"status": "ok", "timings": {"inference": 0.25}}}})
    return consumed


TOLD = Told(sent=2, accepted=2, complete=2, seconds=2.0, latencies=[0.1, 0.3])


# --- reconciliation --------------------------------------------------------------------------------------------------


def test_three_accounts_that_agree_pass() -> None:
    report = reconcile({"cam1": TOLD}, ledger(), received(0, 1))
    assert report.passed
    assert (report.accepted, report.joined, report.complete, report.lost, report.duplicates) == (2, 2, 2, 0, 0)
    assert report.verdicts == {"ok": 3, "ng": 1}
    assert report.latency == Latency(p50=0.1, p99=0.3)
    assert report.models["tiny"].inference == Latency(p50=0.25, p99=0.25)
    assert report.models["tiny"].statuses == {"ok": 2}


def test_a_frame_that_a_camera_was_told_is_accepted_and_that_was_not_joined_is_lost() -> None:
    account = Told(sent=3, accepted=3, complete=2)
    report = reconcile({"cam1": account}, ledger(), received(0, 1))
    assert (report.lost, report.cameras["cam1"].lost, report.passed) == (1, 1, False)


def test_a_frame_that_the_ledger_accepted_and_never_joined_is_lost_whatever_the_camera_heard() -> None:
    counts = {"accepted": 2, "joined": 1, "complete": 1, "incomplete": 0, "open": 1}
    report = reconcile({"cam1": Told(accepted=1)}, ledger(**counts, cameras={"cam1": counts}), received(0))
    assert (report.lost, report.passed) == (1, False)


def test_a_surplus_of_one_camera_does_not_hide_a_loss_of_another() -> None:
    one, other = {"accepted": 3, "joined": 3}, {"accepted": 2, "joined": 1}
    report = reconcile(
        {"cam1": Told(accepted=2), "cam2": Told(accepted=2)}, ledger(cameras={"cam1": one, "cam2": other}), received()
    )
    assert report.lost == 1


def test_a_frame_that_came_twice_is_a_duplicate() -> None:
    report = reconcile({"cam1": TOLD}, ledger(), received(0, 1, 1))
    assert (report.duplicates, report.unreceived, report.passed) == (1, 0, False)


def test_a_frame_that_was_published_twice_is_a_duplicate() -> None:
    assert reconcile({"cam1": TOLD}, ledger(duplicates=1), received(0, 1)).duplicates == 1


def test_a_joined_frame_that_no_consumer_received_does_not_pass() -> None:
    report = reconcile({"cam1": TOLD}, ledger(), received(0))
    assert (report.unreceived, report.lost, report.passed) == (1, 0, False)


def test_a_camera_without_a_report_does_not_pass() -> None:
    report = reconcile({"cam1": TOLD, "cam2": None}, ledger(), received(0, 1))
    assert (report.silent, report.passed) == (["cam2"], False)


def test_nothing_joined_does_not_pass() -> None:
    nothing = {"accepted": 0, "joined": 0, "complete": 0, "incomplete": 0, "open": 0}
    report = reconcile({"cam1": Told()}, ledger(**nothing, cameras={}, statuses={}), received())
    assert (report.lost, report.duplicates, report.passed) == (0, 0, False)


def test_a_part_is_not_a_frame() -> None:
    consumed = received(0)
    consumed.take({"station": "a", "part": "7", "frames": [["cam1", BOOT, 0]]})
    assert consumed.frames == Counter({Key("cam1", BOOT, 0): 1})


@given(st.lists(st.integers(0, 20), max_size=40))
def test_deliveries_are_distinct_frames_and_repeats(seqs: list[int]) -> None:
    consumed = received(*seqs)
    assert consumed.repeated + len(consumed.frames) == len(seqs)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_quantiles_are_measured_values_in_order(seconds: list[float]) -> None:
    found = latency(seconds)
    assert found.p50 in seconds and found.p99 in seconds
    assert found.p50 <= found.p99
    assert sum(value <= found.p50 for value in seconds) >= len(seconds) / 2


# --- files -----------------------------------------------------------------------------------------------------------


def test_lines_are_taken_once_they_are_complete(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "received.jsonl")
    assert tail.read() == 0
    line = json.dumps({"camera": "cam1", "boot": BOOT, "seq": 0, "results": {}}).encode()
    with tail.path.open("ab") as file:
        file.write(line[:20])
        file.flush()
        assert tail.read() == 0
        file.write(line[20:] + b"\n" + b"oops\n")
        file.flush()
        assert tail.read() == 2
    assert (len(tail.consumed.frames), tail.unreadable) == (1, 1)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_report_that_is_not_there_or_not_whole_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "cam1.json").write_text(content)
    assert read_told(tmp_path / "cam1.json") is None


def test_counts_by_reason_are_summed() -> None:
    account = told({"accepted": 5, "rejected": {"payload_empty": 1, "shape": 2}, "skipped": {"no_credit": 4}})
    assert (account.accepted, account.rejected, account.missed) == (5, 3, 4)


# --- the line --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("yolov5n.onnx", "yolov5n"),
        ("YOLO v5 (seg).onnx", "yolo-v5-seg-"),
        ("_x.onnx", "x"),
        ("工位2.onnx", "2"),
        ("run=3.onnx", "run-3"),
    ],
)
def test_a_models_name_is_its_files(file: str, name: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    assert resolve(str(tmp_path / file)) == (name, tmp_path / file)
    assert resolve(f"other={tmp_path / file}") == ("other", tmp_path / file)


def test_a_file_without_a_name_to_make_is_told_how_to_be_given_one(tmp_path: Path) -> None:
    (tmp_path / "工位.onnx").touch()
    with pytest.raises(DemoError, match=r"write --model NAME=.*工位\.onnx$"):
        resolve(str(tmp_path / "工位.onnx"))


def settings(**changes: Any) -> Settings:
    return Settings(**{"models": ["tiny"], "sources": ["synthetic:", "synthetic:"]} | changes)


def test_the_demos_line_has_all_that_was_asked_for(tmp_path: Path) -> None:
    line = make_line(settings(deadline=0.5, ng=["red"]), tmp_path)
    assert sorted(line.cameras) == ["cam1", "cam2"]
    assert {camera.deadline for camera in line.cameras.values()} == {0.5}
    assert line.route("cam2")[0] == ["tiny"]
    assert Path(line.models["tiny"].file).is_file()
    rules = line.stations[line.cameras["cam1"].station].rules
    assert rules is not None and rules.ng == ["red"]


def test_what_the_demo_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="no such file"):
        make_line(settings(models=["none.onnx"]), tmp_path)
    with pytest.raises(DemoError, match="camera"):
        make_line(settings(sources=["none.mp4"]), tmp_path)
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "m.onnx", tmp_path / "a" / "m.onnx"):
        path.touch()
    with pytest.raises(DemoError, match="one name"):
        make_line(settings(models=[str(tmp_path / "m.onnx"), str(tmp_path / "a" / "m.onnx")]), tmp_path)


def test_a_class_that_no_given_model_knows_is_refused_with_the_closest(tmp_path: Path) -> None:
    line = make_line(settings(ng=["rde", "white"]), tmp_path)
    with pytest.raises(DemoError, match=r"^--ng rde: no given model knows this class; did you mean red\?$"):
        check_classes(line, facts.of_line(line, tmp_path))
    check_classes(make_line(settings(ng=["red"]), tmp_path), facts.of_line(line, tmp_path))


def run(tmp_path: Path, *options: str) -> tuple[int, str]:
    """A demo that must not start: in this process."""
    result = CliRunner().invoke(app, ["demo", "--save", str(tmp_path / "pictures"), *options])
    return result.exit_code, result.output


def test_the_demo_with_a_class_that_no_model_knows_is_a_usage_error(tmp_path: Path) -> None:
    code, output = run(tmp_path, "--model", "tiny", "--ng", "whte")
    assert (code, output) == (2, "--ng whte: no given model knows this class; did you mean white?\n")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_loaded_ends_the_demo_before_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    tiny.make(path)
    path.write_bytes(path.read_bytes()[:-500])
    code, output = run(tmp_path, "--model", str(path))
    assert code == 1
    assert output.startswith(f"{path}: onnxruntime cannot load it")
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_of_the_store_is_found_by_its_name(tmp_path: Path) -> None:
    """As `workers start` finds it; that it is found is seen by what is said of the file."""
    store = tmp_path / "gongwei" / "models"
    store.mkdir(parents=True)
    (store / "spots-1.1.onnx").write_bytes(b"no model")
    result = CliRunner().invoke(app, ["demo", "--model", "spots-1.1"], env=home(tmp_path))
    assert (result.exit_code, f"{store / 'spots-1.1.onnx'}: onnxruntime cannot load it" in result.output) == (1, True)
    result = CliRunner().invoke(app, ["demo", "--model", "spots-1.0"], env=home(tmp_path))
    assert result.exit_code == 2
    assert "\ndid you mean spots-1.1?\n" in result.output


def test_ports_that_are_taken_are_passed_over() -> None:
    first = free_ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first[1]))
        taken.listen()
        assert first[1] not in free_ports(3, first[0])


def test_every_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, 12, 30, 5)
    first, second = (gallery.claim(tmp_path / "out", now) for _ in range(2))
    assert [first.name, second.name] == ["2026-03-01-123005", "2026-03-01-123005-2"]
    (first / "ok").mkdir()
    (first / "ok" / "cam1-0.jpg").touch()
    assert [gallery.count(one) for one in (first, second)] == [1, 0]
    for one in (first, second):
        gallery.leave(one)
    assert list((tmp_path / "out").iterdir()) == [first]


def test_a_folder_that_takes_no_pictures_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file of the user's")
    code, output = run(tmp_path, "--model", "tiny")
    assert code == 1
    assert output.startswith(f"{tmp_path / 'pictures'}: pictures cannot be written there: ")
    assert (tmp_path / "pictures").read_text() == "a file of the user's"


# --- for people ------------------------------------------------------------------------------------------------------


def shown(report: Report, tmp_path: Path) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(summary.draw(report, make_line(settings(), tmp_path), Path("demo-output"), 2))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_summary_has_the_sum_and_says_where_the_pictures_are(tmp_path: Path) -> None:
    text = shown(reconcile({"cam1": TOLD}, ledger(), received(0, 1)), tmp_path)
    assert "accepted 2 = joined 2 + lost 0; duplicates 0" in text
    assert "2 frames in 2.0 s (1.0/s)" in text
    assert "verdicts: ng 1, ok 3 (NG: a frame that shows white)" in text
    assert "annotated pictures: 2 in demo-output" in text


def test_the_summary_says_that_weights_are_random(tmp_path: Path) -> None:
    console, line = Console(file=io.StringIO(), width=160), make_line(settings(), tmp_path)
    report = reconcile({"cam1": TOLD}, ledger(), received(0, 1))
    console.print(summary.draw(report, line, Path("demo-output"), 2, ["zoo", "yolov5n"]))
    assert "random weights: zoo, yolov5n: what they find means nothing" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_summary_names_a_camera_that_said_nothing(tmp_path: Path) -> None:
    assert "no report from cam2" in shown(reconcile({"cam2": None}, ledger(), received(0, 1)), tmp_path)


# --- a whole run -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def demo(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`gongwei demo` in a process of its own; killed at the end."""
    command = [sys.executable, "-m", "ops", "demo", "--model", "tiny"]
    command += ["--save", str(tmp_path / "pictures"), "--report", str(tmp_path / "report.json"), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **own_group()) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_the_whole_line_gives_every_frame_one_result(tmp_path: Path) -> None:
    with demo(tmp_path, "--frames", "12", "--deadline", "30") as process:
        output, log = process.communicate(timeout=110)
    assert process.returncode == 0, log
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert (report["accepted"], report["joined"], report["received"], report["complete"]) == (24, 24, 24, 24)
    assert [report[name] for name in ("lost", "duplicates", "unreceived", "dropped")] == [0, 0, 0, 0]
    assert report["models"]["tiny"]["statuses"] == {"ok": 24}
    assert sum(report["verdicts"].values()) == 24
    assert 0 < report["latency"]["p50"] <= report["latency"]["p99"]
    assert len(list((tmp_path / "pictures").rglob("*.jpg"))) == 24
    assert "accepted 24 = joined 24 + lost 0; duplicates 0" in output
    assert f"report: {tmp_path / 'report.json'}\n" in output
    (folder,) = (tmp_path / "pictures").iterdir()
    assert f"annotated pictures: 24 in {folder}\n" in output


@pytest.mark.slow
def test_pictures_that_cannot_be_written_fail_the_demo(tmp_path: Path) -> None:
    """The folder is taken away while the line starts, and a file is in its place."""
    with demo(tmp_path, "--frames", "2", "--deadline", "30") as process:
        assert process.stderr is not None
        log = [next(line for line in process.stderr if "models: " in line)]
        (folder,) = (tmp_path / "pictures").iterdir()
        folder.rmdir()
        folder.touch()
        log += process.stderr
        assert process.wait(timeout=100) == 1, "".join(log)
    assert f"no annotated picture was written to {folder}: the reason is in the log above" in "".join(log)


@pytest.mark.slow
def test_a_demo_that_is_interrupted_accounts_for_what_it_did(tmp_path: Path) -> None:
    with demo(tmp_path, "--frames", "0", "--deadline", "30") as process:
        assert process.stderr is not None
        log = [next(line for line in process.stderr if re.search(r"accepted [1-9]", line))]
        process.send_signal(ASK)
        log += process.stderr
        assert process.wait(timeout=60) == 0, "".join(log)
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["joined"] == report["received"] > 0
