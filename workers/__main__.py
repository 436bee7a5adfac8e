"""The `workers` command: run model workers, list and stop them, try a model on pictures, prepare model files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import cv2
import typer

from broker import line as line_file
from broker import log, notifier
from broker.ending import when_asked_to_end
from broker.keyring import BrokerKey, KeyOption, Keyring
from broker.keys import KeysError
from broker.line import Line
from workers import check, heap, importer, listing, operate, removal
from workers.arguments import fail, failed, hints_of, line_of
from workers.errors import UsageError, WorkersError
from workers.flags import (
    ConfidenceOption,
    DeviceOption,
    EngineThreadsOption,
    FitOption,
    Flags,
    IouOption,
    LabelsOption,
    LayoutOption,
    LineOption,
    MeanOption,
    SizeOption,
    StdOption,
    StoreOption,
    TaskOption,
    model_options,
)
from workers.metrics import served
from workers.options import ModelOptions
from workers.precision import command as precision
from workers.worker import Worker, default_name
from workers.zoo import command

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.command("list")(operate.listing)
app.command("stop")(operate.stop)
app.command("check")(check.check)
app.command("import")(importer.bring)
app.command("models")(listing.models)
app.command("remove")(removal.remove)
app.command("zoo")(command.zoo)
app.command("quantise")(precision.quantise)
logger = log.get("workers")

#: Exit code when a model thread had to be left behind.
STUCK = 1


@app.command()
def start(
    model: Annotated[list[str], typer.Option(help="NAME, NAME=FILE.onnx or NAME=fake:delay=0.005; repeat.")],
    line: LineOption = None,
    backend: Annotated[str, typer.Option(help="The broker's backend; default: the line file's.")] = "",
    name: Annotated[str, typer.Option(help="Name of this worker; default: host and process id.")] = "",
    threads: Annotated[int | None, typer.Option(help="Sessions of each model.", min=1, max=64)] = None,
    max_batch: Annotated[int | None, typer.Option(help="Frames in one call at most.", min=1, max=256)] = None,
    max_delay: Annotated[float | None, typer.Option(help="Milliseconds that a frame waits for others.", min=0)] = None,
    engine_threads: EngineThreadsOption = None,
    device: DeviceOption = None,
    confidence: ConfidenceOption = None,
    iou: IouOption = None,
    store: StoreOption = None,
    task: TaskOption = None,
    labels: LabelsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    fit: FitOption = None,
    layout: LayoutOption = None,
    key: KeyOption = None,
    broker_key: BrokerKey = "",
    metrics_port: Annotated[int, typer.Option(help="Prometheus port on loopback; 0: none.", min=0, max=65535)] = 0,
    json_log: Annotated[bool, typer.Option("--json-log", help="Log JSON lines.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Load models, warm them up, and look at the frames that the broker sends.

    Examples:

      workers start --model yolov5n=yolov5n.onnx

      workers start --line line.toml --model yolov5n --threads 2

      workers start --model scratches --model mobilenet --backend tcp://10.0.0.5:7002
    """
    name = name or default_name()
    log.configure(json=json_log, level=log_level, process=f"worker {name}")
    described = line_of(line)
    flags = Flags(
        threads=threads,
        max_batch=max_batch,
        max_delay=None if max_delay is None else max_delay / 1000,
        device=device,
        engine_threads=engine_threads,
        confidence=confidence,
        iou=iou,
        store=store,
        hints=hints_of(task, labels, size, mean, std, fit, layout),
    )
    where = backend or (described.endpoints.backend if described is not None else line_file.Endpoints().backend)
    try:
        credentials = Keyring(described, line, key).credentials("worker", "broker", broker_key)
    except KeysError as error:
        raise fail(str(error), 2) from None
    models = _models(model, flags, described, line)
    try:
        told = notifier.from_environment()
        worker = Worker(backend=where, models=models, name=name, watchdog=True, credentials=credentials, notifier=told)
        _serve(worker, metrics_port)
    except WorkersError as error:
        logger.error("worker cannot go on", error=str(error))
        raise typer.Exit(1) from None


def _models(words: list[str], flags: Flags, described: Line | None, line: Path | None) -> list[ModelOptions]:
    """What `--model` says, in each of its words. Raises typer.Exit; what was wrong is written for people to read, but
    where machines read the log."""
    try:
        return [model_options(word, flags, described, line.parent if line else Path()) for word in words]
    except WorkersError as error:
        if not log.is_json():
            raise failed(error) from None
        logger.error("worker cannot go on", error=str(error))
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None


def _serve(worker: Worker, metrics_port: int) -> None:
    """Run the worker to its end. Raises WorkersError."""
    heap.keep()
    # Decoding is done by the intake threads; a pool of OpenCV's own would only fight the engine for the cores.
    cv2.setNumThreads(1)
    when_asked_to_end(worker.stop)
    with served(worker.metrics, metrics_port):
        ended = worker.run()
    logger.info("worker ended")
    if not ended:
        os._exit(STUCK)  # the interpreter would wait for the engine that hangs


@app.command()
def tiny(out: Annotated[Path, typer.Argument(help="The ONNX file to write.")]) -> None:
    """Write a tiny detector of bright spots: a model for trials that needs no download.

    Its classes are white, red, green and blue.

    Example:  workers tiny tiny.onnx
    """
    from workers.tiny import NAMES, make

    try:
        make(out)
    except OSError as error:
        raise fail(f"{out}: cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {out} ({out.stat().st_size} bytes), classes: {', '.join(NAMES)}")


@app.command()
def describe(
    source: Annotated[Path, typer.Argument(help="The ONNX file.")],
    out: Annotated[Path, typer.Argument(help="The copy to write.")],
    task: TaskOption = None,
    labels: LabelsOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    fit: FitOption = None,
    layout: LayoutOption = None,
) -> None:
    """Copy a model with its task, classes and scaling written into it, so that a line needs only its name.

    Example:  workers describe mobilenet.onnx ready.onnx --labels names.txt --mean 127.5 --std 127.5 --fit stretch
    """
    from workers import describe as described

    try:
        metadata = described.describe(source, out, hints_of(task, labels, size, mean, std, fit, layout))
    except (WorkersError, OSError) as error:
        raise failed(error) from None
    for key, value in metadata.items():
        typer.echo(f"{key}: {value if len(value) <= 100 else value[:97] + '...'}")
    if note := described.note(metadata, str(out)):
        typer.echo(f"  {note}")


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
