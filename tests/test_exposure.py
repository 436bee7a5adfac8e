"""`gongwei doctor --line` about keys: who is let in, which secret files are here, who else can read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker import keys
from broker.line import CameraEntry, Endpoints, KeyEntry, Line, Model, Role, Route, Security, Station
from ops import exposure
from ops.doctor import Check

ROLES: tuple[Role, ...] = ("broker", "join", "recorder", "worker", "consumer")
posix = pytest.mark.skipif(os.name != "posix", reason="only there have files a mode")


def line(security: Security | None = None, frontend: str = "tcp://127.0.0.1:7001") -> Line:
    return Line(
        stations={"press": Station()},
        cameras={"top": CameraEntry(station="press")},
        models={"dents": Model(file="dents.onnx")},
        routes={"top": Route(models=["dents"])},
        endpoints=Endpoints(frontend=frontend),
        security=security,
    )


@pytest.fixture
def secured(tmp_path: Path) -> Line:
    """A line with a key for each role, all secret halves here."""
    listed: dict[str, KeyEntry] = {}
    for role in ROLES:
        listed[role] = KeyEntry(role=role, public=keys.create(tmp_path / "keys", role).public)
    return line(Security(keys=listed))


def found(described: Line, folder: Path) -> dict[str, Check]:
    checks = list(exposure.checks(described, folder / "line.toml"))
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.state == "ok" or check.advice for check in checks)
    return {check.name: check for check in checks}


def states(described: Line, folder: Path) -> dict[str, str]:
    return {name: check.state for name, check in found(described, folder).items()}


def test_a_line_of_this_machine_alone_needs_no_keys(tmp_path: Path) -> None:
    assert states(line(), tmp_path) == {"exposure": "ok", "keys": "ok"}


def test_a_line_that_strangers_reach_fails(tmp_path: Path) -> None:
    checks = found(line(frontend="tcp://0.0.0.0:7001"), tmp_path)
    assert checks["exposure"].state == "failed"
    assert "frontend tcp://0.0.0.0:7001" in checks["exposure"].found and "CURVE" in checks["exposure"].found
    assert "gongwei keys line" in checks["exposure"].advice


def test_a_line_with_keys_may_be_reached(secured: Line, tmp_path: Path) -> None:
    open_line = line(secured.security, frontend="tcp://*:7001")
    assert states(open_line, tmp_path) == {"exposure": "ok", "keys": "ok", "key files": "ok"}
    assert "frontend tcp://*:7001" in found(open_line, tmp_path)["exposure"].found


def test_a_secret_key_that_is_not_here_fails(secured: Line, tmp_path: Path) -> None:
    (tmp_path / "keys" / "worker.key_secret").unlink()
    check = found(secured, tmp_path)["keys"]
    assert check.state == "failed" and "no secret key for worker" in check.found


@posix
def test_a_secret_file_that_others_can_read_is_named(secured: Line, tmp_path: Path) -> None:
    (tmp_path / "keys" / "join.key_secret").chmod(0o640)
    check = found(secured, tmp_path)["key files"]
    assert check.state == "warning"
    assert "join.key_secret (mode 0640)" in check.found and "broker.key_secret" not in check.found
    assert "chmod 600" in check.advice


def test_a_key_that_is_not_listed_lets_nobody_in(secured: Line, tmp_path: Path) -> None:
    keys.create(tmp_path / "keys", "desk")
    for half in ("consumer.key", "consumer.key_secret"):
        (tmp_path / "keys" / half).unlink()
    keys.create(tmp_path / "keys", "consumer")
    (tmp_path / "keys" / "torn.key_secret").write_text("metadata")
    checks = found(secured, tmp_path)
    assert "does not list it" in checks["key desk"].found and "[security.keys.desk]" in checks["key desk"].advice
    assert "another public key" in checks["key consumer"].found
    assert "cannot be read as a certificate" in checks["key torn"].found
    assert "key broker" not in checks
