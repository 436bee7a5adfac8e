"""What the trials of `gongwei bench broker` say together: ratios of pairs, added latency, cost, targets. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Final, NamedTuple

from msgspec import Struct

from ops.bench.trial import LINES, Measurement, Subject, Trial


class Spread(NamedTuple):
    """The least, the middle and the largest of several figures."""

    least: float
    median: float
    most: float


class Row(Struct, frozen=True, kw_only=True):
    """One configuration: medians over its trials; None where a trial failed or was not run.

    `ratio`: bytes/s of the broker over those of the proxy, pair by pair; `tight_ratio`: over those of the proxy with
    high-water marks of 4. `curve_ratio`: bytes/s of the broker with CURVE over those without. Seconds for all times.
    `cpu`: processor seconds of a process for one task. `rss`: the most bytes that a process had in any trial.
    """

    transport: str
    size: int
    models: int
    raw_messages: float | None
    proxy_messages: float | None
    tight_messages: float | None
    messages: float | None
    tasks: float | None
    bytes_per_s: float | None
    ratio: Spread | None
    tight_ratio: Spread | None
    curve_messages: float | None
    curve_ratio: Spread | None
    p50: float | None
    p99: float | None
    curve_p50: float | None
    curve_p99: float | None
    added_to_raw: float | None
    added_to_proxy: float | None
    cpu: dict[str, float]
    rss: dict[str, int]

    @property
    def name(self) -> str:
        """ "tcp 100 KB ×3": transport, size, models."""
        return f"{self.transport} {format_size(self.size)} ×{self.models}"


class Target(Struct, frozen=True, kw_only=True):
    """A promise about a figure of some rows; `measured` is the worst of them (None: no figure), `where` its row.

    `most`: `wanted` is an upper bound, else a lower. `few`: why the figure cannot tell, "" where it can."""

    name: str
    wanted: float
    measured: float | None
    where: str
    reached: bool
    most: bool = False
    few: str = ""

    @property
    def bound(self) -> str:
        """ "≤ 0.3": what is wanted."""
        return f"{'≤' if self.most else '≥'} {self.wanted:,g}"

    @property
    def verdict(self) -> str:
        return self.few or ("reached" if self.reached else "MISSED")


Results = dict[Trial, list[Measurement | None]]


#: The ratios that are promised, by size of payload.
_RATIOS: Final[list[tuple[str, float, Callable[[Row], bool]]]] = [
    ("from 1 MB", 0.9, lambda row: row.size >= 1_000_000),
    ("100 KB", 0.75, lambda row: 100_000 <= row.size < 1_000_000),
    ("1 KB", 0.4, lambda row: row.size < 100_000),
]


def make_rows(results: Results) -> list[Row]:
    """One row per transport, size and number of models at which the broker was measured, in the order of the trials."""
    configurations = dict.fromkeys((t.transport, t.size, t.models) for t in results if t.subject == "broker")
    return [_row(results, *configuration) for configuration in configurations]


def make_targets(rows: list[Row]) -> list[Target]:
    """The targets that `rows` can speak of, with the worst row of each."""
    targets = [
        *(
            _target(f"bytes/s ÷ {whose}, {sizes}", rows, wanted, applies, figure)
            for whose, figure in (("proxy's, HWM 4", _tight_ratio), ("proxy's", _ratio))
            for sizes, wanted, applies in _RATIOS
        ),
        _target("tasks/s, 1 KB", rows, 10_000, lambda row: row.size <= 1_000, lambda row: row.tasks),
        _target("added p50 in ms, to 300 KB", rows, 0.4, lambda row: row.size <= 300_000, _added_ms, most=True),
    ]
    return [target for target in targets if target is not None]


def format_size(size: int) -> str:
    """ "100 KB": decimal units, as the sizes of the command line."""
    for unit, factor in (("MB", 1_000_000), ("KB", 1_000)):
        if size >= factor:
            return f"{round(size / factor, 1):g} {unit}"
    return f"{size} B"


def spread(figures: Iterable[float]) -> Spread | None:
    """Least, median and most; None for no figures."""
    known = sorted(figures)
    return Spread(known[0], median(known), known[-1]) if known else None


def _row(results: Results, transport: str, size: int, models: int) -> Row:
    def find(subject: Subject, *, paced: bool) -> list[Measurement | None]:
        wanted = (subject, transport, size, models if subject in LINES else 1, paced)
        for trial, found in results.items():
            if (trial.subject, trial.transport, trial.size, trial.models, trial.rate > 0) == wanted:
                return found
        return []

    broker, proxy = find("broker", paced=False), find("proxy", paced=False)
    tight, curve = find("tight", paced=False), find("curve", paced=False)
    p50 = _median(find("broker", paced=True), _p50)
    return Row(
        transport=transport,
        size=size,
        models=models,
        raw_messages=_median(find("raw", paced=False), lambda m: m.messages_per_s),
        proxy_messages=_median(proxy, lambda m: m.messages_per_s),
        tight_messages=_median(tight, lambda m: m.messages_per_s),
        messages=_median(broker, lambda m: m.messages_per_s),
        tasks=_median(broker, lambda m: m.tasks_per_s),
        bytes_per_s=_median(broker, lambda m: m.bytes_per_s),
        ratio=_paired(broker, proxy),
        tight_ratio=_paired(broker, tight),
        curve_messages=_median(curve, lambda m: m.messages_per_s),
        curve_ratio=_paired(curve, broker),
        p50=p50,
        p99=_median(find("broker", paced=True), _p99),
        curve_p50=_median(find("curve", paced=True), _p50),
        curve_p99=_median(find("curve", paced=True), _p99),
        added_to_raw=_minus(p50, _median(find("raw", paced=True), _p50)),
        added_to_proxy=_minus(p50, _median(find("proxy", paced=True), _p50)),
        cpu={name: _cpu_per_task(broker, name) for name in _processes(broker)},
        rss={name: max(m.rss[name] for m in broker if m) for name in _processes(broker)},
    )


def _paired(ours: list[Measurement | None], theirs: list[Measurement | None]) -> Spread | None:
    """bytes/s over bytes/s of the trial of the same round; a round of which one failed is left out."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a and b and b.bytes_per_s]
    return spread(a.bytes_per_s / b.bytes_per_s for a, b in pairs)


