"""Publishing from the command line: what flags and line file ask for, progress, report and exit code."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from broker import line as line_file
from broker import notifier
from broker.ending import when_asked_to_end
from broker.keyring import Keyring
from broker.keys import KeysError
from broker.line import CameraEntry, Endpoints, Line, LineError
from broker.wire import Policy
from clients.bookmark import BookmarkError
from clients.camera import Camera
from clients.errors import CameraError, EndpointError, SourceError
from clients.feed import Feed
from clients.progress import Progress, describe
from clients.sources import SPECS
from clients.stats import Stats

_CHECK_BROKER: Final = (
    "Check that the broker runs (broker start, gongwei up), that this is its frontend (--broker, or endpoints.frontend "
    "in the line file), that no firewall is between, and, where keys are asked for, that it lists this camera's (--key)"
)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """What cannot be understood ends the process with the reason and exit code 2."""
    try:
        yield
    except (LineError, SourceError, CameraError, BookmarkError, EndpointError, KeysError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def load(path: Path | None) -> Line | None:
    """The line file, if one was given."""
    with usage_errors():
        return None if path is None else line_file.load(path)


def entry(line: Line | None, path: Path | None, name: str) -> CameraEntry:
    """The camera's entry in the line file; defaults without a file."""
    if line is None:
        return CameraEntry(station="station")
    with usage_errors():
        if name not in line.cameras:
            raise SourceError(f"{path}: there is no [cameras.{name}]; it has {', '.join(line.cameras)}")
        return line.cameras[name]


def beside(line: Path | None, source: str) -> str:
    """A source of the line file; a path is relative to the folder of the line file."""
    if not source:
        raise SourceError(f"give --source, or a line file with the camera's source; a source is {SPECS}")
    path = (line.parent if line is not None else Path()) / source
    return str(path) if path.exists() else source


def camera(
    name: str,
    entry: CameraEntry,
    ring: Keyring,
    broker: str,
    policy: str,
    deadline: float | None,
    broker_key: str = "",
) -> Camera:
    """The camera that flags and line file describe, not open yet; flags go before the file."""
    chosen = policy or entry.policy
    ends = ring.line.endpoints if ring.line is not None else Endpoints()
    with usage_errors():
        if chosen not in ("inspect", "monitor"):
            raise CameraError(f"policy {chosen!r}: inspect or monitor")
        kind: Policy = "monitor" if chosen == "monitor" else "inspect"
        limit = entry.deadline if deadline is None else deadline
        return Camera(
            name,
            endpoint=broker or ends.frontend,
            policy=kind,
            deadline=limit,
            credentials=ring.credentials("camera", "broker", broker_key, camera=name),
            notifier=notifier.from_environment(),
        )


def run(feed: Feed, report: Path | None) -> int:
    """Open the camera, feed it to the end, settle, close, report; the exit code."""
    failure = ""
    when_asked_to_end(feed.stop)
    try:
        feed.camera.open()
        with Progress(lambda: _progress(feed)):
            feed.run()
            feed.camera.notifier.stopping()
            feed.settle(feed.camera.deadline + 1.0)
    except (CameraError, SourceError) as error:
        failure = str(error)
    finally:
        feed.camera.close(timeout=0.0)
    outcome = feed.report()
    failures = [failure or nothing_published(feed), _write(report, outcome) if report is not None else ""]
    for text in filter(None, failures):
        typer.echo(text, err=True)
    return 1 if any(failures) or outcome["unsettled"] or outcome["untold"] or outcome["rejected"] else 0


def nothing_published(feed: Feed) -> str:
    """Why a feed that is over has published nothing at all, and what to check; "" if it has published something."""
    at, seconds = feed.camera.endpoint, time.monotonic() - feed.started_at
    if not feed.camera.reached:
        return f"no broker answered at {at} in {seconds:.1f} s: {_never_sent(feed.camera.stats)}. {_CHECK_BROKER}"
    if feed.taken:
        return ""
    if feed.source.live:
        return f"no picture came from the source in {seconds:.1f} s: check that it is on and its address right"
    return f"the broker at {at} gave no credit in {seconds:.1f} s, so no picture was taken: its log says what it lacks"


def _never_sent(stats: Stats) -> str:
    """Of a camera that no broker has welcomed."""
    count = stats.unsettled + stats.superseded + sum(stats.skipped.values())
    if not count:
        return "no frame was taken, for files wait for credit"
    return f"{count} frame{'s were' if count > 1 else ' was'} never sent"


def _write(report: Path, outcome: dict[str, Any]) -> str:
    """Write the report; why it could not be, or ""."""
    try:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")
    except OSError as error:
        return f"--report {report}: cannot be written: {error.strerror or error}"
    return ""


def _progress(feed: Feed) -> str:
    return describe(feed.camera.name, feed.camera.stats, time.monotonic() - feed.started_at)
