"""A disk that is full: with a limit the oldest makes room and the line goes on; without one nothing is accepted."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from broker.ledger import Ledger, LedgerFull
from broker.report import report
from broker.retention import FOR_EVER, Keep
from broker.rows import Rows
from broker.wire import Key
from tests.join_world import BOOT
from tests.test_join_server import Rig

Context = zmq.Context[zmq.Socket[bytes]]
Endpoint = Callable[[str], str]
LARGE = b"\x81\xa1x\xc5\xff\xff" + b"x" * 65535
MONTHS = Keep(seconds=1e7)


def key(seq: int) -> Key:
    return Key("lone", BOOT, seq)


def feed(rig: Rig, first: int, count: int) -> None:
    items = rig.broker.items
    for seq in range(first, first + count):
        rig.broker.tell(items.expectation(key(seq), budget=600.0), items.outcome(key(seq), answer=LARGE))
        rig.broker.until(lambda: len(rig.broker.unacked) < 20, f"frame {seq} of {first + count}")


def until_refused(rig: Rig, first: int, count: int) -> int:
    """Feed until the ledger could not be written for a while; returns the first seq that was not sent."""
    assert rig.server is not None
    items, counts = rig.broker.items, rig.server.counts
    most = counts["ledger_failures_total",] + 3
    for seq in range(first, first + count):
        rig.broker.tell(items.expectation(key(seq), budget=600.0), items.outcome(key(seq), answer=LARGE))
        rig.broker.until(lambda: len(rig.broker.unacked) < 20 or counts["ledger_failures_total",] > most)
        if counts["ledger_failures_total",] > most:
            return seq + 1
    raise AssertionError("the disk has room for all")


def sound(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",))


@pytest.fixture
def rig(endpoint: Endpoint, context: Context, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(endpoint, context, tmp_path / "ledger.sqlite")
    rig.settings = {"keep": MONTHS}
    with contextlib.closing(rig):
        rig.open()
        yield rig


def test_the_oldest_makes_room_where_the_file_may_not_grow(rig: Rig) -> None:
    """A real SQLITE_FULL, by a limit of pages."""
    assert rig.server is not None
    feed(rig, 0, 60)
    rig.broker.settle()
    rig.disk.pages = 1  # as many as there are
    feed(rig, 60, 120)
    rig.broker.settle()
    rig.broker.until(lambda: len(rig.frames()) == 180)
    assert sorted(rig.frames()) == list(range(180))
    assert rig.server.counts["ledger_failures_total",] > 0
    rig.stop()
    counts = report(rig.ledger)
    assert (counts["accepted"], counts["joined"], counts["duplicates"], counts["unpublished"]) == (180, 180, 0, 0)
    assert counts["deleted"]["frames"] > 0 and counts["frames"] > 0
    assert sound(rig.ledger)


# --- a disk of its own -----------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 112 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root on Linux")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=112m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("cannot mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("keep", [MONTHS, FOR_EVER], ids=["limited", "for ever"])
def test_a_disk_that_is_full(disk: Path, keep: Keep, context: Context, tmp_path: Path) -> None:
    """With a limit everything goes on; without, nothing is accepted until there is room, and nothing is lost."""
    rig = Rig(lambda name: f"inproc://{tmp_path.name}-{name}", context, disk / "ledger.sqlite")
    rig.settings = {"keep": keep}
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(16 << 20))
    with contextlib.closing(rig):
        rig.open()
        assert rig.server is not None
        frames = 2000
        rig.broker.until(lambda: keep is FOR_EVER or rig.disk.reserve.held)

        if keep is FOR_EVER:
            sent = until_refused(rig, 0, frames)
            told = report(rig.ledger)
            assert told["accepted"] < frames and told["joined"] == told["published"]
            ballast.unlink()
            rig.broker.settle()
            frames = sent
        else:
            feed(rig, 0, frames)
            rig.broker.settle()
        rig.broker.until(lambda: len(rig.frames()) == frames, f"{len(rig.frames())} of {frames}")
        assert sorted(rig.frames()) == list(range(frames))
        rig.stop()
    counts = report(rig.ledger)
    assert (counts["accepted"], counts["joined"], counts["duplicates"], counts["unpublished"]) == (frames, frames, 0, 0)
    assert sound(rig.ledger)


def test_a_full_disk_while_someone_reads(disk: Path, context: Context, tmp_path: Path) -> None:
    """The log cannot be moved, and grows until the disk is full; afterwards it must still fit into the file."""
    rig = Rig(lambda name: f"inproc://{tmp_path.name}-{name}", context, disk / "ledger.sqlite")
    rig.settings = {"keep": MONTHS}
    with contextlib.closing(rig):
        rig.open()
        assert rig.server is not None
        server = rig.server
        rig.broker.until(lambda: rig.disk.reserve.held)
        feed(rig, 0, 200)
        with contextlib.closing(sqlite3.connect(rig.ledger, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM frames").fetchone()[0] > 0
            until_refused(rig, 200, 1800)
            gone = report(rig.ledger)["deleted"]["frames"]
            stood = server.counts["ledger_failures_total",]
            rig.broker.until(lambda: server.counts["ledger_failures_total",] > stood + 12)
            assert report(rig.ledger)["deleted"]["frames"] <= gone + 200, "deleting makes no room in the log"
        rig.broker.settle()
        done = max(rig.frames()) + 1
        feed(rig, done, 1000)
        rig.broker.settle()
        rig.broker.until(lambda: len(rig.frames()) == done + 1000, f"{len(rig.frames())} of {done + 1000}")
        rig.stop()
    counts = report(rig.ledger)
    assert (counts["accepted"], counts["joined"], counts["duplicates"]) == (done + 1000, done + 1000, 0)
    assert sound(rig.ledger)


@pytest.mark.parametrize("size", [1100, 5000])
def test_a_disk_full_of_small_answers(disk: Path, size: int, context: Context, tmp_path: Path) -> None:
    """Each takes a page of its own, four times what it has of bytes: what a commit needs is measured, not guessed."""
    rig = Rig(lambda name: f"inproc://{tmp_path.name}-{name}", context, disk / "ledger.sqlite")
    rig.settings = {"keep": MONTHS}
    (disk / "ballast").write_bytes(bytes(44 << 20))
    answer = msgspec.msgpack.encode({"x": bytes(size)})
    with contextlib.closing(rig):
        rig.open()
        items, frames = rig.broker.items, 16_000 if size < 4096 else 8_000
        for seq in range(frames):
            rig.broker.tell(items.expectation(key(seq), budget=600.0), items.outcome(key(seq), answer=answer))
            rig.broker.until(lambda: len(rig.broker.unacked) < 400, f"frame {seq} of {frames}")
        rig.broker.settle()
        rig.stop()
    counts = report(rig.ledger)
    assert (counts["accepted"], counts["joined"], counts["duplicates"]) == (frames, frames, 0)
    assert counts["deleted"]["frames"] > 0
    assert sound(rig.ledger)


def test_a_commit_that_would_leave_too_little_is_not_made(disk: Path) -> None:
    rows = Rows(lines=[("digest", "x" * (5 << 20))])
    with Ledger(disk / "ledger.sqlite") as ledger:
        room = shutil.disk_usage(disk).free
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(room - (16 << 20)))
        with pytest.raises(
            LedgerFull, match=r"the disk has 1\d\.\d MB free, and 2\d\.\d MB are needed: make room"
        ) as refusal:
            ledger.commit(rows)
        assert 5 << 20 <= refusal.value.added <= 6 << 20
        assert shutil.disk_usage(disk).free > 15 << 20, "nothing of it is on the disk"
        ballast.unlink()
        ledger.commit(rows)


def test_a_link_is_judged_by_the_disk_that_it_leads_to(disk: Path, tmp_path: Path) -> None:
    link = disk / "ledger.sqlite"
    (disk / "ballast").write_bytes(bytes(100 << 20))
    link.symlink_to(tmp_path / "elsewhere.sqlite")
    with Ledger(link, MONTHS) as ledger:
        ledger.commit(Rows(lines=[("digest", "x" * 500_000)]))
        assert ledger.path == ledger.reserve.path.with_name("elsewhere.sqlite") == tmp_path / "elsewhere.sqlite"
