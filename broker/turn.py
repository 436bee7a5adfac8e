"""One turn of the join: the rows to commit, and what goes out once they are committed."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from broker.rows import Rows
from broker.wire import Closing, Known

#: Metric name without prefix, then its label values.
Counts = Counter[tuple[str, ...]]


@dataclass(slots=True)
class Turn:
    """`now`: seconds of the monotonic clock, `wall`: unix seconds. Nothing but `rows` may leave before the commit."""

    now: float
    wall: float
    rows: Rows = field(default_factory=Rows)
    #: Broker epoch -> tickets whose items are in the ledger, and what it had already.
    tickets: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    known: defaultdict[str, list[Known]] = field(default_factory=lambda: defaultdict(list))
    #: Frames that the join closed by itself.
    closings: list[Closing] = field(default_factory=list)
    #: (topic, header, body) for the live stream.
    live: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    #: Seconds from EXPECT to publication, of each published frame.
    seconds: list[float] = field(default_factory=list)
    counts: Counts = field(default_factory=Counter)
