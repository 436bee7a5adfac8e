"""Retention: what is old goes, oldest first, counted; what is open stays, and what went is never taken for new."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from broker import schema
from broker.__main__ import app
from broker.catchup import CatchUp
from broker.gone import merged
from broker.instants import AHEAD
from broker.keeper import Keeper
from broker.ledger import Ledger
from broker.part import FORGET_AFTER
from broker.report import report
from broker.retention import (
    CUT_FOR,
    FOR_EVER,
    FULL_FOR,
    LATE_SHARE,
    LEAST_BYTES,
    LOOK_EVERY,
    MOST_ROWS,
    STEP_PAGES,
    TIDY_EVERY,
    TIDY_WITHIN,
    Delete,
    Holding,
    Keep,
    Retention,
    Shrink,
    Tidy,
    keep,
)
from broker.rows import SEQ_BITS, BootRow, FrameRow, PlanRow, PublishedRow, ResultRow, Rows, SkipRow, TopicRow
from broker.turn import Counts
from broker.wire import BootNote, End, Gone, Key, Note, Page, Since, SkipNote, Suspect, Suspicion
from ops.report import Consumed, Told, reconcile
from tests.join_world import BOOT, EPOCH, WALL, Bench, Items

MB = 1 << 20
ALL = Delete(math.inf, 60.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "ledger.sqlite")
    yield bench
    bench.close()


def lone(seq: int) -> Key:
    return Key("lone", BOOT, seq)


def joined(bench: Bench, items: Items, *keys: Key, part: str | None = None) -> None:
    """Frames that are expected, answered and published in one turn."""
    bench.turn(
        items.line(),
        items.expect(*(items.expectation(key, part=part) for key in keys)),
        items.result(*(items.outcome(key) for key in keys)),
    )


def delete(bench: Bench, step: Delete | Tidy = ALL) -> list[Key]:
    """Do a step until there is nothing more to do; the frames that were deleted."""
    keys: list[Key] = []
    while purged := bench.ledger.step(step):
        bench.joiner.forget(purged)
        keys += purged.keys
    return keys


# --- runs of seqs ----------------------------------------------------------------------------------------------------

runs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)).map(lambda run: (run[0], run[0] + run[1])), max_size=8)


def inside(found: list[tuple[int, int]]) -> set[int]:
    return {seq for first, last in found for seq in range(first, last + 1)}


@given(runs, st.lists(st.integers(0, 60), max_size=20), st.integers(1, 6))
def test_runs_hold_what_was_put_in_and_stay_few(before: list[tuple[int, int]], seqs: list[int], limit: int) -> None:
    exact = merged(before, seqs, 1000)
    assert inside(exact) == inside(before) | set(seqs)
    assert all(one[1] + 1 < two[0] for one, two in pairwise(exact))
    few = merged(before, seqs, limit)
    assert len(few) <= limit and inside(few) >= inside(exact)
    assert few[1:] == exact[len(exact) - len(few) + 1 :], "only what is oldest is taken together"


# --- decisions -------------------------------------------------------------------------------------------------------


def holding(used: int = 0, free: int = 0, oldest: float | None = WALL, shrinks: bool = True) -> Holding:
    """`used`, `free`: MB."""
    return Holding((used + free) * MB // 4096, free * MB // 4096, 4096, shrinks, oldest)


def tidy(wall: float, seconds: float = 0.0) -> Tidy:
    return Tidy(wall - FORGET_AFTER, wall - seconds - CUT_FOR, wall)


def old(before: float, wall: float) -> Delete:
    return Delete(before, closed_before=wall - FORGET_AFTER, latest=wall + AHEAD)


def test_without_a_limit_nothing_is_ever_done() -> None:
    retention = Retention(FOR_EVER)
    assert not retention.due(1e9) and retention.next_due() is None
    assert not retention.disk_full(0.0, holding(100))
    assert keep(0.0, 0.0).for_ever and keep(1.5, 2.0) == Keep(129600.0, 2 << 30)


@pytest.mark.parametrize("gb", [0.01, 0.03124])
def test_less_than_the_least_is_refused_and_not_raised_in_silence(gb: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"found {gb}; the least is 0\.03125"):
        keep(0.0, gb)
    ledger = tmp_path / "ledger.sqlite"
    told = CliRunner().invoke(app, ["join", "--ledger", str(ledger), "--keep-gb", str(gb)])
    assert told.exit_code == 2 and f"--keep-gb: found {gb}; the least is 0.03125" in told.output
    assert not ledger.exists()


def test_what_is_too_old_is_deleted_when_nothing_waits() -> None:
    retention = Retention(Keep(seconds=100.0))
    assert retention.decide(0.0, WALL + 101, holding(1 << 20), idle=False) is None
    assert retention.decide(0.0, WALL + 101, holding(), idle=True) == old(WALL + 1, WALL + 101)
    assert retention.decide(0.0, WALL + 99, holding(), idle=True) == tidy(WALL + 99, 100.0)
    assert retention.decide(0.0, WALL + 101, holding(oldest=None), idle=True) is None


def test_the_limit_is_held_even_while_messages_wait() -> None:
    retention = Retention(Keep(bytes=100 * MB))
    decided = {
        used: [retention.decide(0.0, WALL, holding(used), idle) for idle in (True, False)] for used in (60, 70, 74)
    }
    assert decided[60][0] == tidy(WALL) and decided[60][1] is None
    assert decided[70] == [old(math.inf, WALL), None]
    assert decided[74] == [old(math.inf, WALL), old(math.inf, WALL)]


def test_a_file_that_is_larger_than_its_limit_gives_free_pages_back() -> None:
    retention = Retention(Keep(bytes=100 * MB))
    retention.decide(0.0, WALL, holding(), idle=True)  # which tidies
    assert retention.decide(0.0, WALL, holding(10, 90), idle=True) == Shrink(STEP_PAGES)
    assert retention.decide(0.0, WALL, holding(10, 60), idle=True) is None
    assert retention.decide(0.0, WALL, holding(10, 90, shrinks=False), idle=True) is None


def test_most_of_the_time_belongs_to_the_line() -> None:
    retention = Retention(Keep(seconds=1.0))
    step = retention.decide(0.0, WALL + 10, holding(), idle=True)
    assert step is not None and retention.next_due() == LOOK_EVERY
    retention.done(0.5, step, 0.004, found=True)
    assert not retention.due(0.51) and retention.due(0.513)
    tidy = Tidy(0.0)
    retention.decide(1.0, WALL, holding(), idle=True)
    retention.done(1.0, tidy, 0.001, found=False)
    assert retention.decide(1.5, WALL, holding(), idle=True) is None
    assert retention.decide(1.0 + TIDY_EVERY, WALL, holding(), idle=True) is not None


@pytest.mark.parametrize("jump", [1e9, -1e9])
def test_a_clock_that_is_set_makes_nothing_older(jump: float) -> None:
    retention = Retention(Keep(seconds=100.0))
    retention.decide(0.0, WALL, holding(), idle=True)
    assert not isinstance(retention.decide(1.0, WALL + 1 + jump, holding(), idle=True), Delete)
    decided = retention.decide(102.0, WALL + 102 + max(jump, 0.0), holding(), idle=True)
    assert decided == old(WALL + 2, WALL + 102)


def test_a_full_disk_is_a_limit_for_a_while() -> None:
    retention = Retention(Keep(seconds=1e9))
    assert retention.disk_full(5.0, holding(50)) and retention.due(5.0)
    assert retention.decide(5.0, WALL, holding(50), idle=False) == old(math.inf, WALL)
    assert retention.decide(5.0, WALL, holding(40, 10), idle=False) is None
    assert retention.decide(6.0, WALL, holding(40, 10), idle=True) == tidy(WALL, 1e9), "no room is given away"
    without = holding(50)._replace(spare=False)
    assert retention.decide(5.0 + FULL_FOR, WALL, without, idle=False) == old(math.inf, WALL)
    assert not isinstance(retention.decide(5.0 + FULL_FOR, WALL, holding(50), idle=False), Delete)


def test_pages_that_are_free_in_a_full_disk_are_enough() -> None:
    """Someone reads, so that the log grows: deleting again and again would leave nothing."""
    retention = Retention(Keep(seconds=1e9))
    many = holding(5000, 3000)
    retention.disk_full(5.0, many._replace(free=0))
    for turn in range(20):
        retention.disk_full(6.0 + turn, many)
        assert not isinstance(retention.decide(6.0 + turn, WALL, many, idle=True), Delete)
    retention.disk_full(30.0, many, added=3001 * MB)
    assert isinstance(retention.decide(30.0, WALL, many, idle=True), Delete), "a turn needs more than is free"


# --- what is deleted, and what stays ---------------------------------------------------------------------------------


def test_a_deleted_frame_takes_everything_along(bench: Bench) -> None:
    items = Items()
    bench.turn(items.line(), items.expect(items.expectation(lone(0), ["alpha", "beta"], budget=1.0)))
    bench.turn(items.result(items.outcome(lone(0), tries=3)))
    bench.turn(Suspect(epoch=EPOCH, items=[Suspicion(ticket=items.next(), key=lone(0), model="beta", count=1)]))
    bench.turn(after=2.0)
    bench.turn(items.result(items.outcome(lone(0), "beta", late=True)))
    before = report(bench.path)
    assert (before["late_results"], before["requeued"], before["frames"]) == (1, 2, 1)
    assert delete(bench) == [lone(0)]
    after = report(bench.path)
    kept = ("frames", "deleted", "oldest_seq", "oldest_at", "bytes")
    assert {name: after[name] for name in after if name not in kept} == {
        name: before[name] for name in before if name not in kept
    }
    assert after["frames"] == 0 and after["oldest_at"] is None and after["oldest_seq"] == 2
    assert after["deleted"] == {
        "published": 1, "frames": 1, "verdicts": 1, "results": 2, "requeued": 2, "late_results": 1
    }  # fmt: skip
    db = bench.ledger._db
    assert db is not None
    tables = ("frames", "results", "late_results", "suspects", "published")
    assert [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables] == [0] * 5


def test_what_is_open_stays_and_what_came_after_goes(bench: Bench) -> None:
    items = Items()
    bench.turn(items.line(), items.expect(items.expectation(lone(0), budget=99.0)))
    joined(bench, items, lone(1), lone(2))
    assert delete(bench) == [lone(1), lone(2)]
    assert report(bench.path)["open"] == 1
    bench.restart()
    bench.turn(
        items.line(), items.expect(items.expectation(lone(0), budget=99.0)), items.result(items.outcome(lone(0)))
    )
    counts = report(bench.path)
    assert (counts["accepted"], counts["joined"], counts["open"], counts["unpublished"]) == (3, 3, 0, 0)


def test_only_what_is_too_old_goes(bench: Bench) -> None:
    items = Items()
    for seq in range(5):
        joined(bench, items, lone(seq))
        bench.now += 10.0
    assert delete(bench, Delete(WALL + 125.0, 60.0)) == [lone(0), lone(1), lone(2)]
    assert report(bench.path)["oldest_at"] == WALL + 130.0


def test_frames_of_an_open_part_stay_and_a_closed_one_goes_with_its_last(bench: Bench) -> None:
    items = Items()
    top, side = Key("top", BOOT, 0), Key("side", BOOT, 0)
    joined(bench, items, top, part="p1")
    assert delete(bench) == []
    joined(bench, items, side, part="p1")
    assert delete(bench) == [top, side]
    assert report(bench.path)["parts"] == {"press": {"ok": 1}}
    assert delete(bench, Tidy(WALL + bench.now - 1.0)) == [] and "parts" not in report(bench.path)["deleted"]
    delete(bench, Tidy(WALL + bench.now))
    counts = report(bench.path)
    assert (counts["deleted"]["parts"], counts["parts"]) == (1, {"press": {"ok": 1}})


def test_a_part_whose_frames_are_gone_does_not_open_again(bench: Bench) -> None:
    items = Items()
    joined(bench, items, Key("top", BOOT, 0), part="p1")
    bench.turn(after=3.0)
    assert delete(bench) == [Key("top", BOOT, 0)]
    bench.restart()
    turn = bench.turn(items.line(), items.expect(items.expectation(Key("side", BOOT, 0), part="p1")))
    assert turn.counts["part_frames_refused_total", "press", "late"] == 1
    assert report(bench.path)["open_parts"] == 0


# --- what was deleted comes again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_a_deleted_frame_that_is_sent_again_is_not_new(bench: Bench, restarted: bool) -> None:
    items = Items()
    joined(bench, items, *(lone(seq) for seq in range(3)))
    delete(bench)
    if restarted:
        bench.restart()
    again, answer = items.expectation(lone(1)), items.outcome(lone(1), late=True)
    suspicion = Suspicion(ticket=items.next(), key=lone(1), model="alpha", count=1)
    turn = bench.turn(items.line(), items.expect(again), items.result(answer), Suspect(epoch=EPOCH, items=[suspicion]))
    assert turn.tickets[EPOCH] == [again.ticket, answer.ticket, suspicion.ticket]
    assert [known.statuses for known in turn.known[EPOCH]] == [{"alpha": "dropped"}]
    assert turn.counts["refused_total", "deleted"] == 3 and not turn.live
    counts = report(bench.path)
    assert (counts["accepted"], counts["joined"], counts["frames"], counts["late_results"]) == (3, 3, 0, 0)
    joined(bench, items, lone(3))
    assert report(bench.path)["joined"] == 4


def test_a_frame_that_never_came_is_new_although_later_ones_are_gone(bench: Bench) -> None:
    items = Items()
    joined(bench, items, lone(0), lone(2))
    delete(bench)
    bench.restart()
    joined(bench, items, lone(1))
    counts = report(bench.path)
    assert (counts["accepted"], counts["joined"], counts["frames"]) == (3, 3, 1)


def test_skips_go_with_the_frames_around_them_and_are_counted_once(bench: Bench) -> None:
    items = Items()
    skipped = Note(epoch=EPOCH, skips=[SkipNote(ticket=items.next(), key=lone(1), reason="no_credit")])
    joined(bench, items, lone(0), lone(2))
    bench.turn(skipped)
    delete(bench)
    turn = bench.turn(skipped)
    assert turn.tickets[EPOCH] == [skipped.skips[0].ticket]
    counts = report(bench.path)
    assert (counts["skips"], counts["deleted"]["skips"]) == ({"lone": 1}, 1)
    db = bench.ledger._db
    assert db is not None and db.execute("SELECT first, last FROM gone").fetchall() == [(0, 2)]


def test_a_boot_that_ended_goes_when_its_camera_has_another(bench: Bench) -> None:
    items = Items()
    for number, boot in enumerate(("c1c1c1c1c1c1", "c2c2c2c2c2c2", "c3c3c3c3c3c3")):
        joined(bench, items, Key("lone", boot, 0))
        state: Literal["cut", "ended"] = "cut" if number == 1 else "ended"
        bench.turn(
            Note(epoch=EPOCH, boots=[BootNote(ticket=items.next(), camera="lone", boot=boot, state=state, last_seq=0)])
        )
    delete(bench)
    delete(bench, Tidy(0.0))
    assert report(bench.path)["boots"] == {"ended": 2, "cut": 1}
    db = bench.ledger._db
    assert db is not None
    assert [name for (name,) in db.execute("SELECT name FROM boots")] == ["c2c2c2c2c2c2", "c3c3c3c3c3c3"]
    assert db.execute("SELECT count(*) FROM gone WHERE boot = 1").fetchone() == (0,)


# --- the stream ------------------------------------------------------------------------------------------------------


def asked(ledger: Ledger, seq: int) -> Any:
    catchup = CatchUp(ledger)
    catchup.ask(b"me", Since(ledger_id=ledger.ledger_id, seq=seq))
    found = catchup.step()
    assert found is not None
    return found[1]


def test_the_stream_goes_on_after_everything_is_gone(bench: Bench) -> None:
    items = Items()
    joined(bench, items, lone(0), Key("eye2", BOOT, 0), lone(1))
    delete(bench)
    ledger_id = bench.ledger.ledger_id
    assert asked(bench.ledger, 0) == Gone(ledger_id=ledger_id, oldest=4)
    assert asked(bench.ledger, 3) == End(ledger_id=ledger_id, seq=3)
    bench.restart()
    joined(bench, items, lone(2), Key("eye2", BOOT, 1))
    assert [(sent.seq, sent.previous) for _, sent, _ in bench.published[-2:]] == [(4, 3), (5, 2)]
    page = asked(bench.ledger, 3)
    assert isinstance(page, Page) and [(one.seq, one.previous) for one in page.items] == [(4, 3), (5, 2)]


def test_the_accounts_reconcile_whatever_was_deleted(bench: Bench) -> None:
    items = Items()
    joined(bench, items, *(lone(seq) for seq in range(10)))
    bench.ledger.step(Delete(math.inf, 0.0))
    joined(bench, items, *(lone(seq) for seq in range(10, 12)))
    assert 0 < report(bench.path)["frames"] < 12
    consumed = Consumed()
    for _, _, body in bench.published:
        consumed.take(body)
    account = reconcile({"lone": Told(sent=12, accepted=12, complete=12)}, report(bench.path), consumed)
    assert account.passed and (account.accepted, account.joined, account.lost, account.unreceived) == (12, 12, 0, 0)


def test_the_command_says_what_a_ledger_holds(bench: Bench) -> None:
    items = Items()
    joined(bench, items, *(lone(seq) for seq in range(3)))
    delete(bench, Delete(math.inf, 0.0))
    joined(bench, items, lone(3))
    told = CliRunner().invoke(app, ["report", str(bench.path)], env={"NO_COLOR": "1", "COLUMNS": "100"})
    assert told.exit_code == 0, told.output
    assert "kept: 1 frames, back to 2023-" in told.output and "seq 4 to 4" in told.output
    assert "deleted: 3 frames, 3 published, 3 results" in told.output
    assert ["lone", "4", "4", "4", "0", "0"] in [line.split() for line in told.output.splitlines()]
    figures = json.loads(CliRunner().invoke(app, ["report", str(bench.path), "--json"]).output)
    assert (figures["accepted"], figures["frames"], figures["deleted"]["frames"]) == (4, 1, 3)
    assert figures["bytes"] == bench.ledger.size()


def test_the_command_fails_where_it_does_not_add_up(bench: Bench, tmp_path: Path) -> None:
    joined(bench, Items(), lone(0))
    bench.ledger.commit(Rows(published=[PublishedRow(2, 1, 1, 1 << SEQ_BITS, b"")]))
    told = CliRunner().invoke(app, ["report", str(bench.path)])
    assert told.exit_code == 1 and "WRONG: 1 published twice" in told.output
    missing = CliRunner().invoke(app, ["report", str(tmp_path / "none.sqlite")])
    assert missing.exit_code == 1 and "there is no ledger" in missing.output


# --- the file --------------------------------------------------------------------------------------------------------


def begin(ledger: Ledger) -> None:
    ledger.commit(
        Rows(
            plans=[PlanRow(1, "free", "alpha", "alpha", "d")],
            boots=[BootRow(1, "lone", BOOT, "open", -1, "e")],
            topics=[TopicRow(1, "frame/lone/", 0)],
        )
    )


def turn_of(first: int, count: int, size: int, at: float = 0.0) -> Rows:
    """`count` frames with an answer of `size` bytes each, published."""
    frame = 1 << SEQ_BITS
    numbers = range(first, first + count)
    return Rows(
        frames=[FrameRow(frame + n, 1, None, None, at, "complete", "ok") for n in numbers],
        results=[
            ResultRow(frame + n, "alpha", "ok", "", 1, b"\x81\xa1x\xc5" + size.to_bytes(2) + b"x" * size)
            for n in numbers
        ],
        published=[PublishedRow(n + 1, n or None, 1, frame + n, b"h" * 50) for n in numbers],
    )


def test_the_files_never_take_more_than_their_limit(tmp_path: Path) -> None:
    """Five times as much is written, in turns that never end: no moment is idle."""
    limit = Keep(bytes=LEAST_BYTES)
    largest = 0
    with Ledger(tmp_path / "ledger.sqlite", limit) as ledger:
        begin(ledger)
        counts: Counts = Counts()
        keeper = Keeper(ledger, Retention(limit), counts)
        for number in range(400):
            ledger.commit(turn_of(number * 40, 40, 10_000))
            assert keeper.turn(float(number), WALL, idle=False) is not None
            largest = max(largest, ledger.size())
        assert ledger.holding().used > 0.8 * (limit.limit - limit.log), "no more is deleted than has to be"
    assert largest <= limit.limit
    told = report(tmp_path / "ledger.sqlite")
    assert told["accepted"] == 16_000 and told["frames"] + told["deleted"]["frames"] == 16_000
    assert counts["ledger_deleted_total", "frames"] == told["deleted"]["frames"]


def test_a_file_gets_smaller_when_its_limit_does(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        begin(ledger)
        for number in range(80):
            ledger.commit(turn_of(number * 100, 100, 10_000))
        assert ledger.size() > 2 * LEAST_BYTES
    limit = Keep(bytes=LEAST_BYTES)
    with Ledger(path, limit) as ledger:
        keeper = Keeper(ledger, Retention(limit), Counts())
        for now in range(100_000):
            keeper.turn(float(now), WALL, idle=True)
            room = ledger.holding()
            if room.pages * room.page <= limit.limit - limit.log:
                break
        ledger.commit(turn_of(8000, 1, 10))
    assert path.stat().st_size <= limit.limit
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- a ledger of before ----------------------------------------------------------------------------------------------


def test_a_ledger_of_version_1_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((Path(__file__).parent / "ledger_v1.sql").read_text(encoding="utf-8"))
        db.execute("INSERT INTO plans VALUES (1, 'free', 'alpha', 'alpha', 'd')")
        db.execute("INSERT INTO boots VALUES (1, 'lone', ?, 'open', -1, 'e')", (BOOT,))
        db.execute("INSERT INTO frames VALUES (?, 1, NULL, NULL, 0.0, 'complete', 'ok')", (1 << SEQ_BITS,))
        db.execute("INSERT INTO results VALUES (?, 'alpha', 'ok', '', 1, x'80')", (1 << SEQ_BITS,))
        db.execute("INSERT INTO topics VALUES (1, 'frame/lone/', 1)")
        db.execute("INSERT INTO published VALUES (1, NULL, 1, ?, x'00')", (1 << SEQ_BITS,))
        db.commit()
    assert report(path)["joined"] == 1, "it can be looked at before it is taken over"
    bench = Bench(path)
    try:
        assert bench.ledger.ledger_id == "0123456789abcdef"
        assert delete(bench) == [lone(0)]
        joined(bench, Items(), lone(1))
        assert not bench.ledger.holding().shrinks
    finally:
        bench.close()
    assert (report(path)["joined"], report(path)["frames"]) == (2, 1)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


#: From the tables of today to those of version 3.
WITHOUT_BOOTS_NOTED = "DROP INDEX boots_cut; ALTER TABLE boots DROP COLUMN noted_at;"


def test_skips_of_version_2_count_from_the_day_on_which_they_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    began = time.time()
    with Ledger(path) as ledger:
        begin(ledger)
        ledger.commit(Rows(skips=[SkipRow(1 << SEQ_BITS, "no_credit", 0.0)]))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{WITHOUT_BOOTS_NOTED}DROP INDEX skips_noted; ALTER TABLE skips DROP COLUMN noted_at;")
        db.execute("PRAGMA user_version = 2")
    assert report(path)["skips"] == {"lone": 1}
    with Ledger(path) as ledger:
        oldest = ledger.holding().oldest
        assert oldest is not None and began - 1 <= oldest <= time.time()


def test_boots_of_version_3_count_from_the_day_on_which_they_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    began = time.time()
    with Ledger(path) as ledger:
        begin(ledger)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{WITHOUT_BOOTS_NOTED}PRAGMA user_version = 3")
    assert report(path)["boots"] == {"open": 1}
    with Ledger(path) as ledger:
        found = ledger.recall_boot("lone", BOOT)
        assert found is not None and began - 1 <= found.row.noted_at <= time.time()


def test_plans_and_line_files_that_nothing_needs_go_at_a_start(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.commit(
            Rows(
                lines=[(f"d{n}", f"text {n}") for n in range(100)],
                plans=[PlanRow(n + 1, "free", "alpha", "alpha", f"d{n}") for n in range(100)],
                boots=[BootRow(1, "lone", BOOT, "open", -1, "e")],
                topics=[TopicRow(1, "frame/lone/", 0)],
            )
        )
        ledger.commit(turn_of(0, 1, 1))
    with Ledger(path) as ledger:
        assert len(ledger.snapshot(0.0).plans) == 100, "without a limit nothing is deleted"
    with Ledger(path, Keep(seconds=1.0)) as ledger:
        snapshot = ledger.snapshot(0.0)
        assert [plan.plan for plan in snapshot.plans] == [1]
        assert len(snapshot.lines) == 8
        assert ledger._db is not None and ledger._db.execute("SELECT count(*) FROM lines").fetchone() == (9,)


# --- a line that never rests -----------------------------------------------------------------------------------------


class Busy:
    """A ledger with an age limit, written turn after turn with no idle moment; a turn is a second of its clock."""

    def __init__(self, path: Path, seconds: float) -> None:
        limit = Keep(seconds=seconds)
        self.ledger = Ledger(path, limit)
        self.retention = Retention(limit)
        self.keeper = Keeper(self.ledger, self.retention, Counts())
        self.now = 0.0

    def turn(self, rows: Rows) -> None:
        self.ledger.commit(rows)
        self.now += 1.0
        self.keeper.turn(self.now, WALL + self.now, idle=False)

    def kept(self, table: str) -> int:
        assert self.ledger._db is not None
        return int(self.ledger._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Busy]:
    line = Busy(tmp_path / "ledger.sqlite", 20.0)
    with line.ledger:
        begin(line.ledger)
        yield line


def test_what_is_too_old_goes_as_quickly_as_a_line_without_rest_writes(busy: Busy) -> None:
    """A turn writes more than a step's time is enough for; what is kept is of the last seconds all the same."""
    each = 600
    most = 0
    for number in range(80):
        busy.turn(turn_of(number * each, each, 10, WALL + busy.now))
        most = max(most, busy.kept("frames"))
    assert most <= each * (20 * (1 + LATE_SHARE) + 3)
    told = report(busy.ledger.path)
    assert told["accepted"] == 80 * each and told["frames"] + told["deleted"]["frames"] == 80 * each


