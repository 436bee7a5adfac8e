"""The broker process: sockets on one side, the router's decisions on the other, one poll loop between them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil
import zmq

from broker import gauges, log
from broker import line as line_file
from broker.courier import Courier
from broker.doors import Doors
from broker.gate import Gate
from broker.in_force import InForce
from broker.line import Line
from broker.log_budget import LogBudget
from broker.memory import Memory
from broker.notifier import Notifier
from broker.pace import Pace
from broker.quarantine import Quarantine
from broker.reception import Reception
from broker.roster import FOR_GOOD, Session
from broker.routing import Router
from broker.troubles import Troubles, present

logger = log.get(__name__)

#: Longest wait for a message, in seconds: `stop` and silent peers are noticed within it.
LONGEST_WAIT: Final = 0.05
#: While at least so many messages a second come, turns begin at least so many seconds apart: under load a turn costs
#: much less for each message if it takes in several.
BUSY: Final = 2000.0
GATHER: Final = 0.001
#: Seconds between two looks for what an operator must hear of.
LOOK_EVERY: Final = 1.0
#: Reasons for which sessions end that are no trouble.
ORDERLY: Final = FOR_GOOD | {"drained", "left_out"}
#: Longest wait while a session's data socket has no peer yet, in seconds.
OPENING_WAIT: Final = 0.002


class BrokerServer:
    """Routes frames for one line. `run` opens, serves and closes everything in the calling thread.

    `context`: to be shared by all who meet over inproc, by default an own one; a ZAP handler of yours in it is asked
    about our doors as well (domain `plain`). `text`: the line file's text as the join shall get it; made from `line` by
    default. `versions`: model -> sha256 of the version that is wanted. `gate`: asks everybody for a key (CURVE).
    `notifier`: who is told that the loop goes round.
    """

    def __init__(
        self,
        line: Line,
        *,
        text: str | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        quarantine: Path | None = None,
        versions: Mapping[str, str] = MappingProxyType({}),
        gate: Gate | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        text = line_file.to_toml(line) if text is None else text
        self.epoch = secrets.token_hex(6)
        self.router = Router(line, line_file.digest(text), self.epoch, time.monotonic())
        self.router.dispatcher.want(versions)
        self.gate = gate
        self.in_force = InForce(line, text, self.router, gate)
        self.doors = Doors(line, context, gate)
        self.courier = Courier(self.doors, self.router)
        self._log_budget = LogBudget(self.router.counts)
        self.reception = Reception(self.doors, self.router, self.courier, self.in_force, self._log_budget, gate)
        self.quarantine = Quarantine(quarantine)
        self.ready = threading.Event()
        self._pace = Pace(GATHER, BUSY)
        self._troubles = Troubles()
        self._look_at = 0.0
        self._process = psutil.Process()
        self._notifier = notifier or Notifier()
        self._should_stop = threading.Event()

    @property
    def line(self) -> Line:
        """As of the last reload."""
        return self.in_force.line

    def stop(self) -> None:
        """Ask `run` to end; callable from any thread and from signal handlers."""
        self._should_stop.set()

    def run(self) -> None:
        """Serve until `stop`. Raises zmq.ZMQError when an endpoint can not be bound, GateError when the gate fails."""
        try:
            self.doors.open()
            logger.info(
                "broker open", frontend=self.line.endpoints.frontend, epoch=self.epoch, models=list(self.line.models)
            )
            self._memory = Memory(self._resident(), self.line.limits.queue_bytes)
            self.ready.set()
            self._notifier.ready(time.monotonic())
            while not self._should_stop.is_set():
                self._turn()
            self._notifier.stopping()
        finally:
            self.quarantine.close()
            self.doors.close()

    def _turn(self) -> None:
        self._gather()
        active = self.doors.poll(self._wait())
        began = time.monotonic()
        messages = self.reception.take(active)
        for session in self.doors.disconnected(active):
            self.router.lose(time.monotonic(), session, "disconnected")
        for session in self.doors.just_connected():
            self.router.connected(session)
        self.router.end_turn(time.monotonic())
        self._carry_out()
        if self.gate is not None:
            self.gate.tend()
        self._pace.turned(began, messages)
        self._notifier.alive(began)
        if began >= self._look_at:
            self._look_at = began + LOOK_EVERY
            self._complain(began)

    def _complain(self, now: float) -> None:
        troubles = (*present(self.router, now), *self._memory.troubles(self._resident()))
        for trouble in self._troubles.due(now, troubles):
            logger.warning(trouble.what, **dict(trouble.about))

    def _resident(self) -> int:
        return int(self._process.memory_info().rss)

    def _gather(self) -> None:
        """Under load let messages gather; a line with time never waits here."""
        pause = self._pace.pause(time.monotonic())
        if pause > 0.0:
            time.sleep(pause)

    def _wait(self) -> float:
        """Seconds until something is to be done even if no message comes."""
        if self.doors.opening or self.doors.doubtful or self.courier.stalled:
            return OPENING_WAIT
        now = time.monotonic()
        deadline = self.router.next_deadline(now + LONGEST_WAIT)
        return LONGEST_WAIT if deadline is None else max(0.0, deadline - now)

    def samples(self) -> dict[tuple[str, ...], float]:
        """Counters and gauges, for `metrics.served`; callable from any thread."""
        return {**gauges.samples(self.router), **(self.gate.samples() if self.gate is not None else {})}

    # --- acting ------------------------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        outbox = self.router.outbox
        for session in outbox.opened:
            self._open_session(session)
        for session in outbox.closed:
            self.doors.close_session(session)
            self._tell_closed(session)
        for model, header, payload in outbox.quarantine:
            self.quarantine.keep(model, header, payload)
        self.courier.deliver(self.in_force.text, self.in_force.digest)
        outbox.clear()
        self.reception.ready_from.clear()

    def _tell_closed(self, session: Session) -> None:
        if self._log_budget.may_log():
            say = logger.info if session.lost_as in ORDERLY else logger.warning
            worker = session.worker.name
            say("session closed", id=session.id, model=session.model, worker=worker, reason=session.lost_as)

    def _open_session(self, session: Session) -> None:
        try:
            port = self.doors.open_session(session, self.reception.ready_from.get(session.id, ""))
        except zmq.ZMQError as error:
            if self._log_budget.may_log():
                ports = self.line.endpoints.sessions
                logger.error("no port is free for a session", session=session.id, error=str(error), sessions=ports)
            self.router.counts["refused_total", "no_port"] += 1
            self.router.lose(time.monotonic(), session, "no_port")
            return
        self.router.bound(session, port)
