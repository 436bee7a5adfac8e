"""Operators' commands against real processes: list, stop, rolling restart, a new version of a model."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from broker import desk
from broker.line import Model as LineModel
from broker.line import to_toml
from broker.troubles import present
from broker.wire import List
from clients.camera import Camera
from ops.rolling import open_sessions, workers_of
from tests.conftest import free_port
from tests.peers import ready
from tests.processes import Processes
from tests.test_end_to_end import assert_reconciled
from tests.test_kill import Consumer, Feeder
from tests.test_workers_cli import ROOT, STOP, environment
from tests.world import World
from workers import tiny
from workers.describe import describe
from workers.model import Hints
from workers.operate import table


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def listed(line: Processes) -> list[dict[str, Any]]:
    told = command("workers", "list", "--line", str(line.path), "--json")
    assert told.returncode == 0, told.stderr
    sessions: list[dict[str, Any]] = json.loads(told.stdout)["sessions"]
    return sessions


def wait_open(line: Processes, count: int) -> None:
    line.wait(f"{count} sessions open", lambda: sum(session["open"] for session in listed(line)) == count)


# --- without a broker ------------------------------------------------------------------------------------------------


def test_stop_says_which_are_possible_when_none_is_named() -> None:
    told = command("workers", "stop")
    assert (told.returncode, told.stderr.strip()) == (2, "say which: --name WORKER, --model MODEL or --all")


@pytest.mark.parametrize("words", [("workers", "list"), ("workers", "stop", "--all")])
def test_without_a_broker_the_command_ends_with_1(words: tuple[str, ...]) -> None:
    timeout = ["--timeout", "0.2"] if words[1] == "list" else []
    told = command(*words, *timeout, "--control", f"tcp://127.0.0.1:{free_port()}")
    assert told.returncode == 1
    assert "is the broker running?" in told.stderr


def test_stand_ins_are_no_workers_to_be_restarted() -> None:
    world = World(cameras=1, models=("det", "seg"))
    world.calm(0.2)
    for name in ("b", "a", "det-stand-in"):
        world.from_worker(name, ready(f"{name}s", worker=name))
    world.turn()
    sessions = desk.listed(world.router, List()).sessions
    assert workers_of(sessions, "det") == ["a", "b", "w1"]
    assert open_sessions(sessions) == {"det": 3, "seg": 1}


def test_the_precision_of_a_model_is_shown() -> None:
    world = World(cameras=1, models=("det",))
    world.calm(0.2)
    world.from_worker("gpu", ready("gpus", worker="gpu", precision="int8"))
    world.turn()
    listed = desk.listed(world.router, List())
    assert [one.precision for one in listed.sessions] == ["unknown", "int8"]
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table(listed))
    assert ["int8" in line for line in console.export_text().splitlines()[1:]] == [False, True]


def test_random_weights_are_shown_and_told_as_a_trouble() -> None:
    world = World(cameras=1, models=("det",))
    world.calm(0.2)
    assert list(present(world.router, world.now)) == []
    world.from_worker("zoo", ready("zoos", worker="zoo", random=True))
    world.turn()
    (trouble,) = present(world.router, world.now)
    assert ("random" in trouble.what, trouble.about) == (True, (("model", "det"),))
    listed = desk.listed(world.router, List())
    assert [one.random for one in listed.sessions] == [False, True]
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table(listed))
    assert [" random" in line for line in console.export_text().splitlines()[1:]] == [False, True]


# --- real processes --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_that_is_stopped_by_name_by_signal_or_not_at_all(tmp_path: Path) -> None:
    """Under load: 0 and nothing requeued; 1 while a job runs longer than the timeout; 2 and who there is."""
    with Processes(tmp_path, {"slow": "fake:delay=0.02", "stuck": "fake:delay=2.0"}, ["cam1", "cam2"]) as line:
        routes = {name: msgspec.structs.replace(route, models=["slow"]) for name, route in line.line.routes.items()}
        routes["cam2"] = msgspec.structs.replace(routes["cam2"], models=["stuck"])
        line.path.write_text(to_toml(msgspec.structs.replace(line.line, routes=routes)), encoding="utf-8")
        line.start_line()
        line.start_worker("slow", 1)
        line.start_worker("slow", 2)
        wait_open(line, 4)
        unknown = command("workers", "stop", "--name", "slow-7", "--line", str(line.path))
        assert unknown.returncode == 2
        assert "workers are: slow-0, slow-1, slow-2, stuck-0" in unknown.stderr
        end = line.line.endpoints.frontend
        with (
            Camera("cam1", endpoint=end, deadline=60.0) as first,
            Camera("cam2", endpoint=end, deadline=60.0) as second,
        ):
            feeders = [Feeder(first, 300), Feeder(second, 6)]
            feeders[0].start()
            line.wait("frames flow", lambda: first.stats.complete > 20)
            told = command("workers", "stop", "--name", "slow-1", "--line", str(line.path), "--json")
            assert told.returncode == 0, told.stderr
            answer = json.loads(told.stdout)
            assert [one["worker"] for one in answer["drained"]] == ["slow-1"]
            assert answer["waiting"] == []
            assert line.running["slow-1"].wait(10) == 0
            line.running["slow-2"].send_signal(STOP)
            assert line.running["slow-2"].wait(10) == 0
            feeders[1].start()
            line.wait(
                "the slow one is busy", lambda: any(s["in_flight"] for s in listed(line) if s["worker"] == "stuck-0")
            )
            told = command("workers", "stop", "--model", "stuck", "--line", str(line.path), "--timeout", "0.1")
            assert told.returncode == 1
            assert "in flight at stuck-0" in told.stderr
            line.start_worker("stuck", 1)  # for what the other had not begun
            for feeder in feeders:
                feeder.join(60)
            assert first.flush(30)
            assert second.flush(30)
            assert (first.stats.complete, second.stats.complete) == (300, 6)
        assert line.running["stuck-0"].wait(20) == 0
        report = line.report()
    assert_reconciled(report, 306, 1)
    assert report["requeued"] == 0


@contextmanager
def supervised(line: Processes) -> Iterator[subprocess.Popen[bytes]]:
    """`gongwei up` of the line."""
    line.start("up", "ops", "up", str(line.path), "--json")
    yield line.running["up"]
    if sys.platform != "win32":
        line.running["up"].send_signal(signal.SIGINT)
        assert line.running.pop("up").wait(60) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C to one process of a console is not to be had")
def test_a_rolling_restart_and_a_new_version_under_load_lose_nothing(tmp_path: Path) -> None:
    old, new = tmp_path / "old.onnx", tmp_path / "new.onnx"
    tiny.make(old)
    describe(old, new, Hints(names=tuple(f"new-{name}" for name in tiny.NAMES)))
    models = {"tiny": LineModel(file="old.onnx", workers=2)}
    with Processes(tmp_path, {"tiny": old}, ["cam1"]) as line:
        described = msgspec.structs.replace(line.line, models=models)
        line.path.write_text(to_toml(described), encoding="utf-8")
        end = described.endpoints
        with (
            supervised(line),
            Consumer(end.live) as consumer,
            Camera("cam1", endpoint=end.frontend, deadline=60.0) as one,
        ):
            line.wait(
                "the broker answers", lambda: command("workers", "list", "--line", str(line.path)).returncode == 0
            )
            wait_open(line, 2)
            first = {session["session"] for session in listed(line)}
            finish = threading.Event()
            feeder = Feeder(one, 1 << 30, finish)
            feeder.start()
            told = command("ops", "rolling-restart", str(line.path), "--json")
            assert told.returncode == 0, told.stderr
            assert [each["worker"] for each in json.loads(told.stdout)] == ["tiny-1", "tiny-2"]
            assert first.isdisjoint(session["session"] for session in listed(line))
            newer = msgspec.structs.replace(described, models={"tiny": LineModel(file="new.onnx", workers=2)})
            line.path.write_text(to_toml(newer), encoding="utf-8")
            told = command("broker", "reload", str(line.path))
            assert "the old version goes on until a worker of the new one is open" in told.stdout, told.stderr
            told = command("ops", "rolling-restart", str(line.path), "--model", "tiny")
            assert told.returncode == 0, told.stderr
            assert len({session["sha256"] for session in listed(line)}) == 1
            finish.set()
            feeder.join(60)
            assert one.flush(30)
            sent = feeder.sent
            assert one.stats.complete == sent
            line.wait("all published", lambda: len(consumer.bodies) == sent)
        report = line.report()
    assert_reconciled(report, sent, 1)
    assert report["requeued"] == 0
    used = [body["results"]["tiny"]["version"] for body in sorted(consumer.bodies, key=lambda body: body["seq"])]
    versions = list(dict.fromkeys(used))
    assert len(versions) == 2
    assert used == sorted(used, key=versions.index), "an older version after a newer one"


@contextmanager
def kept_alive(line: Processes, name: str) -> Iterator[None]:
    """Process `name` is started again whenever it ends: what a supervisor does."""
    enough = threading.Event()

    def keep() -> None:
        while not enough.wait(0.05):
            if line.running[name].poll() is not None:
                line.restart(name)

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        enough.set()
        keeper.join(10)


@pytest.mark.slow
def test_a_worker_of_two_models_is_let_go_when_both_have_stand_ins(tmp_path: Path) -> None:
    """Under load. Each model is served by this one worker alone."""
    with Processes(tmp_path, {"one": "fake:", "two": "fake:"}, ["cam1"]) as line:
        models = {name: LineModel(file="fake:delay=0.002") for name in ("one", "two")}
        line.path.write_text(to_toml(msgspec.structs.replace(line.line, models=models)), encoding="utf-8")
        line.start("join", "broker", "join", "--line", str(line.path))
        line.start("broker", "broker", "start", "--line", str(line.path))
        both = ("--model", "one", "--model", "two", "--name", "both")
        line.start("both", "workers", "start", "--line", str(line.path), *both)
        wait_open(line, 2)
        finish = threading.Event()
        with Camera("cam1", endpoint=line.line.endpoints.frontend, deadline=60.0) as camera, kept_alive(line, "both"):
            feeder = Feeder(camera, 1 << 30, finish)
            feeder.start()
            told = command("ops", "rolling-restart", str(line.path))
            finish.set()
            feeder.join(60)
            assert camera.flush(30)
            assert camera.stats.complete == feeder.sent
        assert told.returncode == 0, told.stderr
        steps = [text.split(" is ")[0].split(" drained")[0] for text in told.stderr.splitlines()]
        assert steps == ["one: one-stand-in", "two: two-stand-in", "both:"]
        assert told.stdout == "restarted: both\n"
        report = line.report()
    assert report["requeued"] == 0


@pytest.mark.slow
def test_a_worker_that_nobody_starts_again_ends_the_restart_with_1(tmp_path: Path) -> None:
    with Processes(tmp_path, {"fake": "fake:"}, ["cam1"]) as line:
        line.start_line(workers=2)
        wait_open(line, 2)
        told = command("ops", "rolling-restart", str(line.path), "--timeout", "2")
        assert told.returncode == 1
        assert "fake-0 ended and has not come back within 2 s" in told.stderr
        assert [session["worker"] for session in listed(line)] == ["fake-1"], "the others were left alone"
        told = command("ops", "rolling-restart", str(line.path), "--model", "nothing")
        assert (told.returncode, "no worker of nothing" in told.stderr) == (1, True)
