"""The checks of `gongwei doctor`: what they judge, on findings that need no special machine."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from broker import reserve
from broker import retention as kept
from broker.ledger_file import size
from broker.line import CameraEntry, Endpoints, Ledger, Line, Model, Route, Rules, Station
from broker.wire import Key
from ops import demands, doctor, facts, machine, ports, storage
from ops.doctor import Check
from tests.join_world import BOOT, WALL, Bench, Items
from workers import tiny
from workers.zoo.catalogue import find
from workers.zoo.making import Order, make


def line(**changes: object) -> Line:
    settings: dict[str, object] = {"stations": {"a": Station()}, "cameras": {}, "models": {}, "routes": {}} | changes
    return Line(**settings)  # type: ignore[arg-type]


def model_checks(described: Line, folder: Path) -> list[Check]:
    return list(demands.models(described, folder / "line.toml", facts.of_line(described, folder)))


def classifier(path: Path) -> None:
    """A classifier of three classes that says nothing about itself but their names."""
    from onnx import TensorProto, helper

    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 1, 1])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Flatten", ["images"], ["output"])], "c", [images], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": "['good', 'bad', 'other']"})
    path.write_bytes(model.SerializeToString())


def one(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize(
    ("version", "bits", "state"), [((3, 10, 9), 64, "failed"), ((3, 11, 0), 64, "ok"), ((3, 13, 1), 32, "failed")]
)
def test_python(version: tuple[int, ...], bits: int, state: str) -> None:
    assert doctor.python(version, bits).state == state


def test_two_opencv_packages_at_once_fail_and_name_the_cure() -> None:
    installed = {"opencv-python": "4.12.0", "opencv-python-headless": "4.10.0", "numpy": "2.0"}
    check = doctor.exclusive("opencv", "cv2", doctor.OPENCV, installed)
    assert check.state == "failed"
    assert "pip uninstall opencv-python opencv-python-headless" in check.advice


def test_one_opencv_package_is_right_and_none_is_not() -> None:
    assert doctor.exclusive("opencv", "cv2", doctor.OPENCV, {"opencv-python-headless": "5.0"}).state == "ok"
    assert doctor.exclusive("opencv", "cv2", doctor.OPENCV, {}).state == "failed"


def test_onnxruntime_for_cpu_and_gpu_at_once_fail() -> None:
    installed = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"}
    assert doctor.exclusive("onnxruntime", "onnxruntime", doctor.ONNXRUNTIME, installed).state == "failed"


def test_a_foreign_package_that_owns_our_name_fails() -> None:
    owned = {"broker": ["broker", "gongwei"], "workers": ["gongwei"], "clients": ["gongwei"], "ops": ["gongwei"]}
    folders = dict.fromkeys(doctor.OURS, Path("site") / "broker")
    check = doctor.packages(owned, folders)
    assert check.state == "failed"
    assert check.found == "broker installed files into broker"
    assert "pip uninstall broker" in check.advice


def test_packages_from_two_places_fail() -> None:
    folders = {"broker": Path("here") / "broker", "workers": Path("there") / "workers"}
    assert doctor.packages({}, folders).state == "failed"
    assert doctor.packages({}, {"broker": Path("here") / "broker", "workers": None}).state == "failed"


def test_our_own_packages_are_right() -> None:
    assert doctor.packages(doctor.owners(), doctor.package_folders()).state == "ok"


@pytest.mark.parametrize(
    ("limit", "ffmpeg", "state"),
    [("limited", "ffmpeg", "ok"), ("unlimited", "ffmpeg", "failed"), ("limited", "no-ffmpeg", "warning")],
)
def test_what_the_opencv_probe_says(limit: str, ffmpeg: str, state: str) -> None:
    assert doctor.judge_opencv("5.0.0", limit, ffmpeg).state == state


def test_this_machine_is_looked_at_whole() -> None:
    """Every check gives an answer here, whatever it is, and each that is not ok says what to do."""
    checks = [*doctor.software(), *machine.machine()]
    assert len({check.name for check in checks}) == len(checks)
    assert [check.name for check in checks if check.state != "ok" and not check.advice] == []
    assert one(checks, "pyzmq").state == "ok"
    assert one(checks, "cv2").state != "failed"


def test_a_port_that_is_taken_fails_and_names_the_program() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        checks = list(ports.checks(line(endpoints=Endpoints(frontend=f"tcp://127.0.0.1:{port}"))))
    check = one(checks, f"frontend port {port}")
    assert check.state == "failed"
    if sys.platform.startswith("linux"):
        assert "pid" in check.found


def test_an_address_of_another_machine_fails() -> None:
    check = ports.port_check("frontend", "192.0.2.1", 7001)  # a documentation address: nobody's
    assert check is not None
    assert (check.state, "no address of this machine" in check.found) == ("failed", True)


def test_free_ports_are_one_line() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control")
    named = {name: f"ipc://{name}" for name in names} | {"live": f"tcp://127.0.0.1:{port}"}
    checks = ports.checks(line(endpoints=Endpoints(**named, metrics=0)))  # type: ignore[arg-type]
    assert [(check.name, check.state) for check in checks] == [("ports", "ok")]


def test_model_files_are_looked_for_beside_the_line_file(tmp_path: Path) -> None:
    tiny.make(tmp_path / "a.onnx")
    models = {"a": Model(file="a.onnx"), "b": Model(file="b.onnx"), "c": Model()}
    checks = model_checks(line(models=models), tmp_path)
    assert [check.state for check in checks] == ["ok", "failed", "ok"]
    assert checks[0].found == "a.onnx: detect, 4 classes"
    assert "models.b.file" in checks[1].advice


def test_a_model_file_that_is_cut_short_fails_with_the_workers_error(tmp_path: Path) -> None:
    tiny.make(tmp_path / "a.onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "a.onnx").read_bytes()[:-500])
    (check,) = model_checks(line(models={"a": Model(file="cut.onnx")}), tmp_path)
    assert check.state == "failed"
    assert "onnxruntime cannot load it" in check.found


def test_a_model_of_random_weights_is_a_warning(tmp_path: Path) -> None:
    model = make(Order(kind=find("mobilenetv2"), size=(32, 32), classes=2))
    (tmp_path / "zoo.onnx").write_bytes(model.SerializeToString())
    (check,) = model_checks(line(models={"zoo": Model(file="zoo.onnx")}), tmp_path)
    assert (check.state, "random weights" in check.found) == ("warning", True)


def test_a_classifier_whose_scaling_is_unknown_fails(tmp_path: Path) -> None:
    classifier(tmp_path / "a.onnx")
    (check,) = model_checks(line(models={"a": Model(file="a.onnx")}), tmp_path)
    assert check.state == "failed"
    assert "--mean" in check.found


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("", "ok"),
        ("synthetic:", "ok"),
        ("synthetic:9x9", "failed"),
        ("rtsp://10.0.0.1/stream", "ok"),
        ("http://10.0.0.1/stream", "ok"),
        ("usb:0", "ok"),
        ("usb:left", "failed"),
        ("parts.mp4", "ok"),
        ("part.mp4", "failed"),
        ("pictures", "ok"),
        ("empty", "failed"),
    ],
)
def test_sources_are_looked_for_as_cameras_do(tmp_path: Path, source: str, state: str) -> None:
    (tmp_path / "parts.mp4").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    cameras = {"top": CameraEntry(station="a", source=source)}
    (check,) = demands.sources(line(cameras=cameras), tmp_path / "line.toml")
    assert (check.name, check.state) == ("camera top", state)
    assert state == "ok" or "cameras.top.source" in check.advice


def test_the_password_of_a_stream_is_not_told(tmp_path: Path) -> None:
    cameras = {"top": CameraEntry(station="a", source="rtsp://ann:secret@10.0.0.1/stream")}
    (check,) = demands.sources(line(cameras=cameras), tmp_path / "line.toml")
    assert "secret" not in check.found


@pytest.mark.parametrize(
    ("ng", "models", "state"),
    [
        ("red", ["lamps"], "ok"),
        ("rad", ["lamps"], "failed"),
        ("rad", ["lamps", "elsewhere"], "warning"),
        ("rad", ["elsewhere"], "ok"),
    ],
)
def test_classes_of_the_rules_are_compared_with_those_of_the_models(ng: str, models: list[str], state: str) -> None:
    described = line(
        stations={"a": Station(rules=Rules(ng=[ng])), "b": Station()},
        cameras={"top": CameraEntry(station="a")},
        models={"lamps": Model(file="lamps.onnx"), "elsewhere": Model()},
        routes={"top": Route(models=models)},
    )
    (check,) = demands.rules(described, {"lamps": facts.Facts(task="detect", names=tiny.NAMES)})
    assert (check.name, check.state) == ("rules of a", state)
    assert state == "ok" or ("stations.a.rules.ng" in check.found and "did you mean red?" in check.found)


def test_the_ledgers_disk_is_timed_without_leaving_anything(tmp_path: Path) -> None:
    checks = demands.for_line(line(ledger=Ledger(path="data/ledger.sqlite")), tmp_path / "line.toml")
    assert "median" in one(checks, "ledger fsync").found
    assert {"exposure", "keys", "retention"} <= {check.name for check in checks}
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_for_ever_is_a_warning(tmp_path: Path) -> None:
    check = storage.retention(Ledger(), tmp_path / "ledger.sqlite", WALL)
    assert (check.state, "for ever" in check.found) == ("warning", True)
    assert "keep_days or keep_gb" in check.advice


@pytest.mark.parametrize(("gb", "state"), [(0.03125, "ok"), (1 << 20, "warning")])
def test_a_limit_that_the_disk_does_not_hold_is_a_warning(tmp_path: Path, gb: float, state: str) -> None:
    check = storage.retention(Ledger(keep_gb=gb), tmp_path / "ledger.sqlite", WALL)
    assert check.state == state and f"{gb:g} GB: the ledger has 0.0 GiB" in check.found


def test_what_days_take_is_told_by_a_ledger_that_has_run_for_a_while(tmp_path: Path) -> None:
    path, items = tmp_path / "ledger.sqlite", Items()
    ledger = Ledger(keep_days=30)
    assert "an hour old" in storage.retention(ledger, path, WALL).found
    key = Key("lone", BOOT, 0)
    bench = Bench(path)
    bench.turn(items.line(), items.expect(items.expectation(key)), items.result(items.outcome(key)))
    bench.close()
    has, day, keep = size(path), 86400.0, kept.keep(30, 0)
    assert storage.grows_by(keep, path, has, WALL + 600) is None
    assert storage.grows_by(keep, path, has, WALL + day) == pytest.approx(29 * has + reserve.SIZE, rel=0.01)
    assert storage.grows_by(keep, path, has, WALL + 31 * day) == reserve.SIZE
    assert storage.grows_by(kept.keep(30, 0.03125), path, has, WALL + 31 * day) == reserve.SIZE
    assert storage.retention(ledger, path, WALL + day).state == "ok"


def test_queues_larger_than_the_memory_are_a_warning() -> None:
    assert machine.memory(1 << 60).state == "warning"


def test_the_report_for_scripts_has_every_field() -> None:
    report = json.loads(doctor.to_json([Check(name="a", state="failed", found="b [c]", advice="d")]))
    assert report == [{"name": "a", "state": "failed", "found": "b [c]", "advice": "d"}]


@pytest.mark.parametrize(("states", "failed"), [(["ok", "warning"], False), (["ok", "failed"], True)])
def test_only_a_failure_fails(states: list[doctor.State], failed: bool) -> None:
    assert doctor.failed(Check(name=state, state=state, found="") for state in states) is failed
