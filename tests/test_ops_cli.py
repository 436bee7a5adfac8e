"""The `gongwei` command: help, usage errors with exit code 2, the plan of processes, and `doctor`."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from broker import line as line_file
from broker.line import CameraEntry, Endpoints, Line, Model, Route, Rules, Station, to_toml
from ops import inputs, plan, up
from ops.__main__ import app
from ops.demo_line import endpoints, free_ports
from ops.facts import Facts
from ops.process import ASK, own_group
from ops.supervisor import Restart, Stage

COMMANDS = ["up", "demo", "doctor", "bench"]


def line(**changes: object) -> Line:
    settings: dict[str, object] = {
        "stations": {"press": Station()},
        "cameras": {"top": CameraEntry(station="press", source="synthetic:", deadline=2.0)},
        "models": {"dents": Model(file="dents.onnx", workers=2, threads=3, max_batch=4, max_delay=0.005)},
        "routes": {"top": Route(models=["dents"])},
    }
    return Line(**settings | changes)  # type: ignore[arg-type]


def remote_line(**changes: object) -> Line:
    """A line whose models and cameras run elsewhere."""
    return line(models={"dents": Model()}, cameras={"top": CameraEntry(station="press")}, **changes)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"NO_COLOR": "1", "COLUMNS": "200"})
    return result.exit_code, result.output


# --- help and usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    code, output = run(command, "--help")
    assert code == 0
    assert "Usage: " in output


@pytest.mark.parametrize("command", ["up", "demo", "doctor"])
def test_help_has_examples(command: str) -> None:
    assert f"gongwei {command}" in run(command, "--help")[1].partition("Examples:")[2]


def test_a_line_file_that_is_wrong_is_a_usage_error_that_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text("[stations.press]\n[cameras.top]\nstation = 'pres'\n")
    code, output = run("up", str(path))
    assert code == 2
    assert "line.toml:3" in output


def test_a_line_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    code, output = run("doctor", "--line", str(tmp_path / "none.toml"))
    assert (code, "cannot be read" in output) == (2, True)


def test_a_model_file_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(to_toml(line()), encoding="utf-8")
    code, output = run("up", str(path))
    assert code == 2
    assert "models.dents.file" in output


def test_a_line_file_can_name_a_model_of_the_store(tmp_path: Path) -> None:
    store = tmp_path / "data" / "gongwei" / "models"
    store.mkdir(parents=True)
    (store / "dents-2.onnx").touch()
    path, env = (
        tmp_path / "line.toml",
        {"XDG_DATA_HOME": str(tmp_path / "data"), "LOCALAPPDATA": str(tmp_path / "data")},
    )
    cameras = {"top": CameraEntry(station="press", source="none.mp4")}

    def told(file: str) -> str:
        path.write_text(to_toml(line(models={"dents": Model(file=file)}, cameras=cameras)), encoding="utf-8")
        result = CliRunner().invoke(app, ["up", str(path)], env=env)
        assert result.exit_code == 2
        return result.output

    assert "models.dents.file" not in told("dents-2")
    for wrong in ("dents-1", "dents-2.onnx"):
        assert f"models.dents.file: no file {tmp_path / wrong}" in told(wrong)
        assert " (did you mean dents-2?); `workers models` lists what a name finds" in told(wrong)


def test_up_warns_of_a_model_that_lies_here_and_has_no_file() -> None:
    (warning,) = up.warnings(line(models={"demo-det": Model()}, routes={"top": Route(models=["demo-det"])}), {})
    assert warning.endswith('file = "demo-det" runs the one that `workers models` lists')


def test_a_source_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    cameras = {"top": CameraEntry(station="press", source="none.mp4")}
    path.write_text(to_toml(line(models={"dents": Model()}, cameras=cameras)), encoding="utf-8")
    code, output = run("up", str(path))
    assert code == 2
    assert "cameras.top.source: source 'none.mp4': there is no such file" in output


def test_the_version_is_told_and_help_names_the_option() -> None:
    assert run("--version") == (0, f"gongwei {version('gongwei')}\n")
    assert "--version" in run("--help")[1]


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_has_every_process_with_its_port() -> None:
    specs = plan.specs(line(), Path("line.toml"))
    assert {spec.name: spec.metrics for spec in specs} == {
        "join": 7011,
        "broker": 7010,
        "recorder": 7012,
        "worker/dents-1": 7013,
        "worker/dents-2": 7014,
        "camera/top": 0,
    }


def test_the_plan_hands_on_what_the_line_file_says() -> None:
    specs = {spec.name: spec for spec in plan.specs(line(), Path("line.toml"))}
    worker = " ".join(specs["worker/dents-2"].argv[1:])
    assert worker == (
        "-m workers start --line line.toml --model dents --name dents-2 --threads 3 --max-batch 4 --max-delay 5"
        " --metrics-port 7014"
    )
    camera = specs["camera/top"]
    assert camera.argv[1:] == ("-m", "clients", "camera", "--line", "line.toml", "--name", "top")
    assert camera.restart is Restart.FAILURE
    assert camera.grace > 2.0
    assert plan.sessions(line()) == {"dents": 6}


def test_what_runs_elsewhere_is_not_started() -> None:
    remote = remote_line()
    assert {spec.stage for spec in plan.specs(remote, Path("line.toml"))} == {
        Stage.JOIN,
        Stage.BROKER,
        Stage.RECORDER,
    }
    assert plan.sessions(remote) == {}
    assert inputs.missing(remote, Path("line.toml")) == []


def test_without_metrics_no_process_gets_a_port() -> None:
    specs = plan.specs(line(endpoints=Endpoints(metrics=0)), Path("line.toml"))
    assert {spec.metrics for spec in specs} == {0}
    assert not any("--metrics-port" in spec.argv for spec in specs)


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_prints_a_list_for_scripts_and_its_exit_code_follows() -> None:
    code, output = run("doctor", "--json")
    checks = json.loads(output)
    assert {"python", "packages", "cv2", "gpu", "time sync"} <= {check["name"] for check in checks}
    assert code == (1 if any(check["state"] == "failed" for check in checks) else 0)


def test_doctor_prints_a_table_for_people() -> None:
    assert "what to do" in run("doctor")[1]


def test_doctor_checks_what_the_line_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(to_toml(line()), encoding="utf-8")
    code, output = run("doctor", "--line", str(path), "--json")
    found = {check["name"]: check["state"] for check in json.loads(output)}
    assert code == 1
    assert found["model dents"] == "failed"
    assert "ledger fsync" in found


# --- up --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare_line(tmp_path: Path) -> Path:
    """A line file of which broker, join and recorder run here, and nothing else."""
    path = tmp_path / "line.toml"
    path.write_text(to_toml(remote_line(endpoints=endpoints(free_ports(44)))), encoding="utf-8")
    return path


@contextlib.contextmanager
def running(path: Path) -> Iterator[subprocess.Popen[str]]:
    """`gongwei up` in a process of its own, its log read up to the readiness of the line; killed at the end."""
    command = [sys.executable, "-m", "ops", "up", str(path), "--json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **own_group()) as process:
        try:
            assert process.stderr is not None
            events = (json.loads(line)["event"] for line in process.stderr)
            assert any("the line is ready" in event for event in events)
            yield process
        finally:
            process.kill()


def within(text: str, port: int) -> bool:
    """Whether one of the ports and ranges (7001-7004) in `text` is or holds `port`."""
    found = [pair.split("-") for pair in re.findall(r"\d+(?:-\d+)?", text)]
    return any(int(low) <= port <= int(high[0] if high else low) for low, *high in found)


def test_a_line_that_runs_is_not_started_again_and_not_disturbed(bare_line: Path) -> None:
    with running(bare_line) as process:
        children = psutil.Process(process.pid).children()
        code, output = run("up", str(bare_line))
        assert code == 1
        (refused,) = [line for line in output.splitlines() if "taken by " in line]
        assert "a line runs here already: ports " in refused
        described = line_file.load(bare_line).endpoints
        for port in (int(described.frontend.rpartition(":")[2]), described.metrics + 2):
            assert within(refused, port)
        code, output = run("doctor", "--line", str(bare_line), "--json")
        told = [one for one in json.loads(output) if "taken" in one["found"]]
        assert (code, [one["name"] for one in told]) == (1, ["ports"])
        assert psutil.Process(process.pid).children() == children
        assert all(child.is_running() for child in children)


def test_a_port_that_another_program_has_is_named_before_anything_starts(bare_line: Path) -> None:
    port = line_file.load(bare_line).endpoints.metrics + 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        code, output = run("up", str(bare_line))
    assert code == 1
    assert f"metrics (join) port {port}: taken by " in output
    assert list(bare_line.parent.iterdir()) == [bare_line]


def test_up_warns_of_models_that_do_not_load_and_of_classes_that_no_model_knows() -> None:
    described = line(stations={"press": Station(rules=Rules(ng=["dint"]))})
    known = Facts(task="detect", names=("dent", "scratch"))
    (warning,) = up.warnings(described, {"dents": known})
    assert warning == ('stations.press.rules.ng: no model of its cameras knows the class "dint"; did you mean dent?')
    elsewhere = line(
        stations={"press": Station(rules=Rules(ng=["dint"]))},
        models={"dents": Model(file="dents.onnx"), "people": Model()},
        routes={"top": Route(models=["dents", "people"])},
    )
    assert up.warnings(elsewhere, {"dents": known}) == []
    (refused,) = up.warnings(described, {"dents": Facts(refused="dents.onnx: is cut short")})
    assert refused == "models.dents.file: no worker can load it: dents.onnx: is cut short"


def test_up_ends_in_order_when_it_is_asked_to(bare_line: Path) -> None:
    with running(bare_line) as process:
        children = psutil.Process(process.pid).children()
        process.send_signal(ASK)
        assert process.stderr is not None
        said = [json.loads(line) for line in process.stderr]
        assert process.wait(timeout=60) == 0
    events = [f"{record['process']}: {record['event']}" for record in said]
    assert events.index("broker: broker ended") < events.index("join: join ended")
    assert events[-1].startswith("gongwei: the line has ended: 0 frames joined, 0 not, 0 restarts")
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_nothing_outlives_a_supervisor_that_is_killed(bare_line: Path) -> None:
    with running(bare_line) as process:
        children = psutil.Process(process.pid).children()
        process.kill()
    assert len(children) == 3
    assert psutil.wait_procs(children, timeout=20)[1] == []
