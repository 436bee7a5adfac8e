"""What the types of a line file cannot say: references between its tables, and addresses that do not collide.

Works on the document itself, not on a `Line`, so that these problems are found beside those of spelling and type.
What has the wrong type is skipped here: `broker.document` names it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from broker.document import Problem, listed, meant, shown

Document = Mapping[str, Any]

_TCP: Final = re.compile(r"tcp://(?P<host>[^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_NAMED: Final = re.compile(r"(ipc|inproc)://\S.*")
_ANY_HOST: Final = ("*", "0.0.0.0", "[::]")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
#: Metrics ports of the broker, the join and the recorder; one for each worker process follows.
_SERVICES: Final = 3
#: The least `ledger.keep_gb`: 32 MB, of which the log may take 8. Less would hold little more than the log.
LEAST_GB: Final = 0.03125


def problems(document: Document) -> Iterator[Problem]:
    """`document` is a line file's, with the defaults of `endpoints` and `limits` filled in."""
    yield from _cameras(document)
    yield from _routes(document)
    yield from _rules(document)
    yield from _limits(document)
    yield from _ledger(document)
    yield from _addresses(document)
    yield from _ports(document)
    yield from _security(document)


def _table(document: Document, name: str) -> dict[str, Document]:
    """The entries of a table of tables; one that is not a table counts as empty."""
    table = document.get(name)
    entries = table.items() if isinstance(table, Mapping) else ()
    return {key: entry if isinstance(entry, Mapping) else {} for key, entry in entries}


def _words(value: object) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _unknown(word: str, words: Mapping[str, Any], what: str) -> str:
    return f"found {shown(word)}; {what} are: {listed(words)}{meant(word, words)}"


def _cameras(document: Document) -> Iterator[Problem]:
    stations, routes = _table(document, "stations"), _table(document, "routes")
    for camera, entry in _table(document, "cameras").items():
        station = entry.get("station")
        if isinstance(station, str) and station not in stations:
            yield Problem(("cameras", camera, "station"), _unknown(station, stations, "stations"))
        if camera not in routes:
            yield Problem(("cameras", camera), f"has no route; add [routes.{camera}] with its models")


def _routes(document: Document) -> Iterator[Problem]:
    cameras, known = _table(document, "cameras"), _table(document, "models")
    for camera, entry in _table(document, "routes").items():
        path = ("routes", camera)
        if camera not in cameras:
            yield Problem(path, _unknown(camera, cameras, "cameras"))
        models = _words(entry.get("models"))
        for model in dict.fromkeys(models):
            if model not in known:
                yield Problem((*path, "models"), _unknown(model, known, "models"))
        for key in ("models", "required"):
            words = _words(entry.get(key))
            for model in dict.fromkeys(word for word in words if words.count(word) > 1):
                yield Problem((*path, key), f"names {shown(model)} twice")
        for model in _words(entry.get("required")):
            if model not in models:
                own = dict.fromkeys(models)
                yield Problem((*path, "required"), _unknown(model, own, "the models of this route"))


def _rules(document: Document) -> Iterator[Problem]:
    for station, entry in _table(document, "stations").items():
        rules = entry.get("rules")
        if not isinstance(rules, Mapping):
            continue
        path = ("stations", station, "rules")
        required = rules.get("required")
        if not rules.get("ng") and not required:
            yield Problem(path, "has no rule; name classes in `ng` or `required`, or remove the table (no verdicts)")
        for name in _words(rules.get("ng")):
            if isinstance(required, Mapping) and name in required:
                yield Problem((*path, "required"), f"{shown(name)} is in `ng` too: no frame could ever be ok")


def _limits(document: Document) -> Iterator[Problem]:
    allowed, count = document["limits"].get("cameras"), len(_table(document, "cameras"))
    if isinstance(allowed, int) and 1 <= allowed < count:
        yield Problem(("limits", "cameras"), f"found {allowed}; the line has {count} cameras")


def _ledger(document: Document) -> Iterator[Problem]:
    ledger = document.get("ledger")
    given = ledger.get("keep_gb") if isinstance(ledger, Mapping) else None
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < LEAST_GB:
        yield Problem(("ledger", "keep_gb"), too_little(given))


def too_little(keep_gb: float) -> str:
    """What is wrong with a `keep_gb` below the least."""
    return f"found {keep_gb}; the least is {LEAST_GB} (32 MB: less would hold little more than the log), 0 is no limit"


def _endpoints(document: Document) -> dict[str, str]:
    endpoints = document["endpoints"].items()
    return {name: value for name, value in endpoints if isinstance(value, str) and name != "metrics"}


