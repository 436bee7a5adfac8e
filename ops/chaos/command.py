"""The command `gongwei chaos`."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ops.chaos.schedule import Fault, Kind
    from ops.chaos.settings import Settings

_UNITS = {"k": 1_000, "m": 1_000_000}


def chaos(
    seconds: Annotated[float, typer.Option(min=1.0, help="Seconds in which faults strike.")] = 60.0,
    seed: Annotated[int, typer.Option(help="What strikes whom and when follows from it, and from the options.")] = 1,
    faults: Annotated[
        str,
        typer.Option(
            metavar="KINDS", help="KIND or KIND:COUNT, by commas; kill, stop, restart, net: all such kinds; all."
        ),
    ] = "all",
    each: Annotated[
        str | None, typer.Option(metavar="KIND", help="Instead: this kind alone, one after another, undisturbed.")
    ] = None,
    times: Annotated[int, typer.Option(min=1, help="How often, with --each.")] = 20,
    lasts: Annotated[
        float | None,
        typer.Option(min=0.1, max=300.0, help="Seconds that each lasts, with --each; without: as its kind does."),
    ] = None,
    cameras: Annotated[int, typer.Option(min=1, max=16, help="Camera processes.")] = 2,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Worker processes of each of the two models.")] = 3,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames/s of each camera.")] = 25.0,
    size: Annotated[str, typer.Option(help="Bytes of a frame; k and m are thousands and millions.")] = "30k",
    delay: Annotated[float, typer.Option(min=0.0, max=0.4, help="Seconds of one call of a model.")] = 0.005,
    deadline: Annotated[float, typer.Option(min=1.0, help="Seconds from capture to answer.")] = 30.0,
    retain: Annotated[
        float, typer.Option(min=0.0, help="Seconds that the ledger keeps a frame; more than the deadline. 0: for ever.")
    ] = 0.0,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep line file, ledger, diaries and logs in this empty folder.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say each fault as it strikes.")] = False,
) -> None:
    """Strike a whole line here with faults, and hold what was promised against what came of it.

    Cameras, broker, join, workers of two models and a consumer run as processes; they are killed, stopped, restarted,
    fed poison pictures, their disk filled, their network cut or made bad, their clocks set. All is real but the
    workers' engine, which obeys the pictures. Exit code 1 if a frame that a camera was told is accepted was lost or
    came twice, if a status is not true, or if a process ended for no reason of the run's; 2 for wrong options. What
    this machine cannot do is skipped, and said.

    Examples:

      gongwei chaos

      gongwei chaos --seconds 300 --seed 7 --size 300k --report chaos.json

      gongwei chaos --faults kill,poison:20 --verbose

      gongwei chaos --each broker-kill --times 30

      gongwei chaos --deadline 10 --retain 25

      gongwei chaos --each net-cut --lasts 30 --times 3 --deadline 60
    """
    from ops.chaos.settings import Settings

    if 0 < retain <= deadline:
        raise typer.BadParameter(f"--retain {retain:g}: at its deadline a frame is {deadline:g} s old; keep it longer")
    settings = Settings(
        seed=seed,
        seconds=seconds,
        kinds={} if each else _kinds(faults),
        each=_kind(each) if each else None,
        times=times,
        lasts=lasts,
        cameras=cameras,
        workers=workers,
        rate=rate,
        size=_size(size),
        delay=delay,
        deadline=deadline,
        retain=retain,
    )
    _sweep()
    with _folder(keep) as folder:
        raise typer.Exit(_run(settings, folder, report, verbose))


def _sweep() -> None:
    """Runs that were killed leave things behind."""
    from ops.chaos.remains import sweep

    for what in sweep():
        typer.echo(f"of a run that was killed: {what} is taken away", err=True)


def _run(settings: Settings, folder: Path, report: Path | None, verbose: bool) -> int:
    from rich.console import Console

    from ops.chaos.report import show
    from ops.chaos.run import Run
    from ops.chaos.settings import ChaosError

    console, aside = Console(), Console(stderr=True)

    def tell(fault: Fault) -> None:
        if verbose:
            aside.print(f"{fault.at:8.3f} {fault.kind} {fault.victim} {fault.model}".rstrip(), highlight=False)

    try:
        with _unwound():
            done = Run(settings, folder, tell).run()
    except ChaosError as error:
        aside.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        aside.print("ended before its time: all processes, mounts and namespaces of the run are gone")
        return 1
    show(done, console)
    if report is not None:
        done.write(report)
    return 0 if done.passed else 1


@contextlib.contextmanager
def _unwound() -> Iterator[None]:
    """Whatever an operator ends the run with, what it made goes with it: disks and networks too."""
    from ops.fleet import signals

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        with signals(end):
            yield
    else:
        yield


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where the run's files lie; only the user's own folder outlives it."""
    from ops.chaos.remains import FOLDER

    if keep is None:
        prefix = f"{FOLDER}{os.getpid()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise typer.BadParameter(f"--keep {keep}: the folder is not empty")
    yield keep


def _kinds(text: str) -> Mapping[Kind, int | None]:
    """Of `kill,poison:20`: kind -> count, None where none is said."""
    from ops.chaos.schedule import RATES

    kinds: dict[Kind, int | None] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, _, number = word.partition(":")
        if number and not number.isdigit():
            raise typer.BadParameter(f"--faults {word}: KIND:COUNT, as in poison:20")
        named = [
            kind
            for kind in RATES
            if name == "all" or kind.value.startswith(f"{name}-") or kind.value.endswith(f"-{name}")
        ]
        for kind in named or [_kind(name)]:
            kinds[kind] = int(number) if number else None
    return kinds


def _kind(name: str) -> Kind:
    from ops.chaos.schedule import Kind

    try:
        return Kind(name)
    except ValueError:
        raise typer.BadParameter(f"{name!r} is no fault: use {', '.join(Kind)}") from None


def _size(text: str) -> int:
    number, factor = text.strip().lower(), 1
    if number and number[-1] in _UNITS:
        number, factor = number[:-1], _UNITS[number[-1]]
    if not number.isdigit() or not 200 <= int(number) * factor <= 30_000_000:
        raise typer.BadParameter(f"--size {text}: 200 to 30m bytes, as in 300k")
    return int(number) * factor
