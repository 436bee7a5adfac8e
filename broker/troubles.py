"""What an operator must hear of while a line runs, though nothing fails: nobody to join, nobody to look, a rule that
can never fire. Pure: the router's state and `now` in, words for the log out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from broker import classes
from broker.line import Line
from broker.routing import Router

#: Seconds that a trouble must last before it is told: starts and restarts are none.
AFTER: Final = 3.0
#: Seconds from one telling to the next while it lasts.
EVERY: Final = 30.0
#: Seconds after which what happened once is over.
LATELY: Final = 2.0


class Trouble(NamedTuple):
    """`what` went wrong, and with which things: pairs of name and value."""

    what: str
    about: tuple[tuple[str, str], ...] = ()


class Troubles:
    """Which troubles are to be told now. Bounded by what there is to go wrong: cameras, models, stations, classes in
    rules."""

    def __init__(self) -> None:
        self._tell_at: dict[Trouble, float] = {}

    def due(self, now: float, present: Iterable[Trouble]) -> list[Trouble]:
        """Those of `present` that have lasted, and were not told lately. What is not present any more is forgotten."""
        self._tell_at = {trouble: self._tell_at.get(trouble, now + AFTER) for trouble in present}
        due = [trouble for trouble, at in self._tell_at.items() if at <= now]
        for trouble in due:
            self._tell_at[trouble] = now + EVERY
        return due


def present(router: Router, now: float) -> Iterator[Trouble]:
    """The troubles of this moment; only cameras that are there can suffer from them."""
    for publisher in router.admission.publishers.values():
        if now - publisher.connection.stale_at < LATELY:
            yield Trouble(
                "this camera greets on two connections at once: the older one is not heeded (one socket for one boot)",
                (("camera", publisher.name),),
            )
    cameras = [name for name in router.admission.publishers if name in router.line.cameras]
    if cameras and router.egress.join_epoch is None:
        yield Trouble("no join is connected: no inspect frame is accepted until one is (broker join)")
    needed = dict.fromkeys(model for camera in cameras for model in router.line.route(camera)[0])
    for model in needed:
        if not router.dispatcher.backlog(model).sessions:
            yield Trouble("no worker serves this model: its frames expire (workers start --model)", (("model", model),))
    for model in needed:
        if any(session.random for session in router.dispatcher.backlog(model).sessions.values()):
            yield Trouble(
                "the weights of this model are random: no verdict that rests on it is ok", (("model", model),)
            )
    told = {name: backlog.classes for name, backlog in router.dispatcher.backlogs.items() if backlog.classes}
    yield from idle_rules(router.line, told)


def idle_rules(line: Line, names: Mapping[str, Collection[str]]) -> Iterator[Trouble]:
    """Class names in rules that no model of their station has: an NG class never fires, and a part that it should stop
    passes; of one that is required there are never enough. Nothing is said while a model of the station has not told
    its classes."""
    for one in classes.unknown(line, names):
        if not one.doubtful:
            about = (("station", one.station), ("rule", one.key), ("class", one.name), ("models", " ".join(one.models)))
            then = "no frame is ever ok" if one.key == "required" else "it can never fire"
            yield Trouble(f"a rule names a class that no model of its station knows: {then}", about)
