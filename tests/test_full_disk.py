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

import pytest
import zmq

from broker.report import report
from broker.retention import FOR_EVER, Keep
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
        server, items, frames = rig.server, rig.broker.items, 2000
        rig.broker.until(lambda: keep is FOR_EVER or rig.disk.reserve.held)

        def failed() -> bool:
            return server.counts["ledger_failures_total",] > 3

        if keep is FOR_EVER:
            with contextlib.suppress(AssertionError):
                for seq in range(frames):
                    rig.broker.tell(items.expectation(key(seq), budget=600.0), items.outcome(key(seq), answer=LARGE))
                    rig.broker.until(lambda: len(rig.broker.unacked) < 20 or failed())
                    assert not failed()
            told = report(rig.ledger)
            assert told["accepted"] < frames and told["joined"] == told["published"]
            ballast.unlink()
            rig.broker.settle()
            frames = seq + 1
        else:
            feed(rig, 0, frames)
            rig.broker.settle()
        rig.broker.until(lambda: len(rig.frames()) == frames, f"{len(rig.frames())} of {frames}")
        assert sorted(rig.frames()) == list(range(frames))
        rig.stop()
    counts = report(rig.ledger)
    assert (counts["accepted"], counts["joined"], counts["duplicates"], counts["unpublished"]) == (frames, frames, 0, 0)
    assert sound(rig.ledger)