def _processes(measurements: list[Measurement | None]) -> list[str]:
    return next((list(m.cpu) for m in measurements if m), [])


def _median(measurements: list[Measurement | None], figure: Callable[[Measurement], float | None]) -> float | None:
    figures = [value for m in measurements if m and (value := figure(m)) is not None]
    return median(figures) if figures else None


def _cpu_per_task(measurements: list[Measurement | None], process: str) -> float:
    return median(m.cpu_per_task(process) for m in measurements if m)


def _p50(measurement: Measurement) -> float | None:
    return measurement.latency.p50 if measurement.latency else None


def _p99(measurement: Measurement) -> float | None:
    return measurement.latency.p99 if measurement.latency else None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _ratio(row: Row) -> float | None:
    return row.ratio.median if row.ratio else None


def _tight_ratio(row: Row) -> float | None:
    return row.tight_ratio.median if row.tight_ratio else None


def _added_ms(row: Row) -> float | None:
    return None if row.added_to_raw is None else row.added_to_raw * 1e3


def _target(
    name: str,
    rows: list[Row],
    wanted: float,
    applies: Callable[[Row], bool],
    figure: Callable[[Row], float | None],
    most: bool = False,
) -> Target | None:
    """The target for those rows to which it applies (None: to none of them); `most`: an upper bound, else a lower."""
    figures = [(figure(row), row.name) for row in rows if applies(row)]
    if not figures:
        return None
    known = [(value, where) for value, where in figures if value is not None]
    if not known:
        return Target(name=name, wanted=wanted, measured=None, where="", reached=False, most=most)
    measured, where = (max if most else min)(known)
    # A row without a figure (its trials failed) is a target missed, not a row left out.
    reached = len(known) == len(figures) and (measured <= wanted if most else measured >= wanted)
    return Target(name=name, wanted=wanted, measured=measured, where=where, reached=reached, most=most)
