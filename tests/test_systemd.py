"""A line as systemd units, read back by systemd itself where it is."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec import structs
from typer.testing import CliRunner

from broker.line import CameraEntry, Endpoints, Limits, Line, Model, Recorder, Route, Station, to_toml
from ops import plan, systemd
from ops.__main__ import app
from ops.supervisor import Stage
from workers.store import default_store
from workers.worker import LOADING

LINE = Line(
    name="line-1",
    stations={"press": Station()},
    cameras={
        "top": CameraEntry(station="press", source="synthetic:", deadline=2.0),
        "far": CameraEntry(station="press"),
    },
    models={"dents": Model(file="dents.onnx", workers=2), "elsewhere": Model()},
    routes={"top": Route(models=["dents"]), "far": Route(models=["elsewhere"])},
    limits=Limits(max_frame=1 << 20, queue_bytes=100 << 20),
    recorder=Recorder(memory=64),
)
NAMES = ["join", "broker", "recorder", "worker-dents-1", "worker-dents-2", "camera-top"]


def made(path: Path, user: str = "") -> dict[str, str]:
    return systemd.units(LINE, path, plan.specs(LINE, path), user=user)


def parsed(text: str) -> configparser.RawConfigParser:
    """A unit without repeated keys."""
    reader = configparser.RawConfigParser(strict=False)
    reader.optionxform = str  # type: ignore[assignment,method-assign]
    reader.read_string(text)
    return reader


def test_a_service_for_each_process_of_up(tmp_path: Path) -> None:
    files = made(tmp_path / "line.toml")
    assert list(files) == ["gongwei-line-1.target", *(f"gongwei-line-1-{name}.service" for name in NAMES)]
    for name in files:
        assert name == "gongwei-line-1.target" or f"Wants={name}\n" in files["gongwei-line-1.target"]


def test_the_commands_are_those_of_up_also_from_a_folder_with_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / 'a "line" of 100 % $HOME' / "line.toml"
    for spec, text in zip(plan.specs(LINE, path), list(made(path).values())[1:], strict=True):
        command = parsed(text)["Service"]["ExecStart"].replace("%%", "%").replace("$$", "$")
        assert shlex.split(command) == list(spec.argv)


def test_memory_is_limited_where_strangers_can_connect(tmp_path: Path) -> None:
    files = made(tmp_path / "line.toml")
    limits = {name: parsed(files[f"gongwei-line-1-{name}.service"])["Service"].get("MemoryMax") for name in NAMES}
    assert limits["broker"] == str((100 << 20) + 2 * 2 * (1 << 20) + (512 << 20))
    assert parsed(files["gongwei-line-1-broker.service"])["Service"]["MemorySwapMax"] == "0"
    assert limits["recorder"] == str((64 << 20) + (512 << 20))
    assert limits["join"] == str(1 << 30)
    assert limits["worker-dents-1"] is None and limits["camera-top"] is None
    assert systemd.memory(LINE, Stage.WORKER) is None


def test_ends_in_the_order_of_up_and_starts_again_as_up_does(tmp_path: Path) -> None:
    files = {name: parsed(text) for name, text in list(made(tmp_path / "line.toml", "crew").items())[1:]}
    camera, broker = files["gongwei-line-1-camera-top.service"], files["gongwei-line-1-broker.service"]
    assert "gongwei-line-1-worker-dents-2.service" in camera["Unit"]["After"]
    assert "gongwei-line-1-join.service" in broker["Unit"]["After"]
    assert (camera["Service"]["Restart"], broker["Service"]["Restart"]) == ("on-failure", "always")
    assert camera["Service"]["TimeoutStopSec"] == "12"  # deadline, flush, and what is left to systemd
    assert {unit["Service"]["User"] for unit in files.values()} == {"crew"}
    assert {unit["Service"]["ReadWritePaths"] for unit in files.values()} == {str(tmp_path)}, "the ledger lies there"


def test_a_loop_that_stands_still_is_started_again(tmp_path: Path) -> None:
    files = {name: parsed(text)["Service"] for name, text in list(made(tmp_path / "line.toml").items())[1:]}
    for service in files.values():
        assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    watched = [files[f"gongwei-line-1-{name}.service"]["WatchdogSec"] for name in NAMES]
    assert watched == ["60", "10", "30", "30", "30", "30"]
    join, worker = files["gongwei-line-1-join.service"], files["gongwei-line-1-worker-dents-1.service"]
    assert join["TimeoutStartSec"] == "infinity", "an older ledger may take long to be taken over"
    assert float(worker["TimeoutStartSec"]) == LOADING


def test_what_the_watchdog_ends_says_where_it_was(tmp_path: Path) -> None:
    for text in list(made(tmp_path / "line.toml").values())[1:]:
        assert "Environment=PYTHONFAULTHANDLER=1\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "100 % of it" / "line.toml"
    path.parent.mkdir()
    path.write_text(to_toml(LINE), encoding="utf-8")
    result = CliRunner().invoke(app, ["units", str(path), "--out", str(tmp_path / "units"), "--user", "root"])
    assert (result.exit_code, "wrote 7 units" in result.output) == (0, True)
    assert "gongwei-line-1.target starts and stops them all" in result.output
    files = sorted(map(str, (tmp_path / "units").iterdir()))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, timeout=60
    )
    newer = ("RestartSteps", "RestartMaxDelaySec")  # of systemd 254; an older one says that it ignores them
    complaints = [line for line in verified.stderr.splitlines() if "gongwei-" in line]
    ours = [
        line
        for line in complaints
        if not any(f"Unknown key name '{key}'" in line or f"Unknown key '{key}'" in line for key in newer)
    ]
    assert (ours, len(files)) == ([], 7)


def unnamed(path: Path) -> Path:
    path.write_text(to_toml(structs.replace(LINE, name=None)), encoding="utf-8")
    return path


def units(path: Path, out: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["units", str(path), "--out", str(out)])
    return result.exit_code, result.output


def test_two_lines_without_a_name_have_units_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "units"
    for name in ("line.toml", "Line 2.toml"):
        assert units(unnamed(tmp_path / name), out)[0] == 0
    targets = {"gongwei-line.target", "gongwei-line-2.target"}
    assert {path.name for path in out.glob("*.target")} == targets and len(list(out.iterdir())) == 14
    assert units(unnamed(tmp_path / "线.toml"), out) == (
        2, f'{tmp_path / "线.toml"}: no name of units can be made of the file\'s; write name = "NAME" at its top\n'
    )  # fmt: skip


def test_models_by_name_are_those_of_who_wrote_the_units(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    models = {"dents": Model(file="demo-det"), "elsewhere": Model(file="no-such-model")}
    path.write_text(to_toml(structs.replace(LINE, models=models)), encoding="utf-8")
    code, said = units(path, tmp_path / "units")
    assert code == 0 and "warning: " in said and "models.elsewhere.file: no file" in said
    assert "models.dents" not in said
    for model in models:
        service = (tmp_path / "units" / f"gongwei-line-1-worker-{model}-1.service").read_text(encoding="utf-8")
        assert f"--store {default_store().absolute()}" in service.replace('"', "")


@pytest.mark.parametrize("older", [False, True])
def test_units_of_another_line_file_are_not_written_over(older: bool, tmp_path: Path) -> None:
    out, mine, other = tmp_path / "units", tmp_path / "100 % $1" / "line.toml", tmp_path / "b" / "line.toml"
    for path in (mine, other):
        path.parent.mkdir()
    assert units(unnamed(mine), out)[0] == 0
    before = {path.name: path.read_text() for path in out.iterdir()}
    if older:  # as they were written without SourcePath
        before = {name: re.sub("SourcePath=.*\n", "", text) for name, text in before.items()}
        for name, text in before.items():
            (out / name).write_text(text)
    code, said = units(unnamed(other), out)
    assert (code, "nothing was written" in said) == (2, True)
    assert (str(mine) in said) == (not older)
    assert {path.name: path.read_text() for path in out.iterdir()} == before
    assert units(mine, out)[0] == 0, "its own are"


def test_a_line_open_to_strangers_needs_a_word(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    line = Line(
        stations=LINE.stations, cameras=LINE.cameras, models=LINE.models, routes=LINE.routes,
        endpoints=Endpoints(frontend="tcp://0.0.0.0:7001"),
    )  # fmt: skip
    path.write_text(to_toml(line), encoding="utf-8")
    assert CliRunner().invoke(app, ["units", str(path)]).exit_code == 2
    shown = CliRunner().invoke(app, ["units", str(path), "--insecure"])
    assert shown.exit_code == 0
    assert "--insecure" in shown.output and "# gongwei-line-broker.service" in shown.output