def test_a_backlog_of_before_gets_less_on_a_line_without_rest(busy: Busy) -> None:
    each, old = 300, 6000
    busy.ledger.commit(turn_of(0, old, 10, WALL - 1000.0))
    kept = [busy.kept("frames")]
    for number in range(60):
        busy.turn(turn_of(old + number * each, each, 10, WALL + busy.now))
        kept.append(busy.kept("frames"))
    assert all(after <= before for before, after in pairwise(kept[: kept.index(min(kept)) + 1])), "none of them grows"
    assert report(busy.ledger.path)["oldest_at"] >= WALL


def test_skips_go_with_age_though_their_camera_sends_no_frame(busy: Busy) -> None:
    """More in a turn than one batch."""
    each, start = 1000, 1 << SEQ_BITS
    most = 0
    for number in range(60):
        first = start + number * each
        busy.turn(Rows(skips=[SkipRow(first + n, "no_credit", WALL + busy.now) for n in range(each)]))
        most = max(most, busy.kept("skips"))
    assert most <= each * (20 * (1 + LATE_SHARE) + 3)
    told = report(busy.ledger.path)
    assert told["skips"] == {"lone": 60 * each} and told["deleted"]["skips"] == 60 * each - busy.kept("skips")
    assert busy.ledger.gone(start) and not busy.ledger.gone(start + 60 * each - 1)


