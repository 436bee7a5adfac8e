"""The ledger: what is committed lasts, what is not was never there; one writer, many readers, clear errors."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import schema
from broker.catchup import PAGE_ITEMS, WAITING, CatchUp
from broker.joined import RESERVED, Answer, encode_results, read
from broker.ledger import Ledger, LedgerError
from broker.ledger_file import log_size
from broker.lookup import SCAN
from broker.report import report
from broker.retention import LEAST_BYTES, Keep
from broker.rows import SEQ_BITS, BootRow, FrameRow, LateRow, PlanRow, PublishedRow, ResultRow, Rows, TopicRow
from broker.wire import End, Gone, Key, Page, Since
from tests.join_world import BOOT, Bench, Items

FRAME = 1 << SEQ_BITS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as ledger:
        yield ledger


def rows(count: int = 1, first: int = 0, size: int = 100, topic: int = 1) -> Rows:
    """`count` frames of boot 1 with an answer each, published."""
    return Rows(
        frames=[FrameRow(FRAME + n, 1, None, None, 0.0, "complete", "ok") for n in range(first, first + count)],
        results=[ResultRow(FRAME + n, "alpha", "ok", "", 1, b"\x80") for n in range(first, first + count)],
        published=[PublishedRow(n + 1, n or None, topic, FRAME + n, b"h" * size) for n in range(first, first + count)],
    )


def begin(ledger: Ledger) -> None:
    ledger.commit(
        Rows(
            plans=[PlanRow(1, "free", "alpha", "alpha", "d")],
            boots=[BootRow(1, "lone", BOOT, "open", -1, "e")],
            topics=[TopicRow(1, "frame/lone/", 0), TopicRow(2, "frame/rare/", 0)],
        )
    )


def test_every_table_of_a_turn_has_its_statement() -> None:
    assert {*schema.WRITES, "late_results"} == set(Rows.__dataclass_fields__)


def test_it_keeps_its_id(path: Path) -> None:
    with Ledger(path) as first:
        name = first.ledger_id
    with Ledger(path) as again:
        assert again.ledger_id == name
    assert len(name) == 16


def test_a_turn_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    begin(ledger)
    ledger.commit(rows())
    broken = rows(2, first=1)
    broken.published.append(PublishedRow(1, None, 1, FRAME, b""))  # a seq that is taken
    with pytest.raises(LedgerError, match="UNIQUE"):
        ledger.commit(broken)
    assert ledger.recall(FRAME + 1) is None
    assert ledger.last_seq() == 1
    ledger.commit(rows(2, first=1))
    assert ledger.last_seq() == 3


def test_a_late_answer_is_filed_once(ledger: Ledger) -> None:
    begin(ledger)
    ledger.commit(rows())
    late = LateRow(FRAME, "alpha", 2, "ok", "", b"\x80")
    assert ledger.commit(Rows(late_results=[late, late])) == ["alpha"]
    assert ledger.commit(Rows(late_results=[late])) == []


def test_what_is_committed_is_flushed_to_the_disk(ledger: Ledger) -> None:
    assert ledger._db is not None
    found = [ledger._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]


def test_a_full_disk_is_an_error_and_no_damage(tmp_path: Path) -> None:
    bench, items = Bench(tmp_path / "ledger.sqlite"), Items()
    try:
        bench.turn(items.line(), items.expect(items.expectation(Key("lone", BOOT, 0))))
        db = bench.ledger._db
        assert db is not None
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        large = items.result(items.outcome(Key("lone", BOOT, 0), answer=b"\x81\xa1x\xc5\xff\xff" + b"x" * 65535))
        turn = bench.joiner.turn([large], bench.now, 0.0)
        with pytest.raises(LedgerError, match="full"):
            bench.ledger.commit(turn.rows)
        bench.joiner.load(bench.now, 0.0)
        assert report(bench.path)["open"] == 1
        db.execute("PRAGMA max_page_count = 1000000")
        bench.turn(large)
        assert report(bench.path)["complete"] == 1
    finally:
        bench.close()


# --- who may have it -------------------------------------------------------------------------------------------------


def test_a_second_join_is_refused(ledger: Ledger, path: Path) -> None:
    with pytest.raises(LedgerError, match="another join"):
        Ledger(path).open()


def test_a_second_process_is_refused_and_a_dead_one_lets_go(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from broker.ledger import Ledger\n"
        "Ledger(Path(sys.argv[1])).open(); print('open', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as other:
        assert other.stdout is not None and other.stdout.readline().strip() == b"open"
        with pytest.raises(LedgerError, match="another join"):
            Ledger(path).open()
        other.kill()
        other.wait()
    with Ledger(path) as ledger:
        assert ledger.ledger_id


def test_a_foreign_file_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger(path).open()
    assert path.read_bytes().startswith(b"this is no")


NEWER = rf"ledger\.sqlite: made by a newer version .* \(schema {schema.VERSION + 1}, this one knows {schema.VERSION}\);"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "CREATE TABLE theirs (x)",
            r"not a ledger that can be taken over \(schema 0; 1 to \d can\); move the file away",
        ),
        (f"PRAGMA user_version = {schema.VERSION + 1}", f"{NEWER} go back to that version"),
    ],
)
def test_another_schema_is_refused(path: Path, script: str, said: str) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
        db.execute("CREATE TABLE IF NOT EXISTS more (x)")
        db.commit()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=said) as refused:
        Ledger(path).open()
    assert ("move the file away" in str(refused.value)) is script.startswith("CREATE"), "history is not given up"
    with pytest.raises(LedgerError, match=said):
        report(path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="file"):
        Ledger(tmp_path / "file" / "ledger.sqlite").open()


def test_a_closed_ledger_says_so(path: Path) -> None:
    with pytest.raises(LedgerError, match="not open"):
        Ledger(path).last_seq()


# --- report ----------------------------------------------------------------------------------------------------------


def test_the_report_reads_beside_the_join(ledger: Ledger, path: Path) -> None:
    begin(ledger)
    ledger.commit(rows(3))
    requeued = Rows(
        frames=[FrameRow(FRAME + 3, 1, None, None, 0.0, "incomplete", "incomplete")],
        results=[ResultRow(FRAME + 3, "alpha", "failed", "tries", 5, b"")],
        published=[PublishedRow(4, 3, 1, FRAME + 3, b"")],
    )
    ledger.commit(requeued)
    ledger.commit(Rows(frames=[FrameRow(FRAME + 4, 1, None, None, 0.0, None, None)]))
    counts = report(path)
    assert counts["cameras"] == {"lone": {"accepted": 5, "joined": 4, "complete": 3, "incomplete": 1, "open": 1}}
    assert counts["statuses"] == {"alpha": {"ok": 3, "failed": 1}}
    assert counts["verdicts"] == {"free": {"ok": 3, "incomplete": 1}}
    assert (counts["requeued"], counts["duplicates"], counts["unpublished"]) == (4, 0, 0)
    ledger.commit(Rows(published=[PublishedRow(5, 4, 1, FRAME, b"")]))
    assert report(path)["duplicates"] == 1


def test_the_report_reads_a_ledger_at_rest(path: Path) -> None:
    with Ledger(path) as ledger:
        begin(ledger)
    assert report(path)["accepted"] == 0


def test_a_ledger_that_is_not_there_is_not_made(path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        report(path)
    assert not path.exists()


# --- catch-up --------------------------------------------------------------------------------------------------------


def answer(
    catchup: CatchUp, seq: int, ledger_id: str = "", topics: list[str] | None = None, limit: int = 256
) -> object:
    assert catchup.ask(b"me", Since(ledger_id=ledger_id, seq=seq, topics=topics or [], limit=limit))
    for _ in range(100):
        found = catchup.step()
        if found is not None:
            assert found[0] == b"me"
            return found[1]
    raise AssertionError("no answer")


def test_pages_then_end(ledger: Ledger) -> None:
    begin(ledger)
    ledger.commit(rows(5))
    catchup = CatchUp(ledger)
    page = answer(catchup, 0, limit=3)
    assert isinstance(page, Page)
    assert [(entry.seq, entry.previous, entry.topic) for entry in page.items] == [
        (1, None, "frame/lone/"),
        (2, 1, "frame/lone/"),
        (3, 2, "frame/lone/"),
    ]
    assert page.items[0].body == b"h" * 100 + encode_results([("alpha", Answer("ok", "", 1, b"\x80"))], 1)
    rest = answer(catchup, 3, ledger.ledger_id)
    assert isinstance(rest, Page) and [entry.seq for entry in rest.items] == [4, 5]
    assert answer(catchup, 5, ledger.ledger_id) == End(ledger_id=ledger.ledger_id, seq=5)
    assert answer(catchup, 99) == End(ledger_id=ledger.ledger_id, seq=5)


def test_a_page_is_bounded_in_items_and_bytes(ledger: Ledger) -> None:
    begin(ledger)
    ledger.commit(rows(PAGE_ITEMS + 10, size=10))
    page = answer(CatchUp(ledger), 0, limit=10**9)
    assert isinstance(page, Page) and len(page.items) == PAGE_ITEMS
    ledger.commit(rows(3, first=PAGE_ITEMS + 10, size=3 << 20))
    page = answer(CatchUp(ledger), PAGE_ITEMS + 10)
    assert isinstance(page, Page) and len(page.items) == 1


def test_a_rare_topic_is_found_in_bounded_steps(ledger: Ledger) -> None:
    begin(ledger)
    count = 2 * SCAN + 10
    ledger.commit(rows(count, size=1))
    ledger.commit(rows(1, first=count, size=1, topic=2))
    catchup = CatchUp(ledger)
    catchup.ask(b"me", Since(ledger_id="", seq=0, topics=["frame/rare/"]))
    assert [catchup.step(), catchup.step()] == [None, None]
    found = catchup.step()
    assert found is not None and isinstance(found[1], Page) and found[1].items[0].seq == count + 1
    assert answer(catchup, 0, topics=["frame/none/"]) == End(ledger_id=ledger.ledger_id, seq=count + 1)


def test_what_is_not_held_is_gone(ledger: Ledger) -> None:
    begin(ledger)
    assert answer(CatchUp(ledger), 0, "another") == Gone(ledger_id=ledger.ledger_id, oldest=1)
    ledger.commit(rows(3))
    assert ledger._db is not None
    ledger._db.execute("DELETE FROM published WHERE seq < 3")
    assert answer(CatchUp(ledger), 1) == Gone(ledger_id=ledger.ledger_id, oldest=3)
    assert isinstance(answer(CatchUp(ledger), 2), Page)
    ledger._db.execute("DELETE FROM published")
    assert answer(CatchUp(ledger), 3) == End(ledger_id=ledger.ledger_id, seq=3)
    assert ledger.last_seq() == 3  # a seq is never given twice


def test_consumers_that_wait_are_bounded_and_each_has_one_question(ledger: Ledger) -> None:
    catchup = CatchUp(ledger)
    since = Since(ledger_id="", seq=0)
    assert all(catchup.ask(str(n).encode(), since) for n in range(WAITING))
    assert not catchup.ask(b"one more", since)
    assert catchup.ask(b"0", since)
    assert len(catchup) == WAITING


# --- bodies ----------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
maps = st.dictionaries(st.text(max_size=40).filter(lambda name: name not in RESERVED), values, max_size=4)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=40), maps, min_size=1, max_size=4),
    st.sampled_from(["ok", "failed", "expired"]),
    st.text(max_size=40),
    st.integers(0, 2**40),
)
def test_spliced_results_are_what_a_second_library_reads(
    answers: dict[str, dict[str, object]], status: str, reason: str, tries: int
) -> None:
    import msgpack

    given = [(model, Answer(status, reason, tries, msgpack.packb(each))) for model, each in answers.items()]  # type: ignore[arg-type]
    expected = {model: each | {"status": status, "reason": reason, "tries": tries} for model, each in answers.items()}
    assert msgpack.unpackb(encode_results(given, len(given)), strict_map_key=False) == expected


def test_large_maps_are_spliced_too() -> None:
    import msgpack

    for count in (12, 13, 14, 15, 16, 65532, 65533, 65536):
        body = {str(n): n for n in range(count)}
        spliced = encode_results([("m", Answer("ok", "", 1, msgpack.packb(body)))], 1)
        assert msgpack.unpackb(spliced) == {"m": body | {"status": "ok", "reason": "", "tries": 1}}


@settings(deadline=None)
@given(st.binary(max_size=64) | st.binary(max_size=8).map(lambda tail: b"\x81\xa1a" + tail))
def test_reading_any_bytes_never_raises(noise: bytes) -> None:
    answer = read(noise)
    assert answer is None or isinstance(answer, dict)


class Uncheckpointed(Ledger):
    """Its log cannot be moved into the file: the disk is full."""

    def _checkpoint(self) -> None:
        raise LedgerError("database or disk is full")


def test_what_is_committed_counts_although_the_log_cannot_be_moved(tmp_path: Path) -> None:
    with Uncheckpointed(tmp_path / "l", Keep(bytes=LEAST_BYTES)) as ledger:
        begin(ledger)
        ledger.commit(rows(count := ledger.keep.log // 4000, size=5000))
        assert log_size(ledger.path) > ledger.keep.log
        assert ledger.last_seq() == count
