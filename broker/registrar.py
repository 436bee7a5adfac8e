"""Who becomes a session, and who is told that it is none: which READYs and BEATs are looked at, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from broker.backlog import Backlog
from broker.bucket import Bucket
from broker.frames import Counts
from broker.outbox import Outbox
from broker.roster import LARGEST_WINDOW, Roster, Session
from broker.throttle import Throttle
from broker.wire import PROTOCOL, Ready, Void

#: New sessions in a second, and at once: each costs a socket, a port and a millisecond. A READY beyond them has no
#: answer; workers repeat it.
REGISTRATIONS: Final = 50.0
REGISTRATIONS_AT_ONCE: Final = 64
#: Of those at once, so many for whoever comes first; then a peer has one, until it has connected to it.
FREE: Final = 32
#: Refused READYs in a second that are answered.
REFUSALS: Final = 200.0
#: The reasons for which a session is lost whose worker never came: it cost a port for nothing.
VAIN: Final = frozenset({"no_beat", "not_connected"})


class Registrar:
    """Puts sessions into the roster and the backlogs of their models. Pure: `now` in seconds is a parameter."""

    def __init__(
        self,
        roster: Roster,
        backlogs: Mapping[str, Backlog],
        outbox: Outbox,
        counts: Counts,
        session_limit: int,
    ) -> None:
        self.roster = roster
        self.backlogs = backlogs
        self.outbox = outbox
        self.counts = counts
        self.session_limit = session_limit
        self.throttle = Throttle()
        at_once = min(session_limit, REGISTRATIONS_AT_ONCE)
        self._registrations = Bucket(REGISTRATIONS, at_once)
        self._scarce = at_once - FREE
        self._refusals = Bucket(REFUSALS, session_limit)

    def ignores(self, now: float, identity: bytes) -> bool:
        """Whether not to look at what this peer sends, whatever it is; counted then."""
        if not self.throttle.is_shut(now, identity):
            return False
        self.counts["refused_total", "too_often"] += 1
        return True

    def hears(self, now: float, identity: bytes) -> bool:
        """Whether to decode a READY of this peer; counted if not, and a worker repeats it. Who sends too many of them,
        and has no session, is ignored for a while."""
        if self.throttle.take(now, identity):
            return True
        self.counts["refused_total", "too_often"] += 1
        if not self.roster.knows(identity):
            self.throttle.shut(now, identity)
        return False

    def heeds(self, now: float, identity: bytes) -> bool:
        """Whether to decode a BEAT of this peer; counted if not: it has no session, and was told so too often. Unlike
        with READYs the rest of it is heard, for a worker that lost its sessions registers anew."""
        if self.throttle.has_void(now, identity) or self.roster.knows(identity):
            return True
        self.counts["refused_total", "too_often"] += 1
        return False

    def ready(self, now: float, identity: bytes, message: Ready) -> None:
        """Register a session; READY is repeated until ENDPOINT arrives, so a known one is only told again."""
        known = self.roster.sessions.get(message.session)
        if known is not None:
            known.worker.identity = identity
            known.worker.beat_at = now
            self.outbox.opened.append(known)
            return
        reason = self._refusal(message)
        if not reason and (self._must_wait(now, identity) or not self._registrations.take(now)):
            self.counts["refused_total", "too_fast"] += 1
            return
        session = None if reason else self.roster.join(message, identity, now)
        if session is None:
            reason = reason or "name_taken"
            self.counts["refused_total", reason] += 1
            if self._refusals.take(now):
                self.outbox.to_workers.append((identity, Void(session=message.session, reason=reason)))
            return
        backlog = self.backlogs[message.model]
        backlog.sessions[session.id] = session
        backlog.classes = frozenset(message.classes)
        self.outbox.opened.append(session)

    def unknown(self, now: float, identity: bytes, session: str) -> None:
        """A BEAT names a session that is none: its peer is told, or it is counted. A worker names it again in 0.1 s."""
        if not self.throttle.take_void(now, identity):
            self.counts["unanswered_total", "beat"] += 1
            return
        reason = self.roster.over.get(session, "unknown_session")
        self.outbox.to_workers.append((identity, Void(session=session, reason=reason)))

    def connected(self, session: Session) -> None:
        """Its worker has come."""
        self.throttle.forgive(session.worker.identity)

    def lost(self, now: float, session: Session, reason: str) -> None:
        """A session that nobody came to makes its peer wait with the next one."""
        if reason in VAIN and not session.ready and not session.draining:
            self.throttle.punish(now, session.worker.identity, longer=reason == "not_connected")

    def _must_wait(self, now: float, identity: bytes) -> bool:
        """Whether this peer has a session that did not connect yet, and so no other one is opened for it now."""
        scarce = self._registrations.left(now) <= self._scarce
        return self.throttle.one_at_a_time(identity, scarce) and self.roster.knows(identity)

    def _refusal(self, message: Ready) -> str:
        if message.protocol != PROTOCOL:
            return "protocol"
        if message.session in self.roster.over:
            return self.roster.over[message.session]
        backlog = self.backlogs.get(message.model)
        if backlog is None:
            return "unknown_model"
        if backlog.wanted and message.sha256 != backlog.wanted and backlog.renewed():
            return "other_version"
        if len(self.roster.sessions) >= self.session_limit:
            return "too_many_sessions"
        bad = (
            message.max_batch < 1
            or message.depth < 1
            or not message.exec_timeout > 0
            or not 0 <= message.grant <= LARGEST_WINDOW
        )
        return "ready_invalid" if bad else ""
