"""A whole line in this process: broker, join, workers and cameras in threads, on endpoints of any transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq

from broker.join_server import JoinServer
from broker.line import Endpoints, Line, Model, Route, Rules, Station, from_flags
from broker.report import report
from broker.server import BrokerServer
from clients.camera import Camera
from tests.peers import Context, running
from workers.options import ModelOptions
from workers.worker import Worker

#: A monitor camera of every line, whose frames only show that the consumer hears what is published.
PROBE = "probe"
NAMES = ("frontend", "backend", "egress", "live", "catchup", "copies", "pictures", "control")


class WholeLine:
    """Cameras cam1 and cam2, each seen by every model; a consumer that notes whatever is published."""

    def __init__(
        self, endpoint: Callable[[str], str], context: Context, folder: Path, models: dict[str, Any], **line: Any
    ) -> None:
        self.context = context
        self.models = models
        self.ledger = folder / "ledger.sqlite"
        self.line = _line(endpoint, list(models), **line)
        self.published: list[tuple[str, Any, Any]] = []
        self._stack = ExitStack()
        self._live: zmq.Socket[bytes] | None = None

    def __enter__(self) -> WholeLine:
        ends = self.line.endpoints
        join = JoinServer(
            egress=ends.egress, live=ends.live, catchup=ends.catchup, ledger=self.ledger, context=self.context
        )
        self.broker: BrokerServer = self._stack.enter_context(
            running(BrokerServer(self.line, context=self.context, quarantine=self.ledger.parent / "quarantine"))
        )
        assert self.broker.ready.wait(5)
        self.join: JoinServer = self._stack.enter_context(running(join))
        assert join.ready.wait(5)
        self._live = self.context.socket(zmq.SUB)
        self._live.linger = 0
        self._live.rcvhwm = 0
        self._live.subscribe(b"")
        self._live.connect(ends.live)
        for name, source in self.models.items():
            self.start_worker(name, source)
        self._wait_heard()
        return self

    def _wait_heard(self, timeout: float = 30.0) -> None:
        """Publish until the consumer hears it: a PUB drops what it sends before a subscription has reached it."""
        assert self._live is not None
        end = time.monotonic() + timeout
        with Camera(PROBE, endpoint=self.line.endpoints.frontend, context=self.context, policy="monitor") as camera:
            while not self._live.poll(50):
                assert time.monotonic() < end, "nothing that was published was heard"
                camera.send(np.zeros((64, 64, 3), np.uint8), encoding="bgr8", timeout=timeout)
            assert camera.flush(timeout)

    def start_worker(self, model: str, source: Any, **options: Any) -> Worker:
        chosen = ModelOptions(name=model, source=source, engine_threads=1, **options)
        name = f"{model}-{time.monotonic_ns()}"
        worker = Worker(backend=self.line.endpoints.backend, models=[chosen], name=name, context=self.context)
        self._stack.enter_context(running(worker))
        return worker

    def __exit__(self, *_: Any) -> None:
        if self._live is not None:
            self._live.close(0)
        self._stack.close()

    def wait_published(self, count: int, timeout: float = 60.0) -> None:
        """Until `count` messages of the live stream are here."""
        assert self._live is not None
        end = time.monotonic() + timeout
        while len(self.published) < count:
            left = end - time.monotonic()
            assert left > 0 and self._live.poll(round(left * 1000)), f"{len(self.published)} of {count} published"
            topic, header, body = self._live.recv_multipart()
            if topic.startswith(f"frame/{PROBE}/".encode()):
                continue
            self.published.append((topic.decode(), msgspec.msgpack.decode(header), msgspec.msgpack.decode(body)))

    def wait_for(self, done: Callable[[], bool], timeout: float = 30.0) -> None:
        """Until `done()`, which asks some process of the line."""
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, "not in time"

    def report(self) -> dict[str, Any]:
        return report(self.ledger)


def _line(
    endpoint: Callable[[str], str],
    models: list[str],
    cameras: Sequence[str] = ("cam1", "cam2"),
    rules: Rules | None = None,
) -> Line:
    line = from_flags(cameras=[*cameras, f"{PROBE}:monitor"], models=models, deadline=30.0)
    ends: dict[str, Any] = {name: endpoint(name) for name in NAMES}
    return msgspec.structs.replace(
        line,
        endpoints=msgspec.structs.replace(Endpoints(), sessions=(20000, 29999), metrics=0, **ends),
        stations={"station": Station(rules=rules)},
        models={name: Model() for name in models},
        routes={camera: Route(models=models) for camera in line.cameras},
    )


@contextmanager
def whole_line(
    endpoint: Callable[[str], str], context: Context, folder: Path, models: dict[str, Any], **line: Any
) -> Iterator[WholeLine]:
    with WholeLine(endpoint, context, folder, models, **line) as instance:
        yield instance
