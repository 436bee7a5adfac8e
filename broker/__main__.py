"""The `broker` command: start broker, join or recorder of a line, or hand a running broker a changed line file."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol

import typer
import zmq

from broker import entry, log, metrics, notifier, versions
from broker import line as line_file
from broker.ending import when_asked_to_end
from broker.entry import AllowOption, InsecureOption
from broker.gate import GateError
from broker.holdings import command as report
from broker.keyring import BrokerKey, JoinKey, KeyOption, Keyring
from broker.ledger import LedgerError
from broker.line import Endpoints, Ledger, Line, LineError, Recorder
from broker.reload import reload

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.command("report")(report)
app.command()(reload)
logger = log.get(__name__)

LineOption = Annotated[Path | None, typer.Option("--line", help="The line file (TOML).", show_default=False)]
CameraOption = Annotated[
    list[str] | None, typer.Option("--camera", help="Without a line file: NAME or NAME:monitor; repeat.")
]
ModelOption = Annotated[list[str] | None, typer.Option("--model", help="Without a line file: a model's name; repeat.")]
DeadlineOption = Annotated[float, typer.Option(help="Without a line file: seconds from capture to answer.", min=0.001)]
JsonLog = Annotated[bool, typer.Option("--json-log", help="Log JSON lines.")]
LevelOption = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]
MetricsPort = Annotated[int | None, typer.Option("--metrics-port", help="Prometheus port on loopback; 0: none.")]


def _line(path: Path | None, cameras: list[str] | None, models: list[str] | None, deadline: float, **ends: str) -> Line:
    """The line of a file, or of flags; exits with 2 and all problems when it is not one."""
    try:
        if path is not None:
            return line_file.load(path)
        if not cameras or not models:
            raise entry.usage("give --line FILE, or at least one --camera and one --model")
        given = {name: value for name, value in ends.items() if value}
        return line_file.from_flags(cameras=cameras, models=models, deadline=deadline, **given)
    except LineError as error:
        raise entry.usage(str(error)) from None


def _optional_line(path: Path | None) -> Line | None:
    return None if path is None else _line(path, None, None, 5.0)


def _beside(path: Path | None, relative: str) -> Path:
    """A path of the line file is relative to the folder of the line file."""
    return (path.parent if path is not None else Path()) / relative


class _Server(Protocol):
    def run(self) -> None: ...

    def stop(self) -> None: ...


def _serve(process: str, server: _Server, port: int, sample: Callable[[], metrics.Samples]) -> None:
    """Run a server with its metrics; one that can not bind a port or open its ledger, or whose gate has failed, ends
    with 1 and the reason: its supervisor starts it again."""
    gc.freeze()
    gc.set_threshold(20_000)  # open frames come and go without cycles: looking for some more often only costs
    try:
        when_asked_to_end(server.stop)
        with metrics.served(port, sample):
            server.run()
    except (OSError, zmq.ZMQError, LedgerError) as error:
        logger.error(f"{process} can not start", error=str(error))
        raise typer.Exit(1) from None
    except GateError as error:
        logger.critical(f"{process} cannot go on", error=str(error))
        raise typer.Exit(1) from None
    logger.info(f"{process} ended")


@app.command()
def start(
    line: LineOption = None,
    camera: CameraOption = None,
    model: ModelOption = None,
    deadline: DeadlineOption = 5.0,
    frontend: Annotated[str, typer.Option(help="Endpoint for cameras.")] = "",
    backend: Annotated[str, typer.Option(help="Endpoint for workers.")] = "",
    egress: Annotated[str, typer.Option(help="Endpoint for the join.")] = "",
    key: KeyOption = None,
    allow: AllowOption = None,
    insecure: InsecureOption = False,
    metrics_port: MetricsPort = None,
    json_log: JsonLog = False,
    log_level: LevelOption = "info",
) -> None:
    """Route frames from cameras to model workers.

    Examples:

      broker start --line line.toml

      broker start --camera cam1 --camera cam2:monitor --model yolov5n

      broker start --camera cam1 --model yolov5n --key keys/broker.key_secret --allow camera/cam1=keys/cam1.key
    """
    from broker.server import BrokerServer

    log.configure(json=json_log, level=log_level, process="broker")
    ends = {"frontend": frontend, "backend": backend, "egress": egress}
    described = _line(line, camera, model, deadline, **ends)
    bound = {
        name: getattr(described.endpoints, name) for name in ("frontend", "backend", "egress", "copies", "control")
    }
    with entry.key_errors():
        gate = entry.gate(Keyring(described, line, key), "broker", allow)
        entry.check_open(bound, gate is not None, insecure)
    text = line.read_text(encoding="utf-8") if line is not None else None
    quarantine = _beside(line, described.ledger.path).parent / "quarantine"
    wanted = versions.wanted(described, line.parent if line is not None else Path())
    told = notifier.from_environment()
    server = BrokerServer(described, text=text, quarantine=quarantine, versions=wanted, gate=gate, notifier=told)
    port = described.endpoints.metrics if metrics_port is None else metrics_port
    _serve("broker", server, port, server.samples)


@app.command()
def join(
    line: LineOption = None,
    egress: Annotated[str, typer.Option(help="The broker's endpoint for the join.")] = "",
    live: Annotated[str, typer.Option(help="Endpoint of the live stream of results.")] = "",
    catchup: Annotated[str, typer.Option(help="Endpoint for consumers that were away.")] = "",
    ledger: Annotated[Path | None, typer.Option(help="The ledger's SQLite file; default: the line file's.")] = None,
    keep_days: Annotated[
        float | None, typer.Option("--keep-days", min=0.0, help="Delete what is older; 0: nothing.")
    ] = None,
    keep_gb: Annotated[
        float | None,
        typer.Option("--keep-gb", min=0.0, help="Delete the oldest beyond so many GB, 0.03125 at least; 0: nothing."),
    ] = None,
    key: KeyOption = None,
    broker_key: BrokerKey = "",
    allow: AllowOption = None,
    insecure: InsecureOption = False,
    metrics_port: MetricsPort = None,
    json_log: JsonLog = False,
    log_level: LevelOption = "info",
) -> None:
    """Join the answers of all models to one result per frame, keep the ledger, publish.

    Examples:

      broker join --line line.toml

      broker join --ledger ledger.sqlite --egress tcp://127.0.0.1:7003

      broker join --line line.toml --keep-days 30 --keep-gb 20
    """
    from broker.join_server import JoinServer
    from broker.retention import keep

    log.configure(json=json_log, level=log_level, process="join")
    described = _optional_line(line)
    ends = described.endpoints if described is not None else Endpoints()
    kept = described.ledger if described is not None else Ledger()
    try:
        limit = keep(kept.keep_days if keep_days is None else keep_days, kept.keep_gb if keep_gb is None else keep_gb)
    except ValueError as error:
        raise entry.usage(f"--keep-gb: {error}") from None  # a line file's was refused before
    ring = Keyring(described, line, key)
    with entry.key_errors():
        gate = entry.gate(ring, "join", allow)
        credentials = ring.credentials("join", "broker", broker_key)
        entry.check_open({"live": live or ends.live, "catchup": catchup or ends.catchup}, gate is not None, insecure)
    server = JoinServer(
        egress=egress or ends.egress,
        live=live or ends.live,
        catchup=catchup or ends.catchup,
        ledger=ledger or _beside(line, kept.path),
        line=described,
        keep=limit,
        gate=gate,
        credentials=credentials,
        notifier=notifier.from_environment(),
    )
    port = ends.metrics + 1 if metrics_port is None and ends.metrics else metrics_port or 0
    _serve("join", server, port, server.samples)


@app.command()
def recorder(
    line: LineOption = None,
    folder: Annotated[Path | None, typer.Option(help="Where pictures are kept; default: the line file's.")] = None,
    key: KeyOption = None,
    broker_key: BrokerKey = "",
    join_key: JoinKey = "",
    allow: AllowOption = None,
    insecure: InsecureOption = False,
    metrics_port: MetricsPort = None,
    json_log: JsonLog = False,
    log_level: LevelOption = "info",
) -> None:
    """Keep a bounded copy of the frames by verdict and serve pictures by frame key.

    Example:  broker recorder --line line.toml
    """
    from broker.recorder_server import RecorderServer
    from broker.rereading import Rereading

    log.configure(json=json_log, level=log_level, process="recorder")
    described = _optional_line(line)
    ends = described.endpoints if described is not None else Endpoints()
    ring = Keyring(described, line, key)
    with entry.key_errors():
        gate = entry.gate(ring, "recorder", allow)
        to_broker = ring.credentials("recorder", "broker", broker_key)
        to_join = ring.credentials("recorder", "join", join_key)
        entry.check_open({"pictures": ends.pictures}, gate is not None, insecure)
    keeping = described.recorder if described is not None else Recorder()
    server = RecorderServer(
        copies=ends.copies,
        live=ends.live,
        catchup=ends.catchup,
        pictures=ends.pictures,
        folder=folder or _beside(line, keeping.folder),
        memory=keeping.memory,
        disk=keeping.disk,
        keep=list(keeping.keep),
        gate=gate,
        broker=to_broker,
        join=to_join,
        reread=Rereading(line) if line is not None else None,
        notifier=notifier.from_environment(),
    )
    port = ends.metrics + 2 if metrics_port is None and ends.metrics else metrics_port or 0
    _serve("recorder", server, port, server.samples)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
