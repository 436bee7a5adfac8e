"""Joined results as a consumer gets them, and how they are read from what the join publishes."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct, field

from broker.wire import Key, Policy, Status, Verdict
from clients.errors import ClientError


class MalformedResult(ClientError):
    """Bytes that are no joined result."""


class Missing(Struct, frozen=True):
    """A model that did not look at a frame, and why."""

    model: str
    status: Status
    reason: str


class MissingCamera(Struct, frozen=True):
    """A camera whose frame is not in a part: `no_frame`, or `not_joined` in time."""

    camera: str
    reason: str


class Joined(Struct, frozen=True, kw_only=True):
    """The joined result of a frame. `results`: model -> its answer with `status`, `reason` and `tries`; `seq` is None
    for a monitor frame; `seconds`: from the broker's word to publication; `published_at`: unix seconds, a label."""

    topic: str
    seq: int | None
    key: Key
    station: str
    part: str | None
    policy: Policy
    outcome: str
    verdict: Verdict
    missing: list[Missing]
    results: dict[str, dict[str, Any]]
    seconds: float
    published_at: float


class JoinedPart(Struct, frozen=True, kw_only=True):
    """The joined result of a part: `frames` are the keys of the frames in it."""

    topic: str
    seq: int | None
    station: str
    part: str
    outcome: str
    verdict: Verdict
    frames: list[Key]
    missing: list[MissingCamera]
    published_at: float


class _Frame(Struct, kw_only=True):
    camera: str
    boot: str
    seq: int
    station: str
    policy: Policy
    outcome: str
    verdict: Verdict
    results: dict[str, dict[str, Any]]
    part: str | None = None
    missing: list[Missing] = field(default_factory=list)
    seconds: float = 0.0
    published_at: float = 0.0


class _Part(Struct, kw_only=True):
    station: str
    part: str
    outcome: str
    verdict: Verdict
    frames: list[Key] = field(default_factory=list)
    missing: list[MissingCamera] = field(default_factory=list)
    published_at: float = 0.0


_FRAME: Final = msgspec.msgpack.Decoder(_Frame)
_PART: Final = msgspec.msgpack.Decoder(_Part)


def read(topic: str, seq: int | None, body: bytes) -> Joined | JoinedPart:
    """The result in a published message; what a newer join adds is left out. Raises MalformedResult."""
    try:
        if topic.startswith("part/"):
            return JoinedPart(topic=topic, seq=seq, **msgspec.structs.asdict(_PART.decode(body)))
        frame = msgspec.structs.asdict(_FRAME.decode(body))
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise MalformedResult(f"{topic}: {error}") from None
    key = Key(frame.pop("camera"), frame.pop("boot"), frame.pop("seq"))
    return Joined(topic=topic, seq=seq, key=key, **frame)
