"""The recorder while its disk takes long for each picture: it is known to live, and ends when it is asked to.

The disk is a pipe in the place of each file: a picture is written as soon, and as far, as the test reads it.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker import wire
from broker.notifier import ALIVE, Notifier
from broker.wire import Entry, Page, Since
from tests.test_notifier import Manager
from tests.test_recorder import BOOT, PATIENCE, Context, Rig, copy_of, key, wait_for

if sys.platform == "win32":
    pytest.skip("no pipe can stand in the place of a file", allow_module_level=True)

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no AF_UNIX here: nobody is told anything")

#: Bytes of a picture: more than a pipe takes in at once.
LARGE = b"x" * (1 << 20)
PICTURES = 3


class SlowFile:
    """Where the picture of the frame `seq` is written to."""

    def __init__(self, folder: Path, seq: int) -> None:
        self.path = folder / "ng" / "cam1" / f"{BOOT}-{seq}.part"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(self.path)
        self._end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def is_begun(self, timeout: float = 0.01) -> bool:
        """Whether the recorder writes to it, and so waits for `finish`."""
        return bool(select.select([self._end], [], [], timeout)[0])

    def finish(self) -> None:
        left = len(LARGE)
        while left:
            assert self.is_begun(PATIENCE), "the picture ended in the middle"
            left -= len(os.read(self._end, left))

    def close(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self._end)


class SlowRig(Rig):
    """A recorder that has `PICTURES` pictures in memory."""

    def __init__(self, context: Context, folder: Path, notifier: Notifier) -> None:
        self.files = [SlowFile(folder, seq) for seq in range(PICTURES)]
        super().__init__(lambda name: f"inproc://{name}", context, folder, notifier)
        for seq in range(PICTURES):
            self.copies.send_multipart([*wire.encode(copy_of(key(seq))), LARGE])
        wait_for(lambda: all(self.ask(key(seq))[0].found for seq in range(PICTURES)))

    def close(self) -> None:
        for file in self.files:
            file.close()
        super().close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    with closing(made.socket):
        yield made


@pytest.fixture
def rig(context: Context, manager: Manager, tmp_path: Path) -> Iterator[SlowRig]:
    made = SlowRig(context, tmp_path / "pictures", Notifier(manager.address, within=0.001))
    yield made
    made.close()


def live(rig: SlowRig) -> None:
    """Verdicts on the live stream, of which all but the first wait while the first is written."""

    def begun() -> bool:
        rig.publish(key(0), "ng")  # until the subscription is there
        return rig.files[0].is_begun()

    wait_for(begun)
    for seq in range(1, PICTURES):
        rig.publish(key(seq), "ng")


def caught_up(rig: SlowRig) -> None:
    """Verdicts that come in one page."""
    bodies = [{"camera": "cam1", "boot": BOOT, "seq": seq, "verdict": "ng"} for seq in range(PICTURES)]
    entries = [
        Entry(topic="frame/cam1/", seq=seq + 1, previous=seq or None, body=msgspec.msgpack.encode(body))
        for seq, body in enumerate(bodies)
    ]
    wait_for(lambda: rig.catchup.poll(10))
    identity, *segments = rig.catchup.recv_multipart()
    since: Any = wire.decode_message(segments)
    assert isinstance(since, Since)
    rig.catchup.send_multipart([identity, *wire.encode(Page(ledger_id="l", items=entries))])
    wait_for(rig.files[0].is_begun)


@pytest.mark.parametrize("judge", [live, caught_up])
def test_between_two_pictures_it_says_that_it_lives(judge: Any, rig: SlowRig, manager: Manager) -> None:
    judge(rig)
    for now, then in zip(rig.files, rig.files[1:], strict=False):
        manager.waiting()
        now.finish()
        wait_for(then.is_begun)
        assert ALIVE in manager.waiting()


@pytest.mark.parametrize("judge", [live, caught_up])
def test_it_ends_after_the_picture_that_it_writes(judge: Any, rig: SlowRig) -> None:
    judge(rig)
    rig.server.stop()
    rig.files[0].finish()
    rig.thread.join(PATIENCE)
    assert not rig.thread.is_alive() and not rig.files[1].is_begun()
