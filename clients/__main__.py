"""The `clients` command: publish a camera's pictures, watch results, replay recorded pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from broker import line as line_file
from broker import log
from broker.line import CameraEntry, Endpoints, Line, LineError
from broker.wire import Policy
from clients.camera import ENDPOINT, Camera
from clients.ending import when_asked_to_end
from clients.errors import CameraError, SourceError
from clients.feed import Feed
from clients.progress import Progress, describe
from clients.sources import SPECS

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

LineOption = Annotated[Path | None, typer.Option("--line", metavar="LINE.toml", help="The line file.")]
BrokerOption = Annotated[str, typer.Option(metavar="ENDPOINT", help=f"The broker's frontend; default {ENDPOINT}.")]
RateOption = Annotated[
    float | None, typer.Option(min=0.0, help="Pictures/s; 0, the default: as fast as credit allows.")
]
PolicyOption = Annotated[str, typer.Option(help="inspect (nothing is lost) or monitor (the newest counts).")]
DeadlineOption = Annotated[
    float | None, typer.Option(help="Seconds from capture in which the answer is due; default 5.")
]
FramesOption = Annotated[int, typer.Option(min=0, help="Pictures to take; 0: all.")]
LoopOption = Annotated[bool, typer.Option("--loop", help="Start files over at their end.")]
RunOption = Annotated[
    str,
    typer.Option(metavar="NAME", help="Number the parts NAME-000000 and on; cameras of a station share their run."),
]
ReportOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write counts and latencies as JSON at the end.")
]
JsonLog = Annotated[bool, typer.Option("--json-log", help="Log JSON lines.")]
LevelOption = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]


def _usage(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(2)


def _load(path: Path | None) -> Line | None:
    try:
        return None if path is None else line_file.load(path)
    except LineError as error:
        raise _usage(str(error)) from None


def _entry(line: Line | None, path: Path | None, name: str) -> CameraEntry:
    """The camera's entry in the line file; defaults without a file. Exits with 2 when the file has no such camera."""
    if line is None:
        return CameraEntry(station="station")
    try:
        return line.cameras[name]
    except KeyError:
        known = ", ".join(line.cameras)
        raise _usage(f"{path}: there is no [cameras.{name}]; it has {known}") from None


@app.command()
def camera(
    name: Annotated[str, typer.Option(help="The camera's name in the line file.")],
    source: Annotated[str, typer.Option(help=f"Where pictures come from: {SPECS}.")] = "",
    broker: BrokerOption = "",
    rate: RateOption = None,
    policy: PolicyOption = "",
    deadline: DeadlineOption = None,
    frames: FramesOption = 0,
    loop: LoopOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Of synthetic parts.")] = 0,
    run: RunOption = "",
    line: LineOption = None,
    report: ReportOption = None,
    json_log: JsonLog = False,
    log_level: LevelOption = "info",
) -> None:
    """Publish pictures as a camera, until the source ends or Ctrl-C.

    --line takes source, rate, policy, deadline and the broker's endpoint
    from the line file; flags go before it. Files wait for credit. Live
    cameras, and synthetic: with a rate, wait for nobody: a picture without
    credit is skipped, counted and reported. At Ctrl-C no more pictures are
    taken, and what is under way settles first; a second one does not wait.

    Exit code 1 if not every frame was settled, 2 for what cannot be
    understood.

    Examples:

      clients camera --name cam1 --source parts.mp4

      clients camera --name cam1 --source rtsp://10.0.0.7/live --policy monitor

      clients camera --name cam1 --source synthetic: --rate 5 --frames 100 --report cam1.json

      clients camera --name cam1 --line line.toml
    """
    from clients.sources import open_source

    log.configure(json=json_log, level=log_level, process=f"camera {name}")
    described = _load(line)
    entry = _entry(described, line, name)
    try:
        opened = open_source(
            source or _beside(line, entry.source), rate=entry.rate if rate is None else rate, loop=loop, seed=seed
        )
    except SourceError as error:
        raise _usage(str(error)) from None
    ready = _camera(name, entry, described, broker, policy, deadline)
    raise typer.Exit(_feed(Feed(ready, opened, frames=frames, run=run), report))


