"""A session's standing with the broker: pure, messages and `now` in, what to do out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from enum import Enum
from itertools import islice
from typing import Final

from broker.wire import CLASS_NAME_LIMIT, MAX_CLASSES
from workers.errors import RefusedError

#: Seconds between two READY until ENDPOINT comes.
REPEAT: Final = 0.25
#: The same while the broker has no use for the session (its line does not name the model, it is full).
UNWANTED: Final = 2.0
#: How long a name may be taken: a predecessor that was killed is missed after 0.35 s.
TAKEN: Final = 1.5
#: Reasons of VOID that no repetition will change.
FINAL_REASONS: Final = frozenset({"protocol", "ready_invalid"})
#: Reasons of VOID that only an operator can change.
UNWANTED_REASONS: Final = frozenset({"unknown_model", "too_many_sessions", "other_version"})
#: Reasons of VOID after which the session is over for good.
ENDING_REASONS: Final = frozenset({"stopped", "replaced"})


class State(Enum):
    """`WAITING` for ENDPOINT; `OPEN`: jobs come; `DRAINING`: DRAIN was asked for; `ENDED`: no more jobs, for good."""

    WAITING = "waiting"
    OPEN = "open"
    DRAINING = "draining"
    ENDED = "ended"


def new_session() -> str:
    """A random session id: 12 hex digits."""
    return secrets.token_hex(6)


def class_names(names: Iterable[str]) -> list[str]:
    """What READY says of a model's classes: the first MAX_CLASSES names, the first CLASS_NAME_LIMIT characters of each.

    What a file's metadata may hold and UTF-8 cannot becomes `?`.
    """
    return [name[:CLASS_NAME_LIMIT].encode(errors="replace").decode() for name in islice(names, MAX_CLASSES)]


class Registration:
    """One model thread's registration; a new one, with a new id, after every VOID."""

    def __init__(self, model: str, new_id: Callable[[], str] = new_session) -> None:
        self.model = model
        self.state = State.WAITING
        self.session = new_id()
        #: READY was sent with this id, so the broker may know it.
        self.announced = False
        self.port: int | None = None
        self._new_id = new_id
        self._due = 0.0
        self._taken_since: float | None = None

    def ready_due(self, now: float) -> bool:
        """READY is to be sent now."""
        return self.state is State.WAITING and now >= self._due

    def ready_sent(self, now: float) -> None:
        """READY is on its way; it is repeated until ENDPOINT comes."""
        self._due = now + REPEAT
        self.announced = True

    def opened(self, session: str, port: int) -> bool:
        """ENDPOINT came; True when a data socket is to be connected to a new `port`."""
        if session != self.session or self.state not in (State.WAITING, State.OPEN) or port == self.port:
            return False
        self.state, self.port = State.OPEN, port
        self._taken_since = None
        return True

    def voided(self, session: str, reason: str, now: float) -> bool:
        """VOID came; True when the data socket is to be closed. Raises RefusedError when no repetition can help."""
        if session != self.session or self.state is State.ENDED:
            return False
        if reason in FINAL_REASONS:
            raise RefusedError(_refusal(self.model, reason))
        if reason == "name_taken":
            self._name_taken(now)
        if self.state is State.DRAINING or reason in ENDING_REASONS:
            self.state, self.announced = State.ENDED, False
            return True
        self._renew(now, reason)
        return True

    def drain(self) -> None:
        """No more jobs are wanted."""
        if self.state is State.OPEN:
            self.state = State.DRAINING
        elif self.state is State.WAITING:
            self.state = State.ENDED

    def end(self) -> None:
        """Whatever the broker says: over."""
        self.state = State.ENDED

    def _renew(self, now: float, reason: str) -> None:
        # A session that was open starts again at once; one that is turned away keeps its pace.
        if reason in UNWANTED_REASONS:
            self._due = now + UNWANTED
        elif self.state is State.OPEN:
            self._due = now
        self.state, self.port, self.announced = State.WAITING, None, False
        self.session = self._new_id()

    def _name_taken(self, now: float) -> None:
        if self._taken_since is None:
            self._taken_since = now
        elif now - self._taken_since > TAKEN:
            raise RefusedError(
                "another live worker has this worker's name; give each its own with --name, or end the other one"
            )


def _refusal(model: str, reason: str) -> str:
    if reason == "protocol":
        return "the broker speaks another version of the protocol; install the same gongwei version on both sides"
    return f"the broker refused model {model}: {reason}"
