"""`gongwei bench`: the broker, a worker, and a line over time, measured beside what they are compared with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ops.bench.demo_command import demo_models
from ops.bench.words import parse_batch, parse_models, parse_size, parse_transports

app = typer.Typer(help="Measure the broker, a worker, or a line over time.", no_args_is_help=True)
app.command("demo-models")(demo_models)


@app.command()
def broker(
    sizes: Annotated[
        str, typer.Option(help="Payload sizes in bytes; k and m are thousands and millions.")
    ] = "1k,100k,1m,6m",
    transports: Annotated[str, typer.Option(help="tcp, ipc or both.")] = "tcp,ipc",
    models: Annotated[str, typer.Option(help="Models that see each frame.")] = "1,3",
    pairs: Annotated[int, typer.Option(min=1, help="Times that broker and proxy are measured in turn.")] = 7,
    latency_rounds: Annotated[int, typer.Option(min=0, help="Times that latency is measured, paced.")] = 3,
    seconds_per_run: Annotated[float, typer.Option(min=0.1, help="Seconds counted in each trial.")] = 2.0,
    warm_up: Annotated[float, typer.Option(min=0.0, help="Seconds before counting begins.")] = 1.0,
    cameras: Annotated[int, typer.Option(min=1, max=64, help="Cameras (senders) that share one process.")] = 2,
    window_mb: Annotated[int, typer.Option(min=1, help="Unsettled payloads of one camera at most, in MB.")] = 64,
    io_threads: Annotated[int, typer.Option(min=1, help="I/O threads of load generator, proxy and consumers.")] = 1,
    curve: Annotated[
        bool, typer.Option("--curve", help="Also the broker of a line with keys, right after the plain one.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where ledgers are put for the time (a disk of its own?).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write all figures as JSON (or the tables, if it ends in .md).")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Instead: one trial, the broker under cProfile, to this file.")
    ] = None,
) -> None:
    """The broker beside raw sockets and zmq.proxy, in turn, each in processes of its own.

    Broker means the real one: join and ledger run, every frame is accepted, answered and settled. Exit code 1 if a
    trial failed; a missed target is reported, not an error.

    Examples:

        gongwei bench broker

        gongwei bench broker --sizes 1k --transports tcp --models 1 --pairs 3 --latency-rounds 0

        gongwei bench broker --sizes 1k --transports tcp --models 3 --profile broker.prof
    """
    from ops.bench.broker import Plan
    from ops.bench.screen import show_broker_bench, show_profile
    from ops.bench.trial import Settings

    plan = Plan(
        sizes=[parse_size(text) for text in sizes.split(",")],
        transports=parse_transports(transports),
        models=[parse_models(text) for text in models.split(",")],
        pairs=pairs,
        latency_rounds=latency_rounds,
        curve=curve,
    )
    settings = Settings(
        seconds=seconds_per_run,
        warm_up=warm_up,
        cameras=cameras,
        io_threads=io_threads,
        window_bytes=window_mb * 1_000_000,
        folder=str(folder.resolve()) if folder else None,
    )
    passed = show_profile(plan, settings, profile) if profile else show_broker_bench(plan, settings, report)
    raise typer.Exit(0 if passed else 1)


@app.command()
def worker(
    model: Annotated[Path, typer.Option(metavar="FILE.onnx", exists=True, dir_okay=False, help="The model.")],
    options: Annotated[list[str] | None, typer.Argument(help="After --: more options for `workers start`.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames counted in each trial.")] = 200,
    threads: Annotated[int, typer.Option(min=1, max=8, help="Sessions of the worker, and loops beside it.")] = 1,
    engine_threads: Annotated[int, typer.Option(min=1, help="Threads inside one inference.")] = 1,
    max_batch: Annotated[int, typer.Option(min=1, max=256, help="Pictures in one inference at most.")] = 1,
    pairs: Annotated[int, typer.Option(min=1, help="Times that bare loop and worker are measured in turn.")] = 5,
    report: Annotated[
        Path | None, typer.Option(help="Write all figures as JSON (or the table, if it ends in .md).")
    ] = None,
) -> None:
    """A real worker, fed by a real broker, beside a bare onnxruntime loop of the same model.

    JPEG and raw pictures, at the model's size and at 1080p. Exit code 1 if a trial failed; a missed target is reported,
    not an error.

    Examples:

        gongwei bench worker --model yolov5n.onnx

        gongwei bench worker --model classifier.onnx --frames 2000 --max-batch 8 --report worker.json

        gongwei bench worker --model mobilenet.onnx -- --task classify --mean 127.5 --std 127.5 --fit crop
    """
    from ops.bench.screen import show_worker_bench
    from ops.bench.worker import Workload

    workload = Workload(
        model=str(model.resolve()),
        frames=frames,
        threads=threads,
        engine_threads=engine_threads,
        max_batch=max_batch,
        options=options or [],
    )
    raise typer.Exit(0 if show_worker_bench(workload, pairs, report) else 1)


@app.command()
def postprocess(
    model: Annotated[list[Path] | None, typer.Option(exists=True, help="ONNX file; repeat; none: the zoo's.")] = None,
    image: Annotated[list[Path] | None, typer.Option(exists=True, help="Picture; repeat; none: drawn, 1080p.")] = None,
    batches: Annotated[str, typer.Option(help="Frames in one call.")] = "1,18",
    rounds: Annotated[int, typer.Option(min=1, help="Calls at batch 1, and rounds of the suppression.")] = 36,
    report: Annotated[
        Path | None, typer.Option(help="Write all figures as JSON (or the tables, if it ends in .md).")
    ] = None,
) -> None:
    """What a worker does around the engine, and its suppression of overlapping boxes beside OpenCV's. One thread.

    Exit code 1 if a model cannot run, or the others kept other boxes; a missed target is reported, not an error.

    Examples:

        gongwei bench postprocess

        gongwei bench postprocess --model yolov5n.onnx --image bus.jpg --batches 1
    """
    from ops.bench.postprocess import show

    counts = [parse_batch(text) for text in batches.split(",")]
    raise typer.Exit(0 if show(model or [], image or [], counts, rounds, report) else 1)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.01, help="How long.")] = 10.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames a second of each camera.")] = 30.0,
    cameras: Annotated[int, typer.Option(min=1, max=64, help="Cameras.")] = 2,
    size: Annotated[str, typer.Option(help="Payload of a frame in bytes (300k, 6m), made a square picture.")] = "300k",
    models: Annotated[int, typer.Option(min=1, max=16, help="Models that see each frame.")] = 1,
    transport: Annotated[str, typer.Option(help="tcp or ipc.")] = "tcp",
    folder: Annotated[Path | None, typer.Option(help="Where ledger and pictures are put for the time.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write all samples as JSON (or the table, if it ends in .md).")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw memory over time as a PNG.")] = None,
) -> None:
    """A whole line at a steady rate: does any process grow, and does everything reconcile at the end?

    Broker, join and recorder are the real ones; cameras and worker speak the real protocol, without pictures or models.
    Exit code 1 if a process ended or the counts differ at the end.

    Examples:

        gongwei bench soak --minutes 10 --plot soak.png

        gongwei bench soak --minutes 60 --size 6m --rate 10 --report soak.json
    """
    from ops.bench.screen import show_soak
    from ops.bench.soak import Soak

    settings = Soak(
        seconds=minutes * 60,
        rate=rate,
        cameras=cameras,
        side=math.isqrt(parse_size(size)),
        models=models,
        transport=parse_transports(transport)[0],
        folder=str(folder.resolve()) if folder else None,
    )
    raise typer.Exit(0 if show_soak(settings, report, plot) else 1)


@app.command()
def overload(
    policies: Annotated[str, typer.Option(help="inspect, monitor or both.")] = "inspect,monitor",
    cameras: Annotated[str, typer.Option(help="Numbers of cameras.")] = "4,16",
    kinds: Annotated[str, typer.Option(help="equal, mixed (sizes), greedy (one camera at 10 times the rate).")] = (
        "equal,mixed,greedy"
    ),
    times: Annotated[
        float, typer.Option(min=0.1, help="What the cameras offer, in times of what the worker does.")
    ] = 3.0,
    service: Annotated[float, typer.Option(min=0.001, max=0.1, help="Seconds of the worker for a frame.")] = 0.02,
    deadline: Annotated[float, typer.Option(min=0.01, help="Seconds from capture to answer.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each case runs.")] = 10.0,
    size: Annotated[str, typer.Option(help="Payload of a frame in bytes (300k, 6m), made a square picture.")] = "300k",
    transport: Annotated[str, typer.Option(help="tcp or ipc.")] = "tcp",
    folder: Annotated[Path | None, typer.Option(help="Where ledgers are put for the time.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write all figures as JSON (or the table, if it ends in .md).")
    ] = None,
) -> None:
    """Cameras that offer more than the workers can do: who gets how much, how late, how fresh, what the broker holds.

    Broker and join are the real ones; cameras and worker speak the real protocol, without pictures or models. Exit code
    1 if a process ended or the counts differ at the end; a missed target is reported, not an error.

    Examples:

        gongwei bench overload

        gongwei bench overload --policies monitor --cameras 16 --kinds greedy --seconds 30 --report overload.json
    """
    from ops.bench.overload import parse_cases
    from ops.bench.screen import show_overload

    try:
        cases = parse_cases(
            policies, cameras, kinds, times=times, service=service, deadline=deadline, seconds=seconds,
            side=math.isqrt(parse_size(size)), transport=parse_transports(transport)[0],
            folder=str(folder.resolve()) if folder else None,
        )  # fmt: skip
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(0 if show_overload(cases, report) else 1)