@app.command()
def replay(
    recorded: Annotated[list[Path], typer.Argument(metavar="FOLDER|LEDGER...", help="Recorded pictures, or a ledger.")],
    name: Annotated[str, typer.Option(help="The camera to publish as.")],
    camera: Annotated[str, typer.Option(metavar="NAME", help="Only pictures that this camera took.")] = "",
    pictures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The recorder's folder that belongs to a ledger.")
    ] = None,
    broker: BrokerOption = "",
    rate: RateOption = None,
    policy: PolicyOption = "",
    deadline: DeadlineOption = None,
    frames: FramesOption = 0,
    loop: LoopOption = False,
    run: RunOption = "",
    line: LineOption = None,
    report: ReportOption = None,
    json_log: JsonLog = False,
    log_level: LevelOption = "info",
) -> None:
    """Publish recorded pictures again, to try a new model on old parts.

    They come in the order in which they were taken. A folder is a recorder's
    (<verdict>/<camera>/<boot>-<seq>.jpg, or one verdict of it), or any with
    pictures. With a ledger, its frames come in the order of publication.
    Give the replay a camera and a station of its own, so that its results
    are not counted among the real ones.

    Examples:

      clients replay gongwei-data/pictures/ng --name replay1

      clients replay gongwei-data/ledger.sqlite --name replay1 --camera cam1 --rate 10
    """
    from clients.recorded import recorded as find
    from clients.sources import PictureFiles

    log.configure(json=json_log, level=log_level, process=f"camera {name}")
    described = _load(line)
    entry = _entry(described, line, name)
    try:
        source = PictureFiles(find(recorded, camera, pictures), rate or 0.0, loop)
    except SourceError as error:
        raise _usage(str(error)) from None
    ready = _camera(name, entry, described, broker, policy, deadline)
    raise typer.Exit(_feed(Feed(ready, source, frames=frames, run=run), report))


def _beside(line: Path | None, source: str) -> str:
    """A source of the line file; a path is relative to the folder of the line file."""
    if not source:
        raise _usage(f"give --source, or a line file with the camera's source; a source is {SPECS}")
    path = Path(line.parent if line else "") / source
    return str(path) if path.exists() else source


def _camera(
    name: str, entry: CameraEntry, line: Line | None, broker: str, policy: str, deadline: float | None
) -> Camera:
    chosen = policy or entry.policy
    if chosen not in ("inspect", "monitor"):
        raise _usage(f"policy {chosen!r}: inspect or monitor")
    ends = line.endpoints if line is not None else Endpoints()
    kind: Policy = "monitor" if chosen == "monitor" else "inspect"
    try:
        return Camera(
            name,
            endpoint=broker or ends.frontend,
            policy=kind,
            deadline=entry.deadline if deadline is None else deadline,
        )
    except CameraError as error:
        raise _usage(str(error)) from None


def _feed(feed: Feed, report: Path | None) -> int:
    """Open the camera, feed it to the end, settle, close, report; the exit code."""
    console = Console(stderr=True, highlight=False)
    failure = ""
    when_asked_to_end(feed.stop)
    try:
        feed.camera.open()
        with Progress(lambda: _progress(feed), console=console):
            feed.run()
            feed.settle(feed.camera.deadline + 1.0)
    except (CameraError, SourceError) as error:
        failure = str(error)
    finally:
        feed.camera.close(timeout=0.0)
    outcome = feed.report()
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")
    if failure:
        console.print(failure, markup=False, soft_wrap=True)
    ended = not (failure or outcome["unsettled"] or outcome["rejected"])
    return 0 if ended else 1


def _progress(feed: Feed) -> str:
    return describe(feed.camera.name, feed.camera.stats, time.monotonic() - feed.started_at)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
