"""What a factory does to processes: kill -9, while frames flow. Nothing is lost, nothing counted twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from clients.camera import Camera
from tests.processes import Processes
from tests.test_end_to_end import assert_reconciled, spots
from workers import tiny
from workers.engine.fake import poison_picture

pytestmark = pytest.mark.slow


class Consumer:
    """Notes every published frame key, from a thread of its own."""

    def __init__(self, endpoint: str) -> None:
        self.keys: list[tuple[str, str, int]] = []
        self.bodies: list[Any] = []
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Consumer:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.rcvhwm = 0
            socket.subscribe(b"frame/")
            socket.connect(self._endpoint)
            while not self._stop.is_set():
                if socket.poll(50):
                    body = msgspec.msgpack.decode(socket.recv_multipart()[2])
                    self.bodies.append(body)
                    self.keys.append((body["camera"], body["boot"], body["seq"]))


class Feeder(threading.Thread):
    """Sends `frames` pictures as credit allows; fewer when `finish` is set meanwhile."""

    def __init__(self, camera: Camera, frames: int, finish: threading.Event | None = None) -> None:
        super().__init__()
        self.camera = camera
        self.frames = frames
        self.finish = finish or threading.Event()
        self.sent = 0

    def run(self) -> None:
        for number in range(self.frames):
            if self.finish.is_set():
                return
            self.camera.send(spots(number), timeout=60.0)
            self.sent += 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    tiny.make(path)
    return path


def run_with_kills(tmp_path: Path, models: dict[str, Path | str], victims: list[str], frames: int = 200) -> Any:
    """Two cameras feed the line while the victims are killed one after another and started again."""
    with Processes(tmp_path, models, ["cam1", "cam2"]) as line:
        line.start_line()
        end = line.line.endpoints.frontend
        with (
            Consumer(line.line.endpoints.live) as consumer,
            Camera("cam1", endpoint=end, deadline=60.0) as first,
            Camera("cam2", endpoint=end, deadline=60.0) as second,
        ):
            feeders = [Feeder(first, frames), Feeder(second, frames)]
            for feeder in feeders:
                feeder.start()
            for number, victim in enumerate(victims):
                share = frames * (number + 1) // (len(victims) + 2)
                line.wait(f"{share} frames of each", lambda s=share: all(f.sent >= s for f in feeders))  # type: ignore[misc]
                line.kill(victim)
                line.restart(victim)
            for feeder in feeders:
                feeder.join(90)
                assert not feeder.is_alive()
            line.wait("all settled", lambda: first.flush(0.1) and second.flush(0.1), 60)
            stats = [first.stats, second.stats]
            keys = list(consumer.keys)
        report = line.report()
    assert_reconciled(report, 2 * frames, len(models))
    assert [one.complete for one in stats] == [frames, frames], [line.log(name) for name in line.commands]
    assert len(keys) == len(set(keys)), "published twice"
    return report


def test_killed_workers_lose_nothing_and_the_report_says_how_many_were_requeued(tmp_path: Path, model: Path) -> None:
    slow = "fake:delay=0.02"
    report = run_with_kills(tmp_path, {"tiny": model, "slow": slow}, ["slow-0", "tiny-0", "slow-0"], frames=100)
    assert report["requeued"] >= 1


def test_a_killed_broker_loses_nothing(tmp_path: Path, model: Path) -> None:
    run_with_kills(tmp_path, {"tiny": model}, ["broker", "broker"])


def test_a_killed_join_loses_nothing_and_publishes_nothing_twice(tmp_path: Path, model: Path) -> None:
    run_with_kills(tmp_path, {"tiny": model}, ["join", "join"])


def test_everything_is_killed_once(tmp_path: Path, model: Path) -> None:
    run_with_kills(tmp_path, {"tiny": model}, ["join", "tiny-0", "broker"])


def test_a_poison_picture_is_failed_and_quarantined_and_the_others_are_answered(tmp_path: Path) -> None:

    with Processes(tmp_path, {"fake": "fake:delay=0.002,poison=exit"}, ["cam1"]) as line:
        line.start_line(workers=2)
        with Camera("cam1", endpoint=line.line.endpoints.frontend, deadline=60.0) as camera:
            for number in range(20):
                picture = poison_picture(160, 160) if number == 7 else spots(number)
                camera.send(picture, encoding="bgr8", timeout=30.0)
                for name in list(line.running):
                    if line.running[name].poll() is not None:
                        line.restart(name)

            def settled() -> bool:
                for name in list(line.running):
                    if line.running[name].poll() is not None:
                        line.restart(name)
                return camera.flush(0.05)

            line.wait("all settled", settled, 60)
            assert (camera.stats.complete, camera.stats.incomplete) == (19, 1)
        report = line.report()
        assert report["statuses"] == {"fake": {"failed": 1, "ok": 19}}
        kept = sorted(path.suffix for path in (line.ledger.parent / "quarantine").iterdir())
        assert kept == [".json", ".raw"]
