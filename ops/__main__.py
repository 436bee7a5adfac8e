"""The `gongwei` command: run a whole line, show one, check a machine, measure, and strike a line with faults."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from broker.keyring import BrokerKey, KeyOption, Keyring
from ops.bench import app as bench
from ops.chaos.command import chaos
from ops.keys import app as keys
from ops.units import units
from ops.usage import load, usage

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(bench, name="bench")
app.command()(chaos)
app.command()(units)
app.add_typer(keys, name="keys")


def _version(asked: bool) -> None:
    """Print the installed version and end, if it was asked for."""
    if asked:
        from ops.doctor import DISTRIBUTION

        try:
            typer.echo(f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}")
        except metadata.PackageNotFoundError:
            typer.echo(f"{DISTRIBUTION} is not installed: it has no version")
        raise typer.Exit()


@app.callback()
def gongwei(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What holds before any command."""


LineFile = Annotated[Path, typer.Argument(metavar="LINE.toml", help="The line file.")]


@app.command()
def up(
    line: LineFile,
    json: Annotated[bool, typer.Option("--json", help="Log JSON lines; no table.")] = False,
    table: Annotated[bool, typer.Option("--table/--no-table", help="Show the live table (or status lines).")] = True,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines connect although nobody is asked for a key.")
    ] = False,
) -> None:
    """Run all processes of a line on this machine, start again what dies, and end in order at Ctrl-C.

    Runs join, broker, recorder, the workers of every model that has a file, and every camera that has a source.
    Ctrl-C ends the cameras first, so that what is in flight settles; a second one ends everything at once. The log and
    the table go to standard error. Exit code 1 if an endpoint is taken or a process had to be killed, 2 for a line file
    that cannot be used, whose keys are not here, or that lets other machines in without keys (docs/security.md).

    Examples:

      gongwei up line.toml

      gongwei up line.toml --json 2> line.log
    """
    from ops import inputs, ports
    from ops import up as command

    described = load(line)
    if problems := [*inputs.missing(described, line), *inputs.unsafe(described, line, insecure=insecure)]:
        raise usage("\n".join(problems))
    if checks := ports.unusable(described):
        typer.echo(ports.refusal(checks, line), err=True)
        raise typer.Exit(1)
    raise typer.Exit(command.run(described, line, json=json, live=table, insecure=insecure))


@app.command("rolling-restart")
def rolling_restart(
    line: LineFile,
    model: Annotated[list[str] | None, typer.Option("--model", help="Only workers of this model; repeat.")] = None,
    stand_in: Annotated[
        bool,
        typer.Option("--stand-in/--no-stand-in", help="A worker more of each model meanwhile, if memory allows."),
    ] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each step of each worker.")] = 60.0,
    control: Annotated[str, typer.Option(help="The broker's control endpoint; default: the line file's.")] = "",
    key: KeyOption = None,
    broker_key: BrokerKey = "",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list of the workers at the end.")] = False,
) -> None:
    """Start the workers of a running line again, one after another, while frames flow; none is lost or run twice.

    Each worker finishes what it has and ends; its supervisor (gongwei up, systemd) starts it again; then the next one.
    Meanwhile a stand-in of each of its models runs here. After a reload that changed a model's file, this brings the
    new version in. Exit code 1 when a worker does not come back or a stand-in does not start, 2 for a line file that
    cannot be used.

    Examples:

      gongwei rolling-restart line.toml

      broker reload line.toml && gongwei rolling-restart line.toml --model surface
    """
    from json import dumps

    from broker.keys import KeysError
    from broker.operator import Operator, Unanswered
    from ops.rolling import Rolling, RollingError
    from ops.stand_in import StandInError

    described = load(line)
    try:
        credentials = Keyring(described, line, key).credentials("operator", "broker", broker_key)
        with Operator(control or described.endpoints.control, credentials=credentials) as operator:
            rolling = Rolling(operator, described, line, timeout=timeout, say=lambda text: typer.echo(text, err=True))
            done = rolling.run(model or [], stand_in=stand_in)
    except KeysError as error:
        raise usage(str(error)) from None
    except (RollingError, StandInError, Unanswered) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(
        dumps([one._asdict() for one in done]) if json else f"restarted: {', '.join(one.worker for one in done)}"
    )


@app.command()
def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="A model that sees every frame, as for `workers start`, or FILE.onnx; repeat. None: those that ship."
            " tiny: built in.",
        ),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option("--camera", metavar="SOURCE", help="Video, GIF, folder or synthetic:; repeat for more cameras."),
    ] = None,
    frames: Annotated[int, typer.Option(min=0, help="Frames of each camera; 0: until Ctrl-C.")] = 100,
    rate: Annotated[float, typer.Option(min=0.0, help="Frames/s of each camera; 0: as fast as credit allows.")] = 0.0,
    cameras: Annotated[int, typer.Option(min=1, max=64, help="Cameras, where --camera is not given.")] = 2,
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds from capture to answer.")] = 5.0,
    ng: Annotated[
        list[str] | None, typer.Option("--ng", metavar="CLASS", help="A class that makes a frame NG.")
    ] = None,
    save: Annotated[
        Path, typer.Option(metavar="DIR", help="Annotated pictures go into a folder in it, one a run.")
    ] = Path("demo-output"),
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep line file, ledger and pictures, and say where.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the processes' whole logs.")] = False,
) -> None:
    """Run a whole line here, end to end: cameras, broker, workers, join, recorder and a consumer, over loopback tcp.

    At the end, what the cameras were told, what the ledger holds and what the consumer received are held against each
    other. Exit code 1 if a frame was lost or came twice, if none was joined, or if no annotated picture or no report
    could be written. Synthetic cameras show parts, textures and lamps that no training has seen; with the models that
    ship, verdicts are compared with the parts' known defects.

    Examples:

      gongwei demo

      gongwei demo --model tiny

      gongwei demo --model yolov5n.onnx --camera belt.mp4 --frames 200 --report report.json

      gongwei demo --model yolov5n.onnx --model defects --cameras 4 --deadline 0.5
    """
    from ops import demo as command
    from ops.demo_line import NO_MODEL, DemoError, Settings, shipped_models

    models = model or shipped_models()
    if not models:
        raise usage(NO_MODEL)
    settings = Settings(
        models=models,
        sources=camera or ["synthetic:"] * cameras,
        frames=frames,
        rate=rate,
        deadline=deadline,
        ng=ng or [],
        save=save,
        report=report,
        keep=keep,
        verbose=verbose,
    )
    try:
        raise typer.Exit(command.run(settings))
    except DemoError as error:
        raise usage(str(error)) from None


@app.command()
def doctor(
    line: Annotated[
        Path | None, typer.Option("--line", metavar="LINE.toml", help="Check what this line needs, too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """Check this machine: Python and libraries, GPU, clocks, memory, and with --line its ports, files, keys and disk.

    Exit code 1 if a check failed; warnings do not count.

    Examples:

      gongwei doctor

      gongwei doctor --line line.toml --json
    """
    from rich.console import Console

    from ops import demands, machine
    from ops import doctor as command

    checks = [*command.software(), *machine.machine()]
    if line is not None:
        checks += demands.for_line(load(line), line)
    if json:
        typer.echo(command.to_json(checks))
    else:
        Console().print(command.table(checks))
    raise typer.Exit(1 if command.failed(checks) else 0)


def main() -> None:
    """Entry of the console script."""
    app(prog_name="gongwei")


if __name__ == "__main__":
    main()
