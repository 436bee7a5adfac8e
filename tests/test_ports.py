"""The addresses that a line binds: which of them are looked at, and by whom they are taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from broker.line import CameraEntry, Endpoints, Line, Model, Route, Station
from ops import ports
from ops.demo_line import endpoints, free_ports
from ops.doctor import Check

needs_ipc = pytest.mark.skipif(
    not (zmq.has("ipc") and hasattr(socket, "AF_UNIX")), reason="no ipc here, or Python cannot look at it"
)


def line(ends: Endpoints) -> Line:
    return Line(
        stations={"press": Station()},
        cameras={"top": CameraEntry(station="press")},
        models={"elsewhere": Model(workers=2), "dents": Model(file="dents.onnx")},
        routes={"top": Route(models=["dents"])},
        endpoints=ends,
    )


@pytest.fixture
def free() -> Line:
    return line(endpoints(free_ports(50)))


@pytest.fixture
def taken(request: pytest.FixtureRequest, free: Line) -> Iterator[int]:
    """The port that the test's parameter finds in the line: somebody listens on it."""
    port: int = request.param(free.endpoints)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield port


def test_a_line_whose_addresses_are_free_may_start(free: Line) -> None:
    assert ports.unusable(free) == []
    assert [check.state for check in ports.checks(free)] == ["ok"]


@pytest.mark.parametrize("taken", [lambda ends: ends.metrics + 5], indirect=True)
def test_the_metrics_port_of_a_worker_that_runs_here_is_needed(taken: int, free: Line) -> None:
    (check,) = ports.unusable(free)
    assert check.name == f"metrics (worker/dents-1) port {taken}"
    assert "is this line running already?" in ports.refusal([check], Path("line.toml"))


@pytest.mark.parametrize("taken", [lambda ends: ends.metrics + 4], indirect=True)
def test_the_metrics_port_of_a_worker_elsewhere_is_not(taken: int, free: Line) -> None:
    assert ports.unusable(free) == []


@pytest.mark.parametrize("taken", [lambda ends: ends.sessions[0]], indirect=True)
def test_a_session_port_that_is_taken_is_told_and_keeps_no_line_from_starting(taken: int, free: Line) -> None:
    assert ports.unusable(free) == []
    assert [(check.name, check.state) for check in ports.checks(free)] == [(f"session port {taken}", "failed")]


def test_session_ports_of_which_the_same_is_to_be_said_are_one_check() -> None:
    found = [ports.port_check("session", "192.0.2.1", port) for port in (7100, 7101, 7102, 7105)]
    (check,) = ports.alike([check for check in found if check is not None])
    assert check.name == "session ports 7100-7102, 7105"
    assert "no address of this machine" in check.found


def test_a_line_whose_broker_is_elsewhere_does_not_run_here(free: Line) -> None:
    found = [Check(name="frontend port 1", state="failed", found="taken by x", advice=ports._TAKEN)]
    assert ports.running(found, free) == []


def test_what_is_to_be_done_is_said_once_for_all_addresses() -> None:
    found = [ports.port_check(name, "192.0.2.1", 7001) for name in ("frontend", "backend")]
    text = ports.refusal([check for check in found if check is not None], Path("line.toml"))
    assert [line.partition(":")[0] for line in text.splitlines()] == ["line.toml", "line.toml", "nothing was started"]


@needs_ipc
def test_an_ipc_endpoint_that_is_in_use_is_taken_and_the_file_of_one_that_was_is_not(tmp_path: Path) -> None:
    path = tmp_path / "live"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        check = ports.endpoint_check("live", f"ipc://{path}")
    assert check is not None
    assert (check.name, check.state, "taken by" in check.found) == (f"live ipc://{path}", "failed", True)
    assert path.exists()
    assert ports.endpoint_check("live", f"ipc://{path}") is None


def test_an_ipc_endpoint_needs_its_folder(tmp_path: Path) -> None:
    check = ports.endpoint_check("live", f"ipc://{tmp_path}/none/live")
    assert check is not None
    assert "no folder" in check.found
    assert ports.endpoint_check("live", f"ipc://{tmp_path}/live") is None
    assert ports.endpoint_check("live", "inproc://live") is None
