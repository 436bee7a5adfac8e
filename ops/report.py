"""Reconciliation of a run: what the cameras were told, what the ledger holds, what a consumer received. Pure.

Nobody is believed alone. A frame that a camera was told is accepted and that the ledger does not hold as joined is
*lost*; one that was published twice, or that a consumer received twice, is a *duplicate*; one that was joined and that
no consumer received is *unreceived*. All three must be 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from broker.wire import Key


class Latency(Struct, frozen=True, kw_only=True):
    """Quantiles in seconds; None where nothing was measured."""

    p50: float | None = None
    p99: float | None = None


class Told(Struct, frozen=True, kw_only=True):
    """What one camera knows of its run, by its own counts and its own clock. `latencies`: capture to settled, of its
    last frames; `seconds`: from its first picture to its last answer."""

    sent: int = 0
    resent: int = 0
    accepted: int = 0
    complete: int = 0
    incomplete: int = 0
    rejected: int = 0
    missed: int = 0
    seconds: float = 0.0
    latencies: list[float] = []


@dataclass(slots=True)
class Consumed:
    """What a consumer received: how often each frame came, its verdict, and seconds of inference by model."""

    frames: Counter[Key] = field(default_factory=Counter)
    verdicts: dict[Key, str] = field(default_factory=dict)
    inference: dict[str, list[float]] = field(default_factory=dict)

    def take(self, body: Mapping[str, Any]) -> None:
        """Count one published message; what is not a frame (a part) is passed over."""
        if not {"camera", "boot", "seq", "results"} <= body.keys():
            return
        key = Key(body["camera"], body["boot"], body["seq"])
        self.frames[key] += 1
        self.verdicts[key] = str(body.get("verdict", "none"))
        for model, result in body["results"].items():
            seconds = result.get("timings", {}).get("inference")
            if seconds is not None:
                self.inference.setdefault(model, []).append(seconds)

    @property
    def repeated(self) -> int:
        """Deliveries beyond the first."""
        return self.frames.total() - len(self.frames)


class CameraFigures(Struct, frozen=True, kw_only=True):
    """One camera. `latency` is by the camera's own clock, capture to settled."""

    accepted: int
    joined: int
    complete: int
    incomplete: int
    lost: int
    unreceived: int
    resent: int
    rejected: int
    missed: int
    latency: Latency


class ModelFigures(Struct, frozen=True, kw_only=True):
    """One model: frames by terminal status, and seconds of inference."""

    statuses: dict[str, int]
    inference: Latency
    inference_mean: float | None


class Truth(Struct, frozen=True, kw_only=True):
    """Verdicts of synthetic parts against what is known of them: defective parts that were called ok, sound ones that
    were called ng, and those of both that got neither verdict."""

    defective: int
    sound: int
    missed: int
    false_alarms: int
    undecided: int


class Report(Struct, frozen=True, kw_only=True):
    """A whole run. `seconds`: that of the slowest camera; `silent`: cameras of whose processes no report came."""

    accepted: int
    joined: int
    complete: int
    incomplete: int
    duplicates: int
    lost: int
    unreceived: int
    requeued: int
    dropped: int
    late: int
    rejected: int
    missed: int
    received: int
    verdicts: dict[str, int]
    latency: Latency
    cameras: dict[str, CameraFigures]
    models: dict[str, ModelFigures]
    restarts: int
    seconds: float
    silent: list[str] = []
    truth: Truth | None = None

    @property
    def passed(self) -> bool:
        """Something was joined, and it all adds up."""
        return self.joined > 0 and not (self.lost or self.duplicates or self.unreceived or self.silent)


def reconcile(
    told: Mapping[str, Told | None],
    ledger: Mapping[str, Any],
    consumed: Consumed,
    *,
    restarts: int = 0,
    truth: Truth | None = None,
) -> Report:
    """Hold the three accounts against each other. `told`: by camera, None where no report came from it; `ledger`: what
    `broker.report` says; `truth`: of synthetic parts, taken over as it is."""
    names = sorted({*told, *ledger["cameras"]})
    received = Counter(key.camera for key in consumed.frames)
    cameras = {
        name: _camera(told.get(name) or Told(), ledger["cameras"].get(name, {}), received[name]) for name in names
    }
    heard = [account for account in told.values() if account is not None]
    statuses: Mapping[str, dict[str, int]] = ledger["statuses"]
    return Report(
        accepted=sum(camera.accepted for camera in cameras.values()),
        joined=ledger["joined"],
        complete=ledger["complete"],
        incomplete=ledger["incomplete"],
        duplicates=ledger["duplicates"] + consumed.repeated,
        lost=sum(camera.lost for camera in cameras.values()),
        unreceived=sum(camera.unreceived for camera in cameras.values()),
        requeued=ledger["requeued"],
        dropped=sum(counts.get("dropped", 0) for counts in statuses.values()),
        late=ledger["late_results"],
        rejected=sum(account.rejected for account in heard),
        missed=sum(account.missed for account in heard),
        received=len(consumed.frames),
        verdicts=dict(sum((Counter(counts) for counts in ledger["verdicts"].values()), Counter())),
        latency=latency(seconds for account in heard for seconds in account.latencies),
        cameras=cameras,
        models={
            model: _model(statuses.get(model, {}), consumed.inference.get(model, []))
            for model in sorted({*statuses, *consumed.inference})
        },
        restarts=restarts,
        seconds=max((account.seconds for account in heard), default=0.0),
        silent=sorted(name for name, account in told.items() if account is None),
        truth=truth,
    )


def _camera(told: Told, ledger: Mapping[str, int], received: int) -> CameraFigures:
    accepted, joined = max(told.accepted, ledger.get("accepted", 0)), ledger.get("joined", 0)
    return CameraFigures(
        accepted=accepted,
        joined=joined,
        complete=ledger.get("complete", 0),
        incomplete=ledger.get("incomplete", 0),
        lost=max(0, accepted - joined),
        unreceived=max(0, joined - received),
        resent=told.resent,
        rejected=told.rejected,
        missed=told.missed,
        latency=latency(told.latencies),
    )


def _model(statuses: dict[str, int], inference: Sequence[float]) -> ModelFigures:
    mean = math.fsum(inference) / len(inference) if inference else None
    return ModelFigures(statuses=statuses, inference=latency(inference), inference_mean=mean)


def latency(seconds: Iterable[float]) -> Latency:
    """The quantiles of measured times, each one that was measured (nearest rank)."""
    ordered = sorted(seconds)
    if not ordered:
        return Latency()
    return Latency(p50=_rank(ordered, 0.5), p99=_rank(ordered, 0.99))


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
