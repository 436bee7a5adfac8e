"""`gongwei bench broker`: the real broker beside raw sockets and `zmq.proxy`, in turn, in one run."""

from __future__ import annotations

import pstats
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from ops.bench.compare import Results
from ops.bench.crew import BenchError
from ops.bench.trial import Measurement, Settings, Trial, run_trial


class Plan(Struct, frozen=True, kw_only=True):
    """What to measure for every size and transport: `pairs` times at full speed, `latency_rounds` times paced.
    `curve`: the broker of a line with keys, too, right after the plain one."""

    sizes: list[int]
    transports: list[str]
    models: list[int]
    pairs: int
    latency_rounds: int
    curve: bool = False

    def trials(self) -> Iterator[Trial]:
        """All trials in their order: raw, proxies, broker, raw, proxies, broker ..., so that a drift hits all alike."""
        for transport in self.transports:
            for size in self.sizes:
                for _ in range(self.pairs):
                    yield from self._round(transport, size, 0.0)
                for _ in range(self.latency_rounds):
                    yield from self._round(transport, size, paced_rate(size))

    def _round(self, transport: str, size: int, rate: float) -> Iterator[Trial]:
        yield Trial(subject="raw", transport=transport, size=size, rate=rate)
        yield Trial(subject="proxy", transport=transport, size=size, rate=rate)
        if not rate:
            yield Trial(subject="tight", transport=transport, size=size)
        for models in self.models:
            yield Trial(subject="broker", transport=transport, size=size, models=models, rate=rate)
            if self.curve:
                yield Trial(subject="curve", transport=transport, size=size, models=models, rate=rate)


def paced_rate(size: int) -> float:
    """Messages a second at which latency is measured: far from saturation at every size."""
    return 100.0 if size < 4_000_000 else 50.0


def run_plan(
    plan: Plan, settings: Settings, on_trial: Callable[[Trial, Measurement | BenchError], None]
) -> tuple[Results, list[str]]:
    """Run all trials; a failed one is a None among its results and a text in the list, and the rest goes on."""
    results: Results = {}
    failures: list[str] = []
    for trial in plan.trials():
        outcome: Measurement | BenchError
        try:
            outcome = run_trial(trial, settings)
            results.setdefault(trial, []).append(outcome)
        except BenchError as error:
            outcome = error
            results.setdefault(trial, []).append(None)
            failures.append(f"{trial}: {error}")
        on_trial(trial, outcome)
    return results, failures


def profile_broker(trial: Trial, settings: Settings, file: Path, functions: int = 40) -> Measurement:
    """Run one trial with the broker under cProfile; its statistics go to `file`, the costliest functions to stdout."""
    measurement = run_trial(trial, settings, profile=file)
    if not file.is_file():
        raise BenchError("the broker ended without writing its profile")
    pstats.Stats(str(file)).strip_dirs().sort_stats("tottime").print_stats(functions)
    return measurement
