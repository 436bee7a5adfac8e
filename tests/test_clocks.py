"""Wall clocks that are set in one process: no other clock of it, and no wait, goes by them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from ops.chaos.clocks import Clocks
from ops.chaos.schedule import JUMPS

#: For each line of its input: seconds by which the wall clock, by four ways to read it, is ahead of the monotonic one.
CLOCKS: Final = """
import datetime, sqlite3, sys, time
database = sqlite3.connect(":memory:")
for line in sys.stdin:
    now = time.monotonic()
    walls = (
        time.time(), datetime.datetime.now().timestamp(), time.clock_gettime(time.CLOCK_REALTIME),
        float(database.execute("SELECT strftime('%s', 'now')").fetchone()[0]),
    )
    print(*(wall - now for wall in walls), flush=True)
"""
#: Waits of every kind, across jumps that another thread makes: seconds by which each was longer than asked for.
WAITS: Final = """
import queue, select, sys, threading, time
from pathlib import Path
import zmq
from ops.chaos.clocks import Clocks

clocks = Clocks(Path(sys.argv[1]))
socket = zmq.Context().socket(zmq.PULL)
locked, over = threading.Lock(), threading.Event()
locked.acquire()

def got():
    try:
        queue.Queue().get(timeout=0.3)
    except queue.Empty:
        pass

waits = (
    lambda: threading.Event().wait(0.3), lambda: locked.acquire(timeout=0.3), got, lambda: time.sleep(0.3),
    lambda: select.select([], [], [], 0.3), lambda: socket.poll(300),
)

def jump():
    while not over.is_set():
        for seconds in (3600.0, -3600.0, 5.0, -5.0):
            clocks.set("one", seconds)
            time.sleep(0.01)

threading.Thread(target=jump, daemon=True).start()
for wait in waits:
    began = time.monotonic()
    wait()
    print(time.monotonic() - began - 0.3, flush=True)
over.set()
"""


@pytest.fixture
def clocks(tmp_path: Path) -> Iterator[Clocks]:
    if reason := Clocks.missing():
        pytest.skip(reason)
    made = Clocks(tmp_path)
    try:
        made.__enter__()
    except OSError as error:
        pytest.skip(str(error))
    yield made


def test_a_wall_clock_jumps_and_jumps_back_and_every_reader_sees_it(clocks: Clocks) -> None:
    environment = {**os.environ, **clocks.environment("one")}
    with subprocess.Popen(
        (sys.executable, "-c", CLOCKS), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        right = time.time() - time.monotonic()
        for jump in (0.0, *JUMPS, 0.0):
            clocks.set("one", jump)
            clocks.set("other", 100.0)
            process.stdin.write("\n")
            process.stdin.flush()
            ahead = [float(word) - right for word in process.stdout.readline().split()]
            assert ahead == pytest.approx([jump] * 4, abs=1.5)  # SQLite's has whole seconds
        process.stdin.close()


def test_no_wait_goes_by_the_wall_clock(clocks: Clocks, tmp_path: Path) -> None:
    environment = {**os.environ, **clocks.environment("one")}
    done = subprocess.run(
        (sys.executable, "-c", WAITS, str(tmp_path)), env=environment, capture_output=True, text=True, timeout=60.0
    )
    assert done.returncode == 0, done.stderr
    over = [float(line) for line in done.stdout.split()]
    assert len(over) == 6 and all(-0.01 < seconds < 5.0 for seconds in over), over
