"""Reading the processes' Prometheus endpoints: text in, numbers out, and rates and quantiles between two readings."""

from __future__ import annotations

import http.client
import math
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

#: Seconds to wait for a process on the same machine; one that does not answer in time has no numbers this time.
TIMEOUT: Final = 0.5
#: Largest page that is read, in bytes.
LARGEST: Final = 4 << 20

Labels = frozenset[tuple[str, str]]


class Reading:
    """The samples of one endpoint at one instant: (sample name, labels) -> value."""

    def __init__(self, samples: Mapping[tuple[str, Labels], float] | None = None) -> None:
        self._samples = dict(samples or {})

    def __bool__(self) -> bool:
        return bool(self._samples)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples of `name` that have these labels; 0 if there is none."""
        wanted = set(labels.items())
        return sum(value for (sample, own), value in self._samples.items() if sample == name and wanted <= own)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The samples of `name`, summed for each value of `label`."""
        sums: dict[str, float] = {}
        for (sample, own), value in self._samples.items():
            if sample == name and (key := dict(own).get(label)) is not None:
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def buckets(self, name: str, edge: str = "le", **labels: str) -> dict[float, float]:
        """Upper bound, from label `edge`, -> cumulative count of the samples of `name` that have these labels."""
        wanted = set(labels.items())
        sums: dict[float, float] = {}
        for (sample, own), value in self._samples.items():
            if sample == name and wanted <= own and (bound := dict(own).get(edge)) is not None:
                sums[float(bound)] = sums.get(float(bound), 0.0) + value
        return sums


def parse(text: str) -> Reading:
    """Read an exposition. Raises ValueError when it is not one."""
    samples: dict[tuple[str, Labels], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return Reading(samples)


def fetch(port: int) -> Reading:
    """Read the endpoint of a process on this machine; an empty reading when it does not answer or not in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/metrics")
        return parse(connection.getresponse().read(LARGEST).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException, ValueError):
        return Reading()  # it starts, restarts or ends: the next reading says more
    finally:
        connection.close()


def rate(new: float, old: float, seconds: float) -> float:
    """Increase of a counter per second; a counter that fell was started again from 0."""
    return (new - old if new >= old else new) / seconds if seconds > 0 else 0.0


def increase(new: Mapping[float, float], old: Mapping[float, float]) -> dict[float, float]:
    """What a histogram's buckets gained; everything, if the process was started again in between."""
    gained = {bound: count - old.get(bound, 0.0) for bound, count in new.items()}
    return dict(new) if any(count < 0 for count in gained.values()) else gained


def quantile(share: float, buckets: Mapping[float, float]) -> float:
    """The value below which `share` of the observations lie, interpolated inside its bucket; nan if there are none.

    `buckets` are cumulative. Beyond the last finite bound, that bound is the answer.
    """
    bounds = sorted(buckets)
    count = buckets[bounds[-1]] if bounds else 0.0
    if count <= 0:
        return math.nan
    wanted, lower, below = share * count, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if math.isinf(bound):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)
        lower, below = bound, buckets[bound]
    return lower


def merged(readings: Iterable[Reading]) -> Reading:
    """The sum of several processes."""
    sums: dict[tuple[str, Labels], float] = {}
    for reading in readings:
        for key, value in reading._samples.items():
            sums[key] = sums.get(key, 0.0) + value
    return Reading(sums)