def _addresses(document: Document) -> Iterator[Problem]:
    endpoints = _endpoints(document)
    for name, address in endpoints.items():
        tcp = _TCP.fullmatch(address)
        if not (tcp and 1 <= int(tcp["port"]) <= 65535) and not _NAMED.fullmatch(address):
            allowed = "tcp://HOST:PORT (port 1 to 65535), ipc://PATH or inproc://NAME"
            yield Problem(("endpoints", name), f"found {shown(address)}; allowed: {allowed}")
    for (first, one), (second, other) in itertools.combinations(endpoints.items(), 2):
        if _clash(one, other):
            yield Problem(("endpoints", second), f"found {shown(other)}; that is where endpoints.{first} is")


def _clash(one: str, other: str) -> bool:
    first, second = _TCP.fullmatch(one), _TCP.fullmatch(other)
    if not first or not second:
        return one == other
    hosts = {"localhost" if match["host"] in _LOOPBACK else match["host"] for match in (first, second)}
    return int(first["port"]) == int(second["port"]) and (len(hosts) == 1 or not hosts.isdisjoint(_ANY_HOST))


def _ports(document: Document) -> Iterator[Problem]:
    """The sessions' ports and the metrics ports, against each other and against the endpoints."""
    endpoints, sizes = document["endpoints"], list(_table(document, "models").values())
    taken = {int(tcp["port"]): name for name, value in _endpoints(document).items() if (tcp := _TCP.fullmatch(value))}
    sessions = endpoints.get("sessions")
    over_tcp = str(endpoints.get("backend")).startswith("tcp:")  # elsewhere the numbers are no ports
    data = _span(sessions)
    if data is not None and not 1 <= data.start < data.stop <= 65536:
        yield Problem(("endpoints", "sessions"), f"found {shown(sessions)}; allowed: [LOW, HIGH] within 1 to 65535")
    elif data is not None and over_tcp:
        yield from _session_ports(data, taken, sum(_count(size, "workers") * _count(size, "threads") for size in sizes))
    metrics = endpoints.get("metrics")
    if type(metrics) is int and 1 <= metrics <= 65535:
        own = range(metrics, metrics + _SERVICES + sum(_count(size, "workers") for size in sizes))
        yield from _metrics_ports(own, taken, data if data and over_tcp else range(0))


def _session_ports(data: range, taken: Mapping[int, str], count: int) -> Iterator[Problem]:
    if count > len(data):
        yield Problem(("endpoints", "sessions"), f"has {len(data)} ports; the sessions of the models need {count}")
    for port, name in taken.items():
        if port in data:
            yield Problem(("endpoints", "sessions"), f"holds port {port}, where endpoints.{name} is")


def _metrics_ports(own: range, taken: Mapping[int, str], data: range) -> Iterator[Problem]:
    if own[-1] > 65535:
        yield Problem(("endpoints", "metrics"), f"found {own[0]}; the line needs ports up to {own[-1]}, of 65535")
    clashes = [f"port {port} is endpoints.{name}" for port, name in taken.items() if port in own]
    if max(own.start, data.start) < min(own.stop, data.stop):
        clashes.append(f"endpoints.sessions are {data.start} to {data.stop - 1}")
    for clash in clashes:
        yield Problem(("endpoints", "metrics"), f"found {own[0]}; the line needs ports {own[0]} to {own[-1]}; {clash}")


def _span(sessions: object) -> range | None:
    """The ports from LOW to HIGH; None: not two whole numbers."""
    if not isinstance(sessions, list | tuple) or len(sessions) != 2 or any(type(port) is not int for port in sessions):
        return None
    return range(sessions[0], sessions[1] + 1)


def _count(size: Document, key: str) -> int:
    value = size.get(key, 1)
    return value if type(value) is int and 1 <= value <= 64 else 1


def _security(document: Document) -> Iterator[Problem]:
    """Keys: whose they are, each listed once, and one for each process that binds."""
    security = document.get("security")
    if not isinstance(security, Mapping) or not isinstance(security.get("keys"), Mapping):
        return
    keys, known = _table(security, "keys"), _table(document, "cameras")
    seen: dict[object, str] = {}
    for name, entry in keys.items():
        path = ("security", "keys", name)
        public, cameras = entry.get("public"), _words(entry.get("cameras"))
        if isinstance(public, str) and seen.setdefault(public, name) != name:
            yield Problem((*path, "public"), f"is the key of {seen[public]} too; each process has its own")
        for camera in cameras:
            if camera not in known:
                yield Problem((*path, "cameras"), _unknown(camera, known, "cameras"))
        if entry.get("role") == "camera" and not cameras:
            yield Problem((*path, "cameras"), "missing; needed: the names of the cameras that use this key")
        elif entry.get("role") != "camera" and cameras:
            yield Problem((*path, "cameras"), f"is for keys with the role camera; found {shown(entry.get('role'))}")
    roles = _words([entry.get("role") for entry in keys.values()])
    for role in ("broker", "join", "recorder"):
        if role not in roles:
            yield Problem(("security", "keys"), f"has no key with the role {role}, by which the others know it")
