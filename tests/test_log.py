"""Log lines: where they go, what every one carries, and that a peer's bytes cannot paint on a terminal."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from broker import log


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NO_COLOR", "GONGWEI_LOG"):
        monkeypatch.delenv(name, raising=False)
    yield
    structlog.reset_defaults()


def test_goes_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(process="broker")
    log.get("broker.server").info("camera joined", camera="cam1")
    out, err = capsys.readouterr()
    assert out == ""
    for part in ("info", "camera joined", "broker.server", "camera=cam1", "process=broker"):
        assert part in err


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_json_lines(how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "environment":
        monkeypatch.setenv("GONGWEI_LOG", "json")
    log.configure(json=how == "argument", process="worker a1")
    logger = log.get("workers.worker").bind(session="5e55")
    logger.warning("session lost", bytes=b"\xff", thing=object)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], first["level"], first["process"]) == ("session lost", "warning", "worker a1")
    assert (first["session"], first["logger_name"]) == ("5e55", "workers.worker")
    assert first["timestamp"].endswith("Z")
    assert "ValueError: two\nlines" in second["exception"]


def test_every_thread_names_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=True, process="join")
    thread = threading.Thread(target=lambda: log.get("broker.join").info("hello"))
    thread.start()
    thread.join()
    assert json.loads(capsys.readouterr().err)["process"] == "join"


def test_without_a_name_the_process_id_stands_in(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=True)
    log.get("x").info("hello")
    assert json.loads(capsys.readouterr().err)["process"].startswith("pid ")


def test_level(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(level="warning")
    log.get("x").info("unseen")
    log.get("x").warning("seen")
    err = capsys.readouterr().err
    assert "unseen" not in err
    assert "seen" in err
    with pytest.raises(ValueError, match="'loud' is unknown: use one of debug"):
        log.configure(level="loud")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_on_a_terminal_unless_no_color(no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    log.configure()
    log.get("x").info("hello")
    assert ("\x1b[" in terminal.getvalue()) is coloured


def test_no_colour_into_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    log.get("x").info("hello")
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("json_lines", [True, False])
def test_escape_sequences_of_a_peer_are_shown_not_obeyed(json_lines: bool, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=json_lines)
    log.get("x").info("rejected\n", detail="\x1b[2Jgone\nforged line", inside=["\x1b[2J"])
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_a_process_without_stderr_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    log.configure()
    log.get("x").error("nobody reads this")
