"""The join's loop: messages of the broker in, one transaction per turn, then acknowledgements and the live stream out.

A turn takes all that waits (bounded), commits it at once, and sends only what is committed. When the ledger cannot be
written, nothing goes out: the broker repeats its items until a commit succeeds. Monitor frames go on meanwhile.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from typing import Any, Final

from broker import log, silence
from broker.catchup import CatchUp
from broker.curve import Credentials
from broker.gate import Gate
from broker.join import Joiner
from broker.join_doors import Context, JoinDoors
from broker.keeper import Keeper
from broker.ledger import Ledger, LedgerError, LedgerFull
from broker.line import Line
from broker.monitor import Monitors
from broker.notifier import Notifier
from broker.pace import Pace
from broker.retention import FOR_EVER, Keep, Retention
from broker.rulebook import Rulebook
from broker.silence import Silence
from broker.turn import Counts, Turn
from broker.wire import Closed, Jack, JoinHello

logger = log.get(__name__)

#: Seconds between two greetings of the broker.
HELLO_EVERY: Final = 1.0
#: Seconds to wait after a failed commit; what the broker sends meanwhile is left to its repeats.
RETRY_AFTER: Final = 0.25
#: Seconds after a failed commit in which the broker's repeats may still be on their way.
REPEATS_WITHIN: Final = 1.0
#: Longest wait for a message in seconds: `stop` is noticed within it.
LONGEST_WAIT: Final = 0.05
#: While at least so many expectations and answers a second come, turns begin at least so many seconds apart: under load
#: a transaction then takes in more, and costs less in all.
BUSY: Final = 1000.0
GATHER: Final = 0.008
#: Seconds between two log lines about the same trouble.
LOG_EVERY: Final = 1.0
#: Tickets, or frames, in one message to the broker: far below the limit of its header.
BATCH: Final = 4096
#: Upper edges in seconds of what `joined_within_total` counts.
EDGES: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class JoinServer:
    """Joins the answers of one line. `run` opens, serves and closes everything in the calling thread.

    `egress` is the broker's; `live` and `catchup` are bound here. `context`: to be shared by all who meet over inproc,
    by default an own one; a ZAP handler of yours in it is asked about our doors as well (domain `plain`). `line` judges
    until the broker tells of a line file. A broker that has not answered for `patience` seconds is told of in the log.
    `keep`: how much of the past the ledger keeps. `gate` asks consumers for a key, and takes the keys of the line file
    that the broker tells of; `credentials` are for the broker. `notifier`: who is told that the loop goes round.
    """

    def __init__(
        self,
        *,
        egress: str,
        live: str,
        catchup: str,
        ledger: Path | Ledger,
        context: Context | None = None,
        line: Line | None = None,
        patience: float = silence.LIMIT,
        keep: Keep = FOR_EVER,
        gate: Gate | None = None,
        credentials: Credentials | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.epoch = secrets.token_hex(6)
        self.counts: Counts = Counter()
        self.ready = threading.Event()
        self._ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger, keep)
        self._gate = gate
        self._doors = JoinDoors(egress, live, catchup, context, self.counts, gate, credentials)
        self._rulebook = Rulebook(line)
        self._monitors = Monitors(self._rulebook)
        self._joiner = Joiner(self._ledger, self._rulebook, self._monitors)
        self._catchup = CatchUp(self._ledger)
        self._keeper = Keeper(self._ledger, Retention(keep), self.counts)
        self._egress = egress
        self._silence = Silence(patience)
        self._notifier = notifier or Notifier()
        self._should_stop = threading.Event()
        self._within = [0] * (len(EDGES) + 1)
        self._commit_seconds = 0.0
        self._pace = Pace(GATHER, BUSY)
        self._commit_seconds_total = 0.0
        self._ledger_bytes = 0
        self._greet_at = 0.0
        self._log_at = 0.0
        self._stale = False  # the joiner's memory is not the ledger's
        self._retry_at = 0.0
        self._repeats_until = 0.0

    def stop(self) -> None:
        """Ask `run` to end; callable from any thread and from signal handlers."""
        self._should_stop.set()

    def run(self) -> None:
        """Serve until `stop`. Raises LedgerError when the ledger cannot be opened, zmq.ZMQError when an endpoint cannot
        be bound, GateError when the gate has failed."""
        with self._ledger, self._doors:
            self._joiner.load(time.monotonic(), time.time())
            logger.info("join open", ledger=str(self._ledger.path), ledger_id=self._ledger.ledger_id, epoch=self.epoch)
            self.ready.set()
            self._notifier.ready(time.monotonic())
            while not self._should_stop.is_set():
                self._turn()
            self._notifier.stopping()

    def gauges(self) -> dict[tuple[str, ...], float]:
        """Values of this moment; callable from any thread."""
        values = self._joiner.gauges()
        values["join_open_monitor_frames",] = len(self._monitors)
        values["join_catchups_waiting",] = len(self._catchup)
        values["ledger_bytes",] = self._ledger_bytes
        values |= self._keeper.gauges()
        values["ledger_commit_seconds",] = self._commit_seconds
        values["commit_seconds_total",] = self._commit_seconds_total
        values["unknown_lines_total",] = self._rulebook.unknown_total
        within = 0
        for edge, count in zip((*map(str, EDGES), "+Inf"), self._within, strict=True):
            within += count
            values["joined_within_total", edge] = within
        return values

    def samples(self) -> dict[tuple[str, ...], float]:
        """Counters and gauges, for `metrics.served`; callable from any thread."""
        denied = self._gate.samples() if self._gate is not None else {}
        return {**self.counts, **self.gauges(), **denied}

    # --- a turn ------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._doors.wait(self._patience())
        self._gather()
        messages = list(self._doors.received())
        now, wall = time.monotonic(), time.time()
        self._pace.turned(now, self._doors.items)
        self._notifier.alive(now)
        self._tell_silence(now)
        if now >= self._greet_at:
            self._greet(now)
        self._deliver(self._monitors.turn(messages, now, wall, self._ledger.ledger_id))
        if now >= self._retry_at:
            self._join(messages, now, wall)
        else:
            self.counts["deferred_total",] += len(messages)
        self._renew_keys()
        self._serve_consumers(now)
        self._forget()

    def _forget(self) -> None:
        """Delete a little of what is old, when nothing waits, it is late, or the ledger is at its limit."""
        now = time.monotonic()
        if not self._keeper.due(now) or (self._stale and not self._keeper.short):
            return
        try:
            self._joiner.forget(self._keeper.turn(now, time.time(), idle=not self._doors.wait(0)))
        except LedgerError as error:
            self.counts["ledger_failures_total",] += 1
            self._log(now, "the ledger cannot be deleted from", error)

    def _renew_keys(self) -> None:
        """The broker's newest line file says whose keys count."""
        if self._gate is None:
            return
        line = self._rulebook.newest
        self._gate.renew(line.security if line is not None else None)
        self._gate.tend()

    def _tell_silence(self, now: float) -> None:
        match self._silence.turn(self._doors.heard, now):
            case "warn":
                logger.warning("no broker answers", egress=self._egress)
            case "back":
                logger.info("the broker answers again", egress=self._egress)

    def _gather(self) -> None:
        """Under load let more come in; a line with time to spare never waits here, nor one that is behind."""
        pause = self._pace.pause(time.monotonic())
        if pause > 0.0 and self._doors.drained:
            time.sleep(pause)

    def _patience(self) -> int:
        """Milliseconds until something is to be done even if no message comes."""
        if len(self._catchup) or not self._doors.drained:
            return 0
        joiner = self._retry_at if self._stale else self._joiner.next_due()
        instants = (self._greet_at, joiner, self._monitors.next_due(), self._keeper.next_due())
        first = min(instant for instant in instants if instant is not None)
        return math.ceil(1000 * min(max(first - time.monotonic(), 0.0), LONGEST_WAIT))

    def _greet(self, now: float) -> None:
        """Say hello; where no broker is there to hear it, again at the next turn."""
        if self._doors.tell_broker(JoinHello(epoch=self.epoch)):
            self._greet_at = now + HELLO_EVERY
        else:
            self._doors.revive()
            self._greet_at = now + LONGEST_WAIT
        self._ledger_bytes = self._ledger.size()

    def _join(self, messages: list[Any], now: float, wall: float) -> None:
        """Take the messages, make that last, then let it out; when it cannot be made to last, nothing has happened."""
        drained = self._doors.drained and now >= self._repeats_until
        try:
            if self._stale:
                self._joiner.load(now, wall)
                self._stale = False
            turn = self._joiner.turn(messages, now, wall, drained)
            late = self._write(turn)
        except LedgerError as error:
            self._stale = True
            self._ledger_failed(now, error)
            return
        for model in late:
            self.counts["late_results_total", model] += 1
        self._deliver(turn)
        self._acknowledge(turn)

    def _write(self, turn: Turn) -> list[str]:
        started = time.perf_counter()
        late = self._ledger.commit(turn.rows)
        self._commit_seconds = time.perf_counter() - started
        self._commit_seconds_total += self._commit_seconds
        self.counts["commits_total",] += 1
        return late

    def _ledger_failed(self, now: float, error: LedgerError) -> None:
        self._retry_at = now + RETRY_AFTER
        self._repeats_until = now + RETRY_AFTER + REPEATS_WITHIN
        self.counts["ledger_failures_total",] += 1
        if isinstance(error, LedgerFull):
            self._keeper.disk_full(now, error.added)
        self._log(now, "the ledger cannot be written: nothing is accepted or published until it can", error)

    def _log(self, now: float, event: str, error: LedgerError) -> None:
        if now >= self._log_at:
            self._log_at = now + LOG_EVERY
            logger.error(event, error=str(error))

    def _deliver(self, turn: Turn) -> None:
        """Publish what the turn brought, and count it."""
        self._doors.publish(turn.live)
        self.counts.update(turn.counts)
        if turn.live:
            self.counts["published_total",] += len(turn.live)
        for seconds in turn.seconds:
            self._within[bisect_left(EDGES, seconds)] += 1

    def _acknowledge(self, turn: Turn) -> None:
        for epoch, tickets in turn.tickets.items():
            known = turn.known.get(epoch, [])
            while len(known) > BATCH:  # what is known of a frame must not come after its ticket
                self._doors.tell_broker(Jack(epoch=epoch, tickets=[], known=known[:BATCH]))
                known = known[BATCH:]
            for start in range(0, len(tickets), BATCH):
                self._doors.tell_broker(Jack(epoch=epoch, tickets=tickets[start : start + BATCH], known=known))
                known = []
        for start in range(0, len(turn.closings), BATCH):
            closings = turn.closings[start : start + BATCH]
            self._doors.tell_broker(Closed(epoch=self._joiner.broker, items=closings))

    def _serve_consumers(self, now: float) -> None:
        """Hear consumers, and do one bounded piece of work for one of them."""
        for identity, since in self._doors.questions():
            if not self._catchup.ask(identity, since, now):
                self.counts["refused_total", "catchup_full"] += 1
        try:
            answer = self._catchup.step()
        except LedgerError as error:
            self.counts["catchup_failures_total",] += 1
            self._log(now, "the ledger cannot be read: a consumer goes without an answer", error)
            return
        if answer is not None and not self._doors.answer(*answer):
            self._catchup.unread(answer[0], now)
