"""The rows of the ledger: what the join writes in one turn, and what it finds there when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from broker.joined import Answer
from broker.part import Completeness
from broker.wire import Key, Verdict

#: Bits of a frame's row id that hold `seq`; the boot's number stands above them.
SEQ_BITS: Final = 40
#: One more than the highest `seq` that a row id can hold.
SEQ_LIMIT: Final = 1 << SEQ_BITS


class FrameRow(NamedTuple):
    """A row of `frames`; `outcome` and `verdict` are None while it is open. `accepted_at`: unix seconds."""

    frame: int
    plan: int
    part: str | None
    part_row: int | None
    accepted_at: float
    outcome: Completeness | None
    verdict: Verdict | None


class PlanRow(NamedTuple):
    """What frames have in common: station, models, required models (both joined by blanks) and line digest."""

    plan: int
    station: str
    models: str
    required: str
    digest: str


class BootRow(NamedTuple):
    """A start of a camera, by the number that its frames' row ids carry; `name` is the boot's random id, `epoch` the
    broker that spoke of it last, `noted_at` when this was written (unix seconds)."""

    boot: int
    camera: str
    name: str
    state: str
    last_seq: int
    epoch: str
    noted_at: float = 0.0

    @property
    def first(self) -> int:
        """The row id of its frame 0."""
        return self.boot << SEQ_BITS


class ResultRow(NamedTuple):
    """The terminal status of a (frame, model)."""

    frame: int
    model: str
    status: str
    reason: str
    tries: int
    body: bytes


class LateRow(NamedTuple):
    """An answer that came after another was committed, or after the deadline."""

    frame: int
    model: str
    tries: int
    status: str
    reason: str
    body: bytes


class SkipRow(NamedTuple):
    """A trigger that a camera missed, by the row id that its frame would have. `noted_at`: unix seconds."""

    frame: int
    reason: str
    noted_at: float


class TopicRow(NamedTuple):
    """A topic and the seq of its newest publication."""

    topic: int
    name: str
    last_seq: int


class PublishedRow(NamedTuple):
    """A publication. `frame` is None for a part, whose whole body is `head`."""

    seq: int
    previous: int | None
    topic: int
    frame: int | None
    head: bytes


@dataclass(slots=True)
class Rows:
    """What one turn writes, in one transaction. A field is named after its table."""

    #: (digest, text)
    lines: list[tuple[str, str]] = field(default_factory=list)
    plans: list[PlanRow] = field(default_factory=list)
    #: New or changed boots: state, last_seq and epoch replace what is there.
    boots: list[BootRow] = field(default_factory=list)
    #: (part, station, name, opened_at)
    parts: list[tuple[int, str, str, float]] = field(default_factory=list)
    frames: list[FrameRow] = field(default_factory=list)
    results: list[ResultRow] = field(default_factory=list)
    late_results: list[LateRow] = field(default_factory=list)
    #: (frame, model, count); the higher count holds.
    suspects: list[tuple[int, str, int]] = field(default_factory=list)
    skips: list[SkipRow] = field(default_factory=list)
    #: (outcome, verdict, frame) of frames that were open before this turn.
    closed_frames: list[tuple[Completeness, Verdict, int]] = field(default_factory=list)
    #: (closed_at, outcome, verdict, part)
    closed_parts: list[tuple[float, Completeness, Verdict, int]] = field(default_factory=list)
    topics: list[TopicRow] = field(default_factory=list)
    published: list[PublishedRow] = field(default_factory=list)


class Stored(NamedTuple):
    """All that the ledger knows of one frame. Bodies are left out (empty) where nobody will publish them again."""

    key: Key
    row: FrameRow
    answers: dict[str, Answer]
    suspects: dict[str, int]


class StoredBoot(NamedTuple):
    """A boot, and the highest `seq` of its frames and skips, -1 for none."""

    row: BootRow
    highest: int


class StoredPart(NamedTuple):
    """A part that is open, or was closed not long ago (`closed_at`, unix seconds), with its frames."""

    part: int
    station: str
    name: str
    closed_at: float | None
    frames: list[Stored]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a join that starts must have in memory."""

    #: Last seq that was published, and the highest numbers given to boots and parts.
    last_seq: int
    last_boot: int
    last_part: int
    #: (digest, text), oldest first: the newest few, and all that open frames name.
    lines: list[tuple[str, str]]
    plans: list[PlanRow]
    topics: list[TopicRow]
    boots: list[StoredBoot]
    #: Open frames.
    frames: list[Stored]
    parts: list[StoredPart]
