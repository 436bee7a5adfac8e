"""What a camera has done so far, in numbers."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from clients.holder import Holder


class Stats(NamedTuple):
    """A snapshot. Every frame that was sent is complete, incomplete, rejected, lost or unsettled.

    `sent` counts frames, `resent` the further sends of the same ones; `lost` and `superseded` (replaced before it was
    sent) are for monitor cameras only. `untold` are skips that the broker has not been told of. `unknown` counts news
    of frames that are not held, `malformed` messages that could not be read. Latencies run from capture to settled, in
    seconds, over the last frames; None before the first.
    """

    connected: bool
    credit: int
    unsettled: int
    sent: int
    resent: int
    accepted: int
    complete: int
    incomplete: int
    lost: int
    superseded: int
    rejected: dict[str, int]
    skipped: dict[str, int]
    untold: int
    unknown: int
    malformed: int
    latency_p50: float | None
    latency_p99: float | None


def snapshot(holder: Holder, latencies: Collection[float], connected: bool) -> Stats:
    """The numbers of `holder`; nobody else may touch it meanwhile."""
    count = holder.count
    ordered = sorted(latencies)
    return Stats(
        connected=connected and holder.open,
        credit=holder.credit,
        unsettled=len(holder.held),
        sent=count["sent"],
        resent=count["resent"],
        accepted=count["accepted"],
        complete=count["complete"],
        incomplete=count["incomplete"],
        lost=count["lost"],
        superseded=count["superseded"],
        rejected=dict(holder.rejected),
        skipped=dict(holder.skipped),
        untold=holder.untold(),
        unknown=count["unknown"],
        malformed=count["malformed"],
        latency_p50=_quantile(ordered, 0.5),
        latency_p99=_quantile(ordered, 0.99),
    )


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
