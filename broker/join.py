"""The join: merges the answers of all models by frame key. Pure: messages and `now` in, a `Turn` out.

It asks the ledger for what it no longer remembers, and leaves writing, acknowledging and publishing to the server:
nothing of a turn goes out before its rows are committed. When the commit fails, `load` makes the memory equal to the
ledger again, and the broker's repeats bring in what was lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable
from typing import Any, Final

from broker.agenda import Agenda
from broker.assembly import Assembly
from broker.expected import BACKSTOP, NO_WORD, Expected
from broker.joined import Answer, readable
from broker.line import LineError
from broker.part import FORGET_AFTER
from broker.purged import Purged
from broker.register import Past, Register
from broker.rows import LateRow, ResultRow, SkipRow, Snapshot
from broker.rulebook import Rulebook
from broker.strays import Strays
from broker.stream import Stream, frame_topic
from broker.turn import Turn
from broker.wire import (
    Closing,
    Expect,
    Expectation,
    Key,
    Known,
    LineText,
    Note,
    Outcome,
    Result,
    Status,
    Suspect,
    Suspicion,
)

#: Seconds that the broker has to speak of a frame that was open when the join started.
CLAIM_WITHIN: Final = 5.0
#: Seconds that a frame past its deadline waits for answers that may be among the messages that wait themselves.
STRAGGLERS: Final = 1.0
#: What is given to the models of a frame that no broker speaks of any more.
ORPHANED: Final = Answer("failed", "orphaned")

#: Statuses that a worker's answer can have; what has another one is no answer that could be late.
_ANSWERS: Final = ("ok", "failed")


class Joiner:
    """Every inspect frame becomes one publication, every (frame, model) one terminal status. `load` before `turn`.

    `monitored`: keys of monitor frames, which are not the ledger's.
    """

    def __init__(self, past: Past, rulebook: Rulebook, monitored: Container[Key] = ()) -> None:
        self._past = past
        self._rulebook = rulebook
        self._monitored = monitored
        self._register = Register(past)
        self._stream = Stream()
        self._assembly = Assembly(rulebook, self._stream)
        self._deadlines = Agenda()
        self._unclaimed: set[Key] = set()  # open in the ledger when it was loaded, and not expected again since
        self._claimed_by: float | None = None
        self._strays = Strays()
        self._lines: set[str] = set()  # digests of the line files in the ledger
        #: Epoch of the broker that is heard; CLOSED is for it.
        self.broker = ""
        self._turn = Turn(0.0, 0.0)
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Expect: self._expect,
            Result: self._result,
            Suspect: self._suspect,
            Note: self._note,
            LineText: self._line_text,
        }

    def load(self, now: float, wall: float) -> None:
        """Take the ledger's word for everything. What was open here keeps its deadline, the rest must be claimed."""
        snapshot = self._past.snapshot(wall - FORGET_AFTER)
        before = self._register.load(snapshot, now, wall)
        self._stream.load(self._past.ledger_id, snapshot)
        self._load_lines(snapshot.lines)
        self._deadlines = Agenda()
        self._strays.clear()  # whose EXPECT may be among what was rolled back: their patience begins anew
        self._unclaimed = set(self._register.open)
        for key, frame in self._register.open.items():
            old = before.get(key)
            if old is not None and old.deadline is not None:
                frame.opened = old.opened
                self._claim(frame, old.deadline)
        self._load_parts(snapshot, now, wall)

    def turn(self, messages: Iterable[Any], now: float, wall: float, drained: bool = True) -> Turn:
        """Take the broker's messages, then do what is due.

        `drained`: no more messages wait. While some do, frames past their deadline wait `STRAGGLERS` seconds for what
        may be among them: a join that was slow does not call late what came in time.
        """
        turn = self._turn = Turn(now, wall)
        for message in messages:
            handler = self._handlers.get(type(message))
            if handler is None:
                turn.counts["refused_total", "unexpected"] += 1
                continue
            self._hear(message.epoch)
            handler(message)
        self._give_up_due(now if drained else now - STRAGGLERS)
        self._assembly.end_turn(turn)
        self._register.end_turn(turn)
        self._stream.end_turn(turn)
        return turn

    def forget(self, purged: Purged) -> None:
        """The ledger has deleted these frames and boots."""
        self._register.forget(purged)

    def next_due(self) -> float | None:
        """The instant at which `turn` has something to do without a message; None: never."""
        boots = self._register.boots.next_due()
        instants = (self._deadlines.next(), self._claimed_by, self._assembly.next_due(), boots)
        return min((instant for instant in instants if instant is not None), default=None)

    def gauges(self) -> dict[tuple[str, ...], float]:
        return {
            ("join_open_frames",): len(self._register.open),
            ("join_open_parts",): len(self._assembly),
            ("join_unclaimed_frames",): len(self._unclaimed),
        }

    def _load_lines(self, lines: list[tuple[str, str]]) -> None:
        self._lines = {digest for digest, _ in lines}
        for digest, text in lines:
            if digest not in self._rulebook:
                with contextlib.suppress(LineError):  # of an earlier version of this software: the newest judges
                    self._rulebook.recall(digest, text)

    def _load_parts(self, snapshot: Snapshot, now: float, wall: float) -> None:
        frames = dict(self._register.open)
        for part in snapshot.parts:
            for stored in part.frames if part.closed_at is None else ():
                if stored.key not in frames:
                    frames[stored.key] = self._register.restore(stored, now, wall)
        self._assembly.load(snapshot, frames, now, wall)

    # --- frames ------------------------------------------------------------------------------------------------------

    def _hear(self, epoch: str) -> None:
        if epoch != self.broker:
            self.broker = epoch
            self._strays.clear()
        self._register.boots.heard(epoch, self._turn.now)
        if self._unclaimed and self._claimed_by is None:
            self._claimed_by = self._turn.now + CLAIM_WITHIN

    def _expect(self, message: Expect) -> None:
        turn = self._turn
        tickets = turn.tickets[message.epoch]
        for item in message.items:
            if item.policy == "monitor":
                continue
            frame = self._register.find(item.key, turn)
            if frame is None and self._register.gone(item.key):
                self._gone(message.epoch, item)
                continue
            if frame is None:
                frame = self._register.accept(item, turn)
                if frame is None:
                    turn.counts["refused_total", "expect_invalid"] += 1
                    continue
                if frame.part is not None:
                    self._assembly.expect(turn, frame)
            elif frame.answers or frame.suspects:
                statuses = {model: answer.status for model, answer in frame.answers.items()}
                known = Known(ticket=item.ticket, statuses=statuses, suspects=dict(frame.suspects))
                turn.known[message.epoch].append(known)
            if frame.outcome is None:
                self._claim(frame, turn.now + item.budget)
            tickets.append(item.ticket)

    def _claim(self, frame: Expected, deadline: float) -> None:
        """The broker has the frame in hand; a deadline that was said never moves back."""
        if frame.deadline is None or deadline < frame.deadline:
            frame.deadline = deadline
            self._deadlines.set(frame.key, deadline + BACKSTOP)
            self._unclaimed.discard(frame.key)

    # --- answers -----------------------------------------------------------------------------------------------------

    def _result(self, message: Result) -> None:
        turn = self._turn
        tickets = turn.tickets[message.epoch]
        known = self._register.open
        for item in message.items:
            frame = known.get(item.key)
            if frame is None:
                if item.key in self._monitored:
                    continue
                frame = self._register.find(item.key, turn)
                if frame is None:
                    self._stray(message.epoch, item)
                    continue
            tickets.append(item.ticket)
            if item.model not in frame.plan.models:
                turn.counts["refused_total", "unasked"] += 1
            elif item.late or item.model in frame.answers:
                self._later(message.epoch, frame, item)
            else:
                self._answer(message.epoch, frame, item)

    def _answer(self, epoch: str, frame: Expected, item: Outcome) -> None:
        answer = readable(item)
        if answer.status != item.status:
            self._turn.known[epoch].append(Known(ticket=item.ticket, statuses={item.model: answer.status}))
        self._file(frame, item.model, answer)
        if frame.complete:
            self._publish(frame)

    def _file(self, frame: Expected, model: str, answer: Answer) -> None:
        frame.answers[model] = answer
        self._turn.rows.results.append(ResultRow(frame.row, model, *answer))
        self._turn.counts["results_total", model, answer.status] += 1

    def _later(self, epoch: str, frame: Expected, item: Outcome) -> None:
        """The first one stands, and the broker hears of it if it is another. Another answer goes on record; the same
        one, or one that is no answer, does not."""
        first = frame.answers.get(item.model)
        if first is not None and not item.late and first.status != item.status:
            self._turn.known[epoch].append(Known(ticket=item.ticket, statuses={item.model: first.status}))
        same = first is not None and not item.late and first.tries == item.tries and first.status in _ANSWERS
        if same or item.status not in _ANSWERS:
            self._turn.counts["repeated_results_total", item.model] += 1
            return
        self._turn.rows.late_results.append(
            LateRow(frame.row, item.model, item.tries, item.status, item.reason, item.body)
        )

    def _stray(self, epoch: str, item: Outcome | Suspicion) -> None:
        """No EXPECT of this frame was ever here. It may be on its way, so the broker is left to repeat for a while."""
        if self._register.gone(item.key):
            self._turn.tickets[epoch].append(item.ticket)
            self._turn.counts["refused_total", "deleted"] += 1
        elif self._strays.given_up(item.ticket, self._turn.now):
            self._turn.tickets[epoch].append(item.ticket)
            self._turn.counts["refused_total", "unasked"] += 1

    def _gone(self, epoch: str, item: Expectation) -> None:
        """The frame was published, and deleted since. All that is known of it is that it is over: its camera is told
        so, and no model looks again."""
        statuses: dict[str, Status] = dict.fromkeys(item.models, "dropped")
        self._turn.known[epoch].append(Known(ticket=item.ticket, statuses=statuses))
        self._turn.tickets[epoch].append(item.ticket)
        self._turn.counts["refused_total", "deleted"] += 1

    # --- closing -----------------------------------------------------------------------------------------------------

    def _publish(self, frame: Expected) -> None:
        turn, key = self._turn, frame.key
        joined = frame.compose(self._rulebook, turn.now, turn.wall)
        self._stream.publish(turn, frame_topic(key.camera), frame.row, joined.head, joined.body)
        turn.counts["joined_total", key.camera, joined.outcome] += 1
        turn.counts["verdicts_total", frame.plan.station, joined.verdict] += 1
        turn.seconds.append(turn.now - frame.opened)
        self._assembly.joined(turn, frame, joined.outcome)
        self._register.close(frame, joined.outcome, joined.verdict, turn)
        self._deadlines.drop(key)
        self._unclaimed.discard(key)

    def _give_up_due(self, now: float) -> None:
        for key in self._deadlines.due(now):
            self._give_up(self._register.open[key], NO_WORD)
        if self._claimed_by is not None and self._claimed_by <= now:
            self._claimed_by = None
            for key in sorted(self._unclaimed):
                self._give_up(self._register.open[key], ORPHANED)

    def _give_up(self, frame: Expected, answer: Answer) -> None:
        models = frame.unanswered()
        for model in models:
            self._file(frame, model, answer)
        self._turn.closings.append(Closing(key=frame.key, models=models))
        self._publish(frame)

    # --- what is recorded besides ------------------------------------------------------------------------------------

    def _suspect(self, message: Suspect) -> None:
        for item in message.items:
            frame = self._register.find(item.key, self._turn)
            if frame is None:
                self._stray(message.epoch, item)
                continue
            self._turn.tickets[message.epoch].append(item.ticket)
            if item.count > frame.suspects.get(item.model, 0):
                frame.suspects[item.model] = item.count
                self._turn.rows.suspects.append((frame.row, item.model, item.count))

    def _note(self, message: Note) -> None:
        turn = self._turn
        for note in message.boots:
            if self._register.boots.note(note):
                turn.tickets[message.epoch].append(note.ticket)
            else:
                turn.counts["refused_total", "note_invalid"] += 1
        for skip in message.skips:
            boot = self._register.boots.claim(skip.key)
            if boot is None:
                turn.counts["refused_total", "note_invalid"] += 1
                continue
            turn.tickets[message.epoch].append(skip.ticket)
            if self._register.gone(skip.key):
                continue
            boot.highest = max(boot.highest, skip.key.seq)
            turn.rows.skips.append(SkipRow(boot.first + skip.key.seq, skip.reason, turn.wall))

    def _line_text(self, message: LineText) -> None:
        try:
            self._rulebook.add(message.digest, message.text)
        except LineError:
            self._turn.counts["refused_total", "line_invalid"] += 1
            return
        if message.digest not in self._lines:
            self._lines.add(message.digest)
            self._turn.rows.lines.append((message.digest, message.text))
