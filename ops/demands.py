"""Checks of `gongwei doctor --line`: what a line file asks of this machine, and whether its rules can hold."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from broker import classes
from broker.classes import Unknown
from broker.line import Line
from broker.plural import counted
from clients.live import without_password
from ops import exposure, facts, inputs, ports, storage
from ops.doctor import Check
from ops.facts import Facts
from ops.machine import memory

#: What to do about a model that workers cannot load; their error says what is wrong with it.
_UNTRAINED: Final = "good for measuring a line; to look at parts put a trained model there"
_REFUSED: Final = "no worker can start with it: put a whole model there, or do what the error says"


def for_line(line: Line, path: Path) -> list[Check]:
    """What the line file at `path` asks of the machine."""
    folder = path.parent
    recorder, ledger = folder / line.recorder.folder, folder / line.ledger.path
    found = facts.of_line(line, folder)
    return [
        *ports.checks(line),
        *models(line, path, found),
        *sources(line, path),
        *rules(line, found),
        *exposure.checks(line, path),
        *storage.disk("ledger", ledger.parent),
        storage.retention(line.ledger, ledger, time.time()),
        storage.space("pictures", recorder, line.recorder.disk << 20),
        memory(line.limits.queue_bytes + (line.recorder.memory << 20)),
    ]


def models(line: Line, path: Path, found: Mapping[str, Facts]) -> Iterator[Check]:
    """The model files that `gongwei up` would load; `found`: what workers make of them."""
    for name, model in line.models.items():
        label, told = f"model {name}", found.get(name, Facts())
        if not model.file:
            yield Check(name=label, state="ok", found=_elsewhere(name))
        elif problem := inputs.model_problem(name, model, path):
            advice = f"correct models.{name}.file in the line file, or put the file there"
            yield Check(name=label, state="failed", found=problem, advice=advice)
        elif told.refused:
            yield Check(name=label, state="failed", found=told.refused, advice=_REFUSED)
        elif told.unread:
            yield Check(name=label, state="warning", found=told.unread, advice=f"try it: workers check {model.file}")
        elif told.random:
            said = f"{model.file}: random weights: no verdict that rests on it is ok"
            yield Check(name=label, state="warning", found=said, advice=_UNTRAINED)
        else:
            yield Check(
                name=label,
                state="ok",
                found=f"{model.file}: {told.task}, {counted(len(told.names), 'class')}",
            )


def _elsewhere(name: str) -> str:
    """Of a model without a file; one that lies here all the same may have been meant."""
    found = "no file: its workers are started elsewhere"
    return f'{found} (file = "{name}" runs the one that `workers models` lists)' if inputs.here(name) else found


def sources(line: Line, path: Path) -> Iterator[Check]:
    """Where the cameras that `gongwei up` starts take their pictures; a live one is not asked for any."""
    for name, entry in line.cameras.items():
        if problem := inputs.source_problem(entry, path):
            advice = f"correct cameras.{name}.source in the line file, or put the file there"
            yield Check(name=f"camera {name}", state="failed", found=problem, advice=advice)
        else:
            found = without_password(entry.source) or "no source: it is started elsewhere"
            yield Check(name=f"camera {name}", state="ok", found=found)


def rules(line: Line, found: Mapping[str, Facts]) -> Iterator[Check]:
    """The classes that the stations' rules name, against those that the models know."""
    names = facts.class_names(found)
    unknown = list(classes.unknown(line, names))
    for station, entry in line.stations.items():
        if entry.rules is None:
            continue
        label = f"rules of {station}"
        if not any(model in names for model in classes.seen_by(line, station)):
            yield Check(name=label, state="ok", found="not compared: the classes of its models are not known here")
        elif not any(one.station == station for one in unknown):
            yield Check(name=label, state="ok", found="every class is known to a model of its cameras")
        yield from (rule_check(label, one) for one in unknown if one.station == station)


def rule_check(label: str, one: Unknown) -> Check:
    """A class that no model knows: a failure, unless a model may know it whose classes are not known here."""
    if one.doubtful:
        found = f"{one.text}; whether {' or '.join(one.doubtful)} does is not known here"
        return Check(name=label, state="warning", found=found, advice="compare it with the names of that model")
    advice = "correct it in the line file: what no model knows is never seen"
    return Check(name=label, state="failed", found=one.text, advice=advice)
