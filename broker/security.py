"""Who may do what. Pure: the keys that a line lists in, yes or no out."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final, Literal

from broker.line import KeyEntry, Role

#: Why a peer, or a message of one, was refused: the labels of `denied_total`, and no other. `handshake`: it never
#: came to its end: a peer without CURVE, one that trusts another server, a broken connection (which, is not known:
#: whoever notices first hangs up), and also, 2 s later, each that was refused for its key. `fault`: we tripped over it.
Denial = Literal["unknown_key", "wrong_role", "handshake", "removed_key", "wrong_camera", "fault"]

#: A door (the domain of a bound socket) -> the roles that may come through it.
DOORS: Final[Mapping[str, frozenset[Role]]] = {
    "frontend": frozenset({"camera"}),
    "backend": frozenset({"worker"}),
    "egress": frozenset({"join"}),
    "copies": frozenset({"recorder"}),
    "control": frozenset({"operator"}),
    "live": frozenset({"consumer", "recorder"}),
    "catchup": frozenset({"consumer", "recorder"}),
    "pictures": frozenset({"consumer"}),
}
#: Doors at which a peer only receives: its messages cannot be refused, so its connection must end with its key.
DEAF: Final = frozenset({"live", "copies"})
_SESSION: Final = "session "
#: Characters of a public key by which the log calls one that is not listed: enough to find it (`gongwei keys show`).
_BEGINS: Final = 12


def session_door(public: str) -> str:
    """The door of the data socket that belongs to one worker's key."""
    return _SESSION + public


def plain(door: str) -> str:
    """A door as the log names it: those of all sessions alike."""
    return _SESSION.strip() if door.startswith(_SESSION) else door


class Guard:
    """The keys that are let in. `renew` replaces them all at once; any thread may ask."""

    def __init__(self, keys: Mapping[str, KeyEntry]) -> None:
        self._by_key = _by_key(keys)
        self._names = _names(keys)
        self._former: dict[str, str] = {}

    def renew(self, keys: Mapping[str, KeyEntry]) -> set[Role]:
        """From now on these keys. Returns the roles of those that may do less than before."""
        before, self._by_key = self._by_key, _by_key(keys)
        self._former, self._names = self._names, _names(keys)
        return {entry.role for public, entry in before.items() if self._by_key.get(public) != entry}

    def named(self, public: str) -> str:
        """What the log calls this key: its name in the line file, or how it begins where no name is known."""
        # Each looked at once: `renew` puts others in their places at any moment.
        name = self._names.get(public)
        if name is not None:
            return name
        former = self._former.get(public)
        return f"not listed: {public[:_BEGINS]}..." if former is None else f"{former} (no longer listed)"

    def denial(self, door: str, public: str) -> Denial | None:
        """Why this key may not come through this door; None: it may."""
        entry = self._by_key.get(public)
        if entry is None:
            return "unknown_key"
        if door.startswith(_SESSION):
            return None if entry.role == "worker" and door == session_door(public) else "wrong_role"
        return None if entry.role in DOORS.get(door, ()) else "wrong_role"

    def may_be(self, public: str, camera: str) -> bool:
        """Whether this key may speak as `camera`."""
        entry = self._by_key.get(public)
        return entry is not None and entry.role == "camera" and camera in entry.cameras


def _by_key(keys: Mapping[str, KeyEntry]) -> dict[str, KeyEntry]:
    return {entry.public: entry for entry in keys.values()}


def _names(keys: Mapping[str, KeyEntry]) -> dict[str, str]:
    return {entry.public: name for name, entry in keys.items()}


def exposed(endpoints: Mapping[str, str]) -> dict[str, str]:
    """Those of `endpoints` (by name) that other machines can reach once they are bound."""
    return {name: endpoint for name, endpoint in endpoints.items() if _is_exposed(endpoint)}


def _is_exposed(endpoint: str) -> bool:
    if not endpoint.startswith("tcp://"):
        return False
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:  # "*", a name, or that of an interface
        return True


def refusal(found: Mapping[str, str]) -> str:
    """Why endpoints that `exposed` has found are not bound without keys, and what to do."""
    named = ", ".join(f"{name} {endpoint}" for name, endpoint in found.items())
    return (
        f"other machines could reach {named}, and no key is asked for: anyone there could send frames, take jobs and "
        "read results. Make keys (gongwei keys line LINE.toml, see docs/security.md), bind tcp://127.0.0.1 or ipc, "
        "or say --insecure where the network itself keeps strangers out"
    )
