"""A line that runs while every socket it binds is besieged: afterwards it works as before, and has counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zmq

from broker.recorder_server import RecorderServer
from broker.wire import Key
from clients.camera import Camera
from clients.cursor import Position
from clients.pictures import Pictures
from clients.results import Results
from tests.fuzz.sockets import PEERS, Besieger
from tests.peers import running
from tests.test_end_to_end import spots
from tests.whole_line import whole_line
from workers.engine.fake import Fake

Endpoint = Callable[[str], str]
MESSAGES = 3000
CONNECTIONS = 150
FRAMES = 30

pytestmark = pytest.mark.slow


def test_a_besieged_line_works_and_counts(
    endpoint: Endpoint, transport: str, context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    with whole_line(endpoint, context, tmp_path, {"det": Fake()}) as line:
        ends = msgspec.structs.asdict(line.line.endpoints)
        recorder = RecorderServer(
            copies=ends["copies"],
            live=ends["live"],
            catchup=ends["catchup"],
            pictures=ends["pictures"],
            folder=tmp_path / "kept",
            memory=8,
            disk=8,
            keep=["none"],
            context=context,
        )
        with running(recorder), Besieger({name: ends[name] for name in PEERS}, context, seed=1) as besieger:
            assert recorder.ready.wait(5)
            with Camera("cam1", endpoint=ends["frontend"], context=context, deadline=60.0) as camera:
                for number in range(MESSAGES):
                    besieger.message()
                    if transport != "inproc" and number % (MESSAGES // CONNECTIONS) == 0:
                        besieger.raw()
                    if number % (MESSAGES // FRAMES) == 0:
                        camera.send(spots(number), timeout=30.0)
                assert camera.flush(60.0)
                boot = camera.boot
            line.wait_published(FRAMES)
            results = {(body["camera"], body["boot"], body["seq"]): body for _, _, body in line.published}
            assert {("cam1", boot, seq) for seq in range(FRAMES)} <= results.keys()
            assert all(results["cam1", boot, seq]["outcome"] == "complete" for seq in range(FRAMES))
            assert line.report()["open"] == 0
            with Results(catchup=ends["catchup"], live=ends["live"], since=Position("", 0), context=context) as past:
                assert next(iter(past)) is not None
            with Pictures(ends["pictures"], context) as pictures:
                pictures.get(Key("cam1", boot, FRAMES - 1), timeout=10.0)  # the recorder answers
            assert sum(line.broker.router.counts.get(("rejected_total", reason), 0) for reason in REASONS) > 50
            assert sum(line.broker.router.counts.get(("refused_total", reason), 0) for reason in REASONS) > 50
            assert sum(line.join.counts["refused_total", reason] for reason in (*REASONS, "unexpected")) > 10
            assert sum(recorder.counts["refused_total", reason] for reason in REASONS) > 10


REASONS = ("unknown_type", "header_too_large", "not_msgpack", "header_invalid", "segments")