def test_skips_between_frames_do_not_stay_behind(busy: Busy) -> None:
    """Many skips for each frame, as of a camera whose triggers come too quick."""
    start = 1 << SEQ_BITS
    for number in range(60):
        rows = turn_of(number * 1000, 1, 10, WALL + busy.now)
        rows.published[0] = rows.published[0]._replace(seq=number + 1, previous=number or None)
        rows.skips = [SkipRow(start + number * 1000 + n, "no_credit", WALL + busy.now) for n in range(1, 1000)]
        busy.turn(rows)
    assert busy.kept("skips") <= 1000 * (20 * (1 + LATE_SHARE) + 3)


def test_parts_go_on_a_line_without_rest(busy: Busy) -> None:
    each = 400
    for number in range(80):
        rows = turn_of(number * each, each, 10, WALL + busy.now)
        parts = range(number * each + 1, (number + 1) * each + 1)
        rows.frames = [
            row._replace(part=f"p{part}", part_row=part) for row, part in zip(rows.frames, parts, strict=True)
        ]
        rows.parts = [(part, "press", f"p{part}", WALL + busy.now) for part in parts]
        rows.closed_parts = [(WALL + busy.now, "complete", "ok", part) for part in parts]
        busy.turn(rows)
    assert busy.kept("parts") <= each * (20 * (1 + LATE_SHARE) + FORGET_AFTER + 4)
    assert sum(report(busy.ledger.path)["parts"]["press"].values()) == 80 * each


