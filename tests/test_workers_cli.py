"""The `workers` command as a user meets it: real processes, exit codes, what is printed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from broker.wire import Beat, Drain, Ready, Void
from tests.conftest import free_port
from tests.darknet.cases import NEW_COORDS
from tests.darknet.noise import weight_file
from tests.small_graphs import MIXED, bring, graph, weights
from tests.test_worker import FakeBroker, grey, score
from workers.engine.fake import EXIT_CODE, poison_picture
from workers.engine.onnx import OnnxEngine
from workers.zoo.cfg import parse
from workers.zoo.plan import plan

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
if sys.platform == "win32":
    NEW_GROUP, STOP = subprocess.CREATE_NEW_PROCESS_GROUP, signal.CTRL_BREAK_EVENT
else:
    NEW_GROUP, STOP = 0, signal.SIGTERM


def workers_command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "PYTHONUTF8": "1", "COLUMNS": "200"}


class Process:
    """A running `workers start`; its log is kept."""

    def __init__(self, *arguments: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "workers", "start", *arguments],
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            creationflags=NEW_GROUP,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        self.lines += iter(self.popen.stderr.readline, "")

    def ask_to_stop(self) -> None:
        self.popen.send_signal(STOP)

    def wait(self) -> int:
        code = self.popen.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    @property
    def log(self) -> str:
        return "".join(self.lines)


@contextmanager
def started(broker: FakeBroker, *arguments: str) -> Iterator[Process]:
    process = Process("--backend", broker.backend, *arguments)
    try:
        yield process
    finally:
        process.popen.kill()
        process.wait()
        assert process.popen.stderr is not None
        process.popen.stderr.close()


@pytest.fixture
def broker(context: zmq.Context[Any]) -> Iterator[FakeBroker]:
    broker = FakeBroker(context, f"tcp://127.0.0.1:{free_port()}")
    broker.start()
    yield broker
    broker.close()


def test_start_serves_and_ends_in_order(broker: FakeBroker) -> None:
    port = free_port()
    with started(broker, "--model", "m=fake:", "--name", "w1", "--metrics-port", str(port)) as process:
        lease = broker.lease()
        assert (lease.ready.worker, lease.ready.model) == ("w1", "m")
        broker.send(lease, grey(200))
        assert score(broker.answers(lease.ready.session, 1)[0]) == pytest.approx(200 / 255, abs=1e-3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as page:
            text = page.read().decode()
        assert 'gongwei_worker_frames_total{model="m",reason="",status="ok"} 1.0' in text
        assert 'gongwei_worker_sessions{model="m"} 1.0' in text
        process.ask_to_stop()
        broker.wait(Drain)
        broker.say(lease.identity, Void(session=lease.ready.session, reason="drained"))
        assert process.wait() == 0
    assert "model ready" in process.log
    assert "warm_up_ms" in process.log
    assert "worker ended" in process.log


def test_a_taken_name_ends_with_1(broker: FakeBroker) -> None:
    with started(broker, "--model", "m=fake:") as process:
        while process.popen.poll() is None:
            for identity, message in broker.hear(0.1):
                if isinstance(message, Ready):
                    broker.say(identity, Void(session=message.session, reason="name_taken"))
        assert process.wait() == 1
    assert "--name" in process.log


@pytest.mark.parametrize("poison", ["hang", "spin"])
def test_the_watchdog_ends_a_stuck_process_with_its_traceback(broker: FakeBroker, poison: str) -> None:
    with started(broker, "--model", f"m=fake:poison={poison}") as process:
        lease = broker.lease()
        broker.send(lease, poison_picture(64, 64))
        assert process.wait() == 1
    assert "Timeout" in process.log
    assert "_suffer" in process.log


def test_a_poison_picture_takes_the_process_with_it(broker: FakeBroker) -> None:
    with started(broker, "--model", "m=fake:poison=exit") as process:
        lease = broker.lease()
        broker.wait(Beat)
        broker.send(lease, poison_picture(64, 64))
        assert process.wait() == EXIT_CODE


def test_start_from_a_line_file(broker: FakeBroker, tmp_path: Path) -> None:
    made = workers_command("tiny", str(tmp_path / "models" / "spots.onnx"))
    assert (made.returncode, "classes: white, red, green, blue" in made.stdout) == (0, True)
    line = tmp_path / "line.toml"
    line.write_text(
        f"""
        endpoints.backend = "{broker.backend}"
        [stations.s]
        [cameras.c]
        station = "s"
        [models.spots]
        file = "models/spots.onnx"
        threads = 2
        max_batch = 4
        [routes.c]
        models = ["spots"]
        """,
        encoding="utf-8",
    )
    process = Process("--line", str(line), "--model", "spots", "--json-log")
    try:
        lease = broker.lease()
        other = broker.lease(lease.ready.session)
        assert [(one.ready.model, one.ready.max_batch) for one in (lease, other)] == [("spots", 4)] * 2
        picture = np.full((480, 640, 3), 40, np.uint8)
        picture[100:164, 200:264] = 255
        broker.send(lease, picture)
        (answer,) = broker.answers(lease.ready.session, 1)
        assert answer.status == "ok"
    finally:
        process.popen.kill()
        process.wait()
        assert process.popen.stderr is not None
        process.popen.stderr.close()
    events = [json.loads(text) for text in process.lines if text.startswith("{")]
    (first, *_) = [event for event in events if event["event"] == "model ready"]
    assert (first["task"], first["classes"], first["input"], first["max_batch"]) == ("detect", 4, "160x160", 4)


def test_start_without_the_model_says_what_to_do(tmp_path: Path) -> None:
    ended = workers_command("start", "--model", "scratches", "--store", str(tmp_path), cwd=tmp_path)
    assert ended.returncode == 1
    assert "--model scratches=FILE.onnx" in ended.stderr


def test_usage_errors_end_with_2(tmp_path: Path) -> None:
    bad = tmp_path / "line.toml"
    bad.write_text("nonsense = 1", encoding="utf-8")
    assert workers_command("start").returncode == 2
    assert workers_command("start", "--model", "m=fake:", "--line", str(bad)).returncode == 2
    ended = workers_command("start", "--model", "m=fake:", "--fit", "twist")
    assert ended.returncode == 2
    assert "--fit twist: one of letterbox, stretch, crop" in ended.stderr


def test_check_prints_and_gives_json(tmp_path: Path) -> None:
    model, picture = tmp_path / "tiny.onnx", tmp_path / "spot.png"
    assert workers_command("tiny", str(model)).returncode == 0
    canvas = np.full((480, 640, 3), 40, np.uint8)
    canvas[100:164, 200:264] = (0, 0, 255)
    picture.write_bytes(cv2.imencode(".png", canvas)[1].tobytes())
    shown = workers_command("check", str(model), str(picture), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "red" in shown.stdout
    assert shown.stdout.splitlines()[0] == f"{picture}: 1 detection", "however long the name is"
    drawn = cv2.imread(str(tmp_path / "annotated" / "tiny-1-spot.jpg"))
    assert drawn is not None and drawn.shape[0] > 480, "the picture under a banner"
    assert np.abs(drawn[-480:].astype(int) - canvas).max(axis=2).sum() > 255 * 100, "nothing was drawn"
    told = workers_command("check", str(model), str(picture), str(picture), "--json", cwd=tmp_path)
    bodies = [json.loads(text) for text in told.stdout.splitlines()]
    assert len(bodies) == 2
    (entry,) = bodies[0]["detections"]
    assert entry["name"] == "red"
    assert entry["box"] == pytest.approx([200, 100, 264, 164], abs=10)
    assert len(list((tmp_path / "annotated").iterdir())) == 1
    told = workers_command("check", str(model), str(picture), "--json", "--save", str(tmp_path / "two"))
    assert Path(json.loads(told.stdout)["annotated"]).is_file()


def test_import_of_a_darknet_model_is_found_by_its_name(tmp_path: Path) -> None:
    cfg, weights, labels, picture = (tmp_path / name for name in ("Small.cfg", "small.weights", "a.names", "noise.png"))
    cfg.write_text(NEW_COORDS, encoding="utf-8")
    weights.write_bytes(weight_file(plan(parse(NEW_COORDS, "")), 1, np.ones(9, np.float32)))
    labels.write_text("bolt\nnut\n螺丝\n", encoding="utf-8")
    picture.write_bytes(
        cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8))[1].tobytes()
    )
    store = ["--store", str(tmp_path / "store")]
    unnamed = workers_command("import", str(cfg), str(weights), *store)
    assert unnamed.returncode == 1
    assert "has 3 classes and no names; give them with --labels FILE" in unnamed.stderr
    assert not (tmp_path / "store").exists()
    done = workers_command("import", str(weights), str(cfg), "--labels", str(labels), "--fit", "letterbox", *store)
    assert done.returncode == 0, done.stderr
    assert "small: 3 classes, input 96x64, letterbox, 768 boxes, any batch" in done.stdout
    told = workers_command("check", "small", str(picture), "--confidence", "0.01", "--json", *store, cwd=tmp_path)
    assert {entry["name"] for entry in json.loads(told.stdout)["detections"]} <= {"bolt", "nut", "螺丝"}
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["small.onnx"]
    said = OnnxEngine.load(tmp_path / "store" / "small.onnx", threads=1, device="cpu").signature.metadata
    assert said["gongwei.source"] == "Small.cfg, small.weights"
    assert said["gongwei.source_sha256"].split(", ")[0] == hashlib.sha256(cfg.read_bytes()).hexdigest()
    assert (said["task"], said["imgsz"], said["gongwei.fit"]) == ("detect", "[96, 64]", "letterbox")


def test_import_of_published_models_brings_coco_names(testdata: Path, tmp_path: Path) -> None:
    files = [str(testdata / "models" / f"yolo-fastest-1.1.{end}") for end in ("cfg", "weights")]
    done = workers_command("import", *files, "--store", str(tmp_path))
    assert "yolo-fastest-1.1: 80 classes, input 320x320, stretch, 1500 boxes, any batch" in done.stdout, done.stderr
    picture = str(testdata / "images" / "eagle.jpg")
    told = workers_command("check", "yolo-fastest-1.1", picture, "--store", str(tmp_path), "--json")
    (entry,) = json.loads(told.stdout)["detections"]
    assert (entry["name"], entry["box"]) == ("bird", pytest.approx([223.6, 87.7, 587.6, 444.1], abs=0.5))


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("a.cfg",), "a.cfg: a model is one ONNX file, or the two of a Darknet model", 2),
        (("a.onnx", "b.weights"), "a.onnx b.weights: a model is one ONNX file, or the two of a Darknet model", 2),
        (("a.onnx",), "a.onnx: there is no such file", 1),
        (("a.onnx", "--fit", "wide"), "--fit wide: one of letterbox, stretch, crop", 2),
        (("a.onnx", "--mean", "0.5,0.5,0.4"), "--mean 127.5,127.5,102", 2),
        (("a.onnx", "--std", "0.2"), "in grey levels from 0 to 255, not as shares of them: --std 51", 2),
        (("a.onnx", "--colours", "grb"), "--colours grb: rgb or bgr", 2),
        (("a.cfg", "b.weights", "--name", "A B"), "'A B' is no model name", 2),
        (("a.cfg", "b.weights"), "a.cfg: cannot be read", 1),
        (("a.cfg", "b.weights", "--fit", "crop"), "only --labels, --fit letterbox or --fit stretch", 2),
        (("a.cfg", "b.weights", "--size", "64x64"), "a.cfg: its cfg and Darknet itself say task, size", 2),
    ],
)
def test_import_says_what_is_wrong(words: tuple[str, ...], told: str, code: int, tmp_path: Path) -> None:
    ended = workers_command("import", *words, "--store", str(tmp_path / "store"), cwd=tmp_path)
    assert ended.returncode == code
    assert told in ended.stderr
    assert not (tmp_path / "store").exists()


def test_import_of_an_onnx_file_listed_and_looked_with(tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "store")]
    nowhere = workers_command("models", *store)
    assert nowhere.returncode == 0 and "demo-det" in nowhere.stdout, "a folder that is not there yet"
    assert f"{tmp_path / 'store'}: there is no such folder" in nowhere.stderr
    assert f"  workers import FILE.onnx --store {tmp_path / 'store'}\n" in nowhere.stderr
    (tmp_path / "store").mkdir()
    empty = workers_command("models", *store, "--json")
    assert "no model in it" in empty.stderr and json.loads(empty.stdout)
    source, picture = tmp_path / "Spots.onnx", tmp_path / "spot.png"
    workers_command("tiny", str(source))
    shot = np.full((480, 640, 3), 60, np.uint8)
    shot[100:164, 200:264] = (0, 0, 255)
    picture.write_bytes(cv2.imencode(".png", shot)[1].tobytes())
    done = workers_command("import", str(source), "--licence", "our own", "--confidence", "0.3", *store)
    assert done.returncode == 0, done.stderr
    assert "spots: 4 classes, input 160x160, letterbox\n  any batch: 3 pictures at once" in done.stdout
    kept = (tmp_path / "store" / "spots.onnx").read_bytes()
    again = workers_command("import", str(source), *store)
    assert again.returncode == 1
    assert "is there already: --replace writes over it" in again.stderr
    assert (tmp_path / "store" / "spots.onnx").read_bytes() == kept
    assert workers_command("import", str(source), "--replace", *store, "--licence", "our own").returncode == 0
    row = next(
        row for row in json.loads(workers_command("models", "--json", *store).stdout) if "demo-" not in row["name"]
    )
    assert (row["name"], row["max_batch"], row["licence"]) == ("spots", None, "our own")
    assert row["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    listed = workers_command("models", *store).stdout
    assert any(line.split()[:3] == ["spots", "detect", "160x160"] for line in listed.splitlines())
    told = workers_command("check", "spots", str(picture), "--json", *store)
    (entry,) = json.loads(told.stdout)["detections"]
    assert entry["name"] == "red"


def test_start_says_why_a_model_takes_one_picture_at_a_time(broker: FakeBroker, tmp_path: Path) -> None:
    bring(graph(MIXED, {"w": weights(3, 2)}, [1, 2]), tmp_path)
    store = str(tmp_path / "store")
    told = workers_command("models", "--store", store).stdout
    assert "small: output 0 of a batch of 3 is" in told
    with started(broker, "--model", "small", "--store", store, "--max-batch", "4") as process:
        broker.lease()
    assert "its file limits the batch" in process.log
    assert "max_batch=1" in process.log
    assert 'reason="output 0 of a batch of 3 is' in process.log


def test_check_of_a_broken_picture_names_it(tmp_path: Path) -> None:
    model, picture = tmp_path / "tiny.onnx", tmp_path / "broken.jpg"
    workers_command("tiny", str(model))
    picture.write_bytes(b"\xff\xd8 broken")
    ended = workers_command("check", str(model), str(picture))
    assert ended.returncode == 1
    assert "broken.jpg" in ended.stderr


def test_check_looks_at_all_that_is_a_picture_and_says_what_is_none(tmp_path: Path) -> None:
    workers_command("tiny", str(tmp_path / "tiny.onnx"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("part10.png", "part9.png"):
        (folder / name).write_bytes(cv2.imencode(".png", np.full((48, 64, 3), 40, np.uint8))[1].tobytes())
    for name in ("notes.txt", "broken.jpg"):
        (folder / name).write_bytes(b"\xff\xd8 broken")
    (tmp_path / "belt.mp4").touch()
    (tmp_path / "empty").mkdir()
    ended = workers_command("check", "tiny.onnx", "none.png", "pictures", "belt.mp4", "empty", "--json", cwd=tmp_path)
    assert ended.returncode == 1
    assert [json.loads(line)["image"] for line in ended.stdout.splitlines()] == [
        str(Path("pictures", name)) for name in ("part9.png", "part10.png")
    ]
    told = ended.stderr.splitlines()
    assert told[0] == "none.png: there is no such file or folder"
    assert told[1].startswith(f"{Path('pictures', 'broken.jpg')}: ")
    assert told[2].startswith("belt.mp4: is a video, and only pictures are looked at here.")
    assert told[3] == "  gongwei demo --model tiny.onnx --camera belt.mp4"
    assert "empty: no picture in this folder" in told[6]
    assert told[7:] == ["4 of 6 not looked at: see above"]
    done = workers_command("check", "tiny.onnx", str(folder / "part9.png"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_import_and_describe_tell_of_namesakes(tmp_path: Path) -> None:
    source, labels = tmp_path / "spots.onnx", tmp_path / "names"
    workers_command("tiny", str(source))
    labels.write_text("bad\nok\nbad\nfine\n", encoding="utf-8")
    told = "  classes 0, 2 are all called 'bad': rules and counts"
    done = workers_command("import", str(source), "--labels", str(labels), "--store", str(tmp_path / "store"))
    assert done.returncode == 0 and told in done.stdout
    done = workers_command("describe", str(source), str(tmp_path / "out.onnx"), "--labels", str(labels))
    assert done.returncode == 0 and told in done.stdout


def test_describe_makes_a_classifier_self_sufficient(testdata: Path, tmp_path: Path) -> None:
    source, ready = str(testdata / "models" / "mobilenetv2.onnx"), str(tmp_path / "ready.onnx")
    labels, cat = str(testdata / "images" / "imagenet_labels.txt"), str(testdata / "images" / "cat.bmp")
    asked = workers_command("import", source, "--store", str(tmp_path / "store")).stderr
    assert "--mean 127.5" in asked and "--labels FILE" in asked
    said = ["--labels", labels, "--mean", "127.5", "--std", "127.5", "--fit", "stretch"]
    few = tmp_path / "few.txt"
    few.write_text("\n".join(str(number) for number in range(80)), encoding="utf-8")
    wrong = workers_command("describe", source, ready, *said, "--labels", str(few))
    assert wrong.returncode == 1
    assert "has 1001 classes, but 80 names" in wrong.stderr
    assert not Path(ready).exists()
    assert workers_command("describe", source, ready, *said).returncode == 0
    told = workers_command("check", ready, cat, "--json")
    assert json.loads(told.stdout)["classes"][0]["name"] == "Egyptian cat"


@pytest.mark.parametrize(
    "command", [[], ["start"], ["check"], ["tiny"], ["describe"], ["import"], ["models"], ["remove"]], ids=str
)
def test_help_has_examples(command: list[str]) -> None:
    ended = workers_command(*command, "--help")
    assert ended.returncode == 0
    if command:
        assert f"workers {command[0]} " in ended.stdout.split("Usage")[1][30:]
