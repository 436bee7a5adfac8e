"""Any order of expecting, answering, deleting, failing and starting anew, against a model of what must remain."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.catchup import CatchUp
from broker.part import FORGET_AFTER
from broker.report import report
from broker.retention import Delete, Tidy
from broker.wire import BootNote, Gone, Key, Note, Page, Since, SkipNote
from tests.join_world import EPOCH, WALL, Bench, Items

BOOTS = ("a0a0a0a0a0a0", "b0b0b0b0b0b0")
#: Camera, part: two cameras whose frames are parts, and one that has none.
CAMERAS = ("lone", "top", "side")
SEQS = st.integers(0, 12)


class Retained(RuleBasedStateMachine):
    """The model: which frames were ever accepted, which are published in which order, how many of them are deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.bench = Bench(self.folder / "ledger.sqlite")
        self.items = Items()
        self.bench.turn(self.items.line())
        self.accepted: set[Key] = set()
        self.skipped: set[Key] = set()
        self.stream: list[tuple[int, str, int | None, Any]] = []  # seq, topic, previous, key or None
        self.deleted: list[Key] = []

    def teardown(self) -> None:
        self.bench.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def turn(self, *messages: Any, after: float = 0.0) -> Any:
        before = len(self.bench.published)
        turn = self.bench.turn(*messages, after=after)
        for topic, header, body in self.bench.published[before:]:
            key = Key(body["camera"], body["boot"], body["seq"]) if "camera" in body else None
            assert header.seq is not None
            self.stream.append((header.seq, topic, header.previous, key))
        return turn

    def closed(self) -> set[Key]:
        return {key for _, _, _, key in self.stream if key is not None}

    @rule(camera=st.sampled_from(CAMERAS), boot=st.sampled_from(BOOTS), seq=SEQS, answered=st.booleans())
    def expect(self, camera: str, boot: str, seq: int, answered: bool) -> None:
        key = Key(camera, boot, seq)
        part = f"p{seq // 3}" if camera != "lone" else None
        item = self.items.expectation(key, part=part)
        known = key in self.accepted
        turn = self.turn(self.items.expect(item))
        assert item.ticket in turn.tickets[EPOCH]
        assert known or not turn.known[EPOCH], "what was never accepted is new"
        self.accepted.add(key)
        if key in self.deleted:
            assert [each.statuses for each in turn.known[EPOCH]] in ([{"alpha": "dropped"}], [{"alpha": "ok"}])
        if answered:
            self.turn(self.items.result(self.items.outcome(key)))

    @precondition(lambda self: self.deleted)
    @rule(data=st.data())
    def expect_again(self, data: st.DataObject) -> None:
        """A camera that was away sends a frame that is gone."""
        self.expect(*data.draw(st.sampled_from(self.deleted)), True)

    @rule(camera=st.sampled_from(CAMERAS), boot=st.sampled_from(BOOTS), seq=SEQS, late=st.booleans())
    def answer(self, camera: str, boot: str, seq: int, late: bool) -> None:
        self.turn(self.items.result(self.items.outcome(Key(camera, boot, seq), late=late, tries=2)))

    @rule(boot=st.sampled_from(BOOTS), seq=st.integers(20, 40))
    def skip(self, boot: str, seq: int) -> None:
        key = Key("lone", boot, seq)
        note = SkipNote(ticket=self.items.next(), key=key, reason="no_credit")
        assert note.ticket in self.turn(Note(epoch=EPOCH, skips=[note])).tickets[EPOCH]
        self.skipped.add(key)

    @rule(boot=st.sampled_from(BOOTS))
    def above_the_skips(self, boot: str) -> None:
        """A frame that lies behind them, so that they go with it."""
        self.expect("lone", boot, 50, True)

    @rule(seconds=st.sampled_from([0.1, 3.0, 7.0]))
    def wait(self, seconds: float) -> None:
        self.turn(after=seconds)

    @rule(few=st.booleans())
    def delete_by_size(self, few: bool) -> None:
        """`few`: one publication, for the time is up after it."""
        self._delete(Delete(math.inf, 0.0 if few else 60.0))

    @rule(age=st.sampled_from([0.0, 1.0, 5.0]))
    def delete_by_age(self, age: float) -> None:
        self._delete(Delete(WALL + self.bench.now - age, 60.0))

    @rule()
    def tidy(self) -> None:
        self.bench.ledger.step(Tidy(WALL + self.bench.now - FORGET_AFTER))

    @rule()
    def restart(self) -> None:
        self.bench.restart()
        self.turn(self.items.line())

    @rule()
    def commit_fails(self) -> None:
        """A turn that is not committed leaves no trace."""
        key = Key("lone", BOOTS[0], 11)
        self.bench.joiner.turn([self.items.expect(self.items.expectation(key))], self.bench.now, WALL + self.bench.now)
        self.bench.joiner.load(self.bench.now, WALL + self.bench.now)

    @precondition(lambda self: self.stream)
    @rule(data=st.data())
    def catch_up(self, data: st.DataObject) -> None:
        after = data.draw(st.integers(0, self.stream[-1][0]))
        ledger = self.bench.ledger
        catchup = CatchUp(ledger)
        catchup.ask(b"me", Since(ledger_id=ledger.ledger_id, seq=after))
        found = catchup.step()
        assert found is not None
        oldest = ledger.oldest_seq()
        if after < oldest - 1:
            assert found[1] == Gone(ledger_id=ledger.ledger_id, oldest=oldest)
        elif after < self.stream[-1][0]:
            assert isinstance(found[1], Page)
            expected = [(seq, topic, previous) for seq, topic, previous, _ in self.stream if seq > after]
            assert [(one.seq, one.topic, one.previous) for one in found[1].items] == expected[: len(found[1].items)]

    def _delete(self, step: Delete) -> None:
        oldest = self.bench.ledger.oldest_seq()
        purged = self.bench.ledger.step(step)
        self.bench.joiner.forget(purged)
        count = purged.rows["published", "", ""]
        gone = [key for seq, _, _, key in self.stream if oldest <= seq < oldest + count and key is not None]
        assert purged.keys == gone, "the oldest, in their order, and no other"
        self.deleted += purged.keys

    @invariant()
    def accounts_are_whole(self) -> None:
        counts = report(self.bench.path)
        closed = self.closed()
        assert counts["accepted"] == len(self.accepted)
        assert counts["joined"] == len(closed) == len([key for *_, key in self.stream if key is not None])
        assert counts["open"] == len(self.accepted - closed)
        assert counts["frames"] == len(self.accepted) - len(self.deleted)
        assert counts["published"] == len(self.stream) and counts["newest_seq"] == len(self.stream)
        assert sum(counts["skips"].values()) == len(self.skipped)
        assert counts["duplicates"] == counts["unpublished"] == 0
        assert sum(sum(each.values()) for each in counts["statuses"].values()) == counts["joined"]
        assert counts["late_results"] >= counts["deleted"].get("late_results", 0)

    @invariant()
    def chains_are_whole(self) -> None:
        last: dict[str, int] = {}
        for number, (seq, topic, previous, _) in enumerate(self.stream, 1):
            assert (seq, previous) == (number, last.get(topic))
            last[topic] = seq


TestRetained = Retained.TestCase
TestRetained.settings = settings(max_examples=40, stateful_step_count=40)


def test_an_ended_boot_that_is_gone_comes_to_nothing(tmp_path: Path) -> None:
    """Its note again makes a row, and no frame."""
    bench, items = Bench(tmp_path / "ledger.sqlite"), Items()
    note = [BootNote(ticket=items.next(), camera="lone", boot=boot, state="ended", last_seq=0) for boot in BOOTS]
    try:
        for boot in BOOTS:
            key = Key("lone", boot, 0)
            bench.turn(items.line(), items.expect(items.expectation(key)), items.result(items.outcome(key)))
        bench.turn(Note(epoch=EPOCH, boots=note))
        bench.ledger.step(Delete(math.inf, 60.0))
        bench.ledger.step(Tidy(0.0))
        assert report(bench.path)["deleted"]["boots"] == 1
        bench.restart()
        turn = bench.turn(Note(epoch=EPOCH, boots=note[:1]))
        assert turn.tickets[EPOCH] == [note[0].ticket]
        counts = report(bench.path)
        assert (counts["accepted"], counts["joined"], counts["frames"]) == (2, 2, 0)
    finally:
        bench.close()
