"""The `clients` command: publish a camera's pictures, watch results, replay recorded pictures."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from broker import log
from broker.ending import when_asked_to_end
from broker.keyring import BrokerKey, JoinKey, KeyOption, Keyring
from broker.line import Endpoints
from clients import publish
from clients.feed import Feed
from clients.options import (
    BrokerOption,
    DeadlineOption,
    FramesOption,
    JsonLog,
    LevelOption,
    LineOption,
    LoopOption,
    PolicyOption,
    RateOption,
    RecorderKey,
    ReportOption,
    RunOption,
)
from clients.sources import SPECS

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


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
    key: KeyOption = None,
    broker_key: BrokerKey = "",
    json_log: JsonLog = False,
    log_level: LevelOption = "info",
) -> None:
    """Publish pictures as a camera, until the source ends or Ctrl-C.

    --line takes source, rate, policy, deadline and the broker's endpoint
    from the line file; flags go before it. Files wait for credit. Live
    cameras, and synthetic: with a rate, wait for nobody: a picture without
    credit is skipped, counted and reported. At Ctrl-C no more pictures are
    taken, and what is under way settles first; a second one does not wait.

    Exit code 1 if not every frame was settled or no broker ever answered,
    2 for what cannot be understood.

    Examples:

      clients camera --name cam1 --source parts.mp4

      clients camera --name cam1 --source rtsp://10.0.0.7/live --policy monitor

      clients camera --name cam1 --source synthetic: --rate 5 --frames 100 --report cam1.json

      clients camera --name cam1 --line line.toml
    """
    from clients.sources import open_source

    log.configure(json=json_log, level=log_level, process=f"camera {name}")
    described = publish.load(line)
    entry = publish.entry(described, line, name)
    ready = publish.camera(name, entry, Keyring(described, line, key), broker, policy, deadline, broker_key)
    with publish.usage_errors():
        opened = open_source(
            source or publish.beside(line, entry.source),
            rate=entry.rate if rate is None else rate,
            loop=loop,
            seed=seed,
        )
    raise typer.Exit(publish.run(Feed(ready, opened, frames=frames, run=run), report))


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
    key: KeyOption = None,
    broker_key: BrokerKey = "",
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
    described = publish.load(line)
    entry = publish.entry(described, line, name)
    ready = publish.camera(name, entry, Keyring(described, line, key), broker, policy, deadline, broker_key)
    with publish.usage_errors():
        source = PictureFiles(find(recorded, camera, pictures), rate or 0.0, loop)
    raise typer.Exit(publish.run(Feed(ready, source, frames=frames, run=run), report))


@app.command()
def watch(
    camera: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only frames of this camera; repeat.")
    ] = None,
    station: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only parts of this station; repeat.")
    ] = None,
    since: Annotated[
        int | None, typer.Option(min=0, metavar="SEQ", help="What was published after this ledger number; 0: all.")
    ] = None,
    bookmark: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Go on where this file says, or at --since; note there what was shown."),
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write annotated pictures.")] = None,
    frames: Annotated[int, typer.Option(min=0, help="Frames to take; 0: until Ctrl-C.")] = 0,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="End after so many seconds without a result.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    live: Annotated[str, typer.Option(metavar="ENDPOINT", help="The join's live stream.")] = "",
    catchup: Annotated[str, typer.Option(metavar="ENDPOINT", help="The join's catch-up.")] = "",
    pictures: Annotated[str, typer.Option(metavar="ENDPOINT", help="The recorder's pictures.")] = "",
    line: LineOption = None,
    key: KeyOption = None,
    join_key: JoinKey = "",
    recorder_key: RecorderKey = "",
    json_log: JsonLog = False,
    log_level: LevelOption = "info",
) -> None:
    """Show the joined results of frames and parts as they are published.

    On a terminal the newest are shown in a table; elsewhere each is a line.
    What was published while the connection was broken is caught up with.
    --save writes each picture with its boxes, masks and verdict to
    FOLDER/<verdict>/<camera>-<boot>-<seq>.jpg; a picture that the recorder
    does not have is counted and said at the end.

    A join that does not answer is said on standard error, after 2 s.

    Exit code 1 if no join ever answered, if the time was out before all that
    was asked for had come, or if --save wrote no picture because no recorder
    answered or none could be written.

    Examples:

      clients watch --line line.toml

      clients watch --camera cam1 --save annotated --frames 100

      clients watch --since 0 --timeout 5 --json > results.jsonl

      clients watch --bookmark watch.json --json >> results.jsonl
    """
    from clients.board import Board, JsonLines, Lines
    from clients.bookmark import Bookmark
    from clients.cursor import Position
    from clients.pictures import Pictures
    from clients.results import Results
    from clients.watch import SLICE, Saver, Watch

    log.configure(json=json_log, level=log_level, process="watch")
    described = publish.load(line)
    ends = described.endpoints if described is not None else Endpoints()
    mark = Bookmark(bookmark) if bookmark is not None else None
    with publish.usage_errors():
        stored = mark.load() if mark is not None else None
    begin = None if since is None else Position("", since)
    ring = Keyring(described, line, key)
    with publish.usage_errors():
        to_join = ring.credentials("consumer", "join", join_key)
        wanted = save is not None  # without pictures the recorder's key need not be known
        to_recorder = ring.credentials("consumer", "recorder", recorder_key) if wanted else None
    results = Results(
        live or ends.live,
        catchup=catchup or ends.catchup,
        cameras=camera or (),
        stations=station or (),
        since=stored or begin,
        timeout=SLICE,
        credentials=to_join,
    )
    recorder = Pictures(pictures or ends.pictures, credentials=to_recorder)
    saver = Saver(save, recorder) if save is not None else None
    console = Console(highlight=False)
    view = JsonLines(sys.stdout.buffer) if json else Board(console) if console.is_terminal else Lines(sys.stdout)
    watching = Watch(results, view, saver, frames=frames, timeout=timeout, bookmark=mark)
    when_asked_to_end(watching.stop)
    with publish.usage_errors(), results, recorder, view:
        complete = watching.run()
    if not complete:
        typer.echo(watching.shortfall(), err=True)
    if saver is not None:
        typer.echo(saver.summary(), err=True)
    raise typer.Exit(0 if complete and not (saver is not None and saver.failed) else 1)


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows console cannot show every name of a part or a class
            stream.reconfigure(errors="replace")
    app()


if __name__ == "__main__":
    main()
