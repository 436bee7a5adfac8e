"""Every metric of a worker process, in a registry of its own, and the page that Prometheus reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from broker import log
from broker.metrics import CATALOGUE, Samplers
from workers.errors import WorkersError

#: Bounds of the stage histogram in seconds: from a letterbox to a large model on a CPU.
SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: Bounds of the batch size histogram.
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one worker process; labels are configured names or words of this package, never a peer's text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(Samplers(log.samples, CATALOGUE))
        self.frames = Counter(
            "gongwei_worker_frames_total",
            "Jobs answered, by terminal status.",
            ["model", "status", "reason"],
            registry=self.registry,
        )
        self.given_back = Counter(
            "gongwei_worker_given_back_total",
            "Jobs given back to the broker (NACK).",
            ["model", "reason"],
            registry=self.registry,
        )
        self.stages = Histogram(
            "gongwei_worker_stage_seconds",
            "Time of a frame in each stage: wait, decode, preprocess, inference (of its batch), postprocess.",
            ["model", "stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "gongwei_worker_batch_frames",
            "Frames in one call of the engine.",
            ["model"],
            buckets=SIZES,
            registry=self.registry,
        )
        self.refused = Counter(
            "gongwei_worker_refused_total",
            "Messages of the broker that were refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.discarded = Counter(
            "gongwei_worker_discarded_total",
            "Results discarded because the broker was away for too long; their frames are sent again.",
            registry=self.registry,
        )
        self.sessions = Gauge(
            "gongwei_worker_sessions",
            "Sessions of a model that are open at the broker.",
            ["model"],
            registry=self.registry,
        )


@contextlib.contextmanager
def served(metrics: Metrics, port: int, host: str = "127.0.0.1") -> Iterator[None]:
    """Serve the page at http://host:port/metrics inside the block; port 0: not at all. Raises WorkersError."""
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise WorkersError(f"metrics port {port} of {host}: {error.strerror}; choose another --metrics-port") from None
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