def test_work_of_one_step_has_a_bound(busy: Busy) -> None:
    step = busy.retention.decide(1.0, WALL, holding(oldest=WALL - 1000)._replace(written=0), idle=False)
    assert isinstance(step, Delete) and step.least == 0
    step = busy.retention.decide(2.0, WALL, holding(oldest=WALL - 1000)._replace(written=10_000_000), idle=False)
    assert isinstance(step, Delete) and step.least == MOST_ROWS
    busy.retention.done(2.0, step, 0.01, found=True)
    assert busy.retention.due(2.0), "what is owed goes on at once"


def test_boots_that_ended_go_on_a_line_without_rest() -> None:
    retention = Retention(Keep(seconds=100.0))
    young = holding(oldest=WALL)
    assert retention.decide(0.0, WALL, young, idle=False) is None
    assert retention.decide(TIDY_WITHIN, WALL + 1, young, idle=False) == tidy(WALL + 1, 100.0)
    assert retention.decide(TIDY_WITHIN + 1, WALL + 2, young, idle=False) is None


def test_skips_count_where_only_size_is_limited(tmp_path: Path) -> None:
    """A ledger that holds nothing else is kept within its limit."""
    limit = Keep(bytes=LEAST_BYTES)
    with Ledger(tmp_path / "ledger.sqlite", limit) as ledger:
        begin(ledger)
        keeper = Keeper(ledger, Retention(limit), Counts())
        for number in range(70):
            first = (1 << SEQ_BITS) + number * 10_000
            rows = [SkipRow(first + n, "no_credit" * 5, WALL + number) for n in range(10_000)]
            ledger.commit(Rows(skips=rows))
            for _ in range(3):
                keeper.turn(float(number), WALL + number, idle=False)
        assert ledger.size() <= limit.limit
    assert report(tmp_path / "ledger.sqlite")["deleted"]["skips"] > 0
