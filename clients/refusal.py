"""When a broker will not have a camera: which words say so, and what a person can do about it."""

from __future__ import annotations

from typing import Final, NamedTuple

from broker.wire import PROTOCOL

#: Reasons of a REJECT that answers HELLO, and what they mean.
REFUSALS: Final = {
    "unknown_camera": "its line file has no such camera: add [cameras.{name}], or use a name that it has",
    "policy_mismatch": "its line file gives this camera another policy than {policy!r}",
    "key_conflict": "another process publishes under this name: stop it, or use another name",
    "forbidden": "its key may not use this name: the line file's [security.keys] says which key is whose",
    "protocol": f"it does not speak protocol {PROTOCOL}: install the same release on both sides",
    "too_many_cameras": "it serves as many cameras as its line file's limits.cameras allows",
}
#: Seconds for which another process of this name may still count as alive: it may be our own, killed and started again.
CONFLICT_PATIENCE: Final = 3.0


class Refusal(NamedTuple):
    """The broker's no to HELLO, and since when it has been saying so."""

    reason: str
    detail: str
    since: float


def stands(refusal: Refusal, now: float) -> bool:
    """Whether it is to be believed; a conflict of names is given time to pass."""
    return refusal.reason != "key_conflict" or now - refusal.since >= CONFLICT_PATIENCE


def explain(refusal: Refusal, name: str, policy: str) -> str:
    """What it means for camera `name`, and what to do."""
    return REFUSALS[refusal.reason].format(name=name, policy=policy)
