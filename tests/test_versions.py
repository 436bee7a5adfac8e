"""A model is replaced while frames flow: every frame is answered by one version, and the answer says by which."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zmq

from broker import line as line_file
from broker import versions, wire
from broker.line import LineError, Model
from broker.wire import Done, Job, Reload, Void
from clients.camera import Camera
from tests.peers import Context, Peer, ready
from tests.test_end_to_end import spots
from tests.whole_line import WholeLine, whole_line
from tests.world import ModelWorker, World
from workers import tiny
from workers.describe import describe
from workers.model import Hints
from workers.options import ModelOptions
from workers.worker import Worker

OLD, NEW = "aa" * 32, "bb" * 32
LONG = 1000.0
Endpoint = Callable[[str], str]


# --- which version is wanted -----------------------------------------------------------------------------------------


def test_the_line_files_word_goes_before_the_file_and_a_missing_file_wants_nothing(tmp_path: Path) -> None:
    (tmp_path / "here.onnx").write_bytes(b"abc")
    line = line_file.from_flags(cameras=["cam"], models=["here", "said", "away", "none"])
    models = {
        "here": Model(file="here.onnx"),
        "said": Model(file="here.onnx", sha256=NEW),
        "away": Model(file="away.onnx"),
        "none": Model(),
    }
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    found = versions.wanted(msgspec.structs.replace(line, models=models), tmp_path)
    assert found == {"here": digest, "said": NEW}


def test_a_sha256_that_is_none_is_refused() -> None:
    text = line_file.to_toml(line_file.from_flags(cameras=["cam"], models=["det"]))
    with pytest.raises(LineError, match=r"models.det.sha256.*64 hex digits"):
        line_file.parse(text.replace('sha256 = ""', 'sha256 = "abc"'))


# --- the router ------------------------------------------------------------------------------------------------------


class Versions(World):
    """A world whose workers say which version they have."""

    def start(self, name: str, sha256: str) -> ModelWorker:
        worker = ModelWorker(name, "det", f"{name}s", 2)
        self.workers[name] = worker
        self.to_worker[name] = []
        self.from_worker(name, ready(worker.session, worker=name, model="det", sha256=sha256))
        self.turn()
        worker.registered = True
        return worker

    def want(self, sha256: str) -> None:
        self.router.reload(self.line, "digest", {"det": sha256})

    def voids(self, name: str) -> list[str]:
        found = [message.reason for message in self.to_worker[name] if isinstance(message, Void)]
        self.to_worker[name].clear()
        return found

    def answer(self, name: str) -> None:
        """Everything that is on its way to the worker, answered."""
        for job in self.workers[name].wire:
            done = wire.Answer(dseq=job.dseq, key=job.key, status="ok")
            self.from_worker(name, Done(session=job.session, grant=job.dseq + 2, model="det", items=[done]))
        self.workers[name].wire.clear()


@pytest.fixture
def world() -> Versions:
    world = Versions(cameras=1, models=("det",))
    world.workers.clear()
    world.router.dispatcher.roster.sessions.clear()
    world.exchange()
    world.calm(0.2)
    return world


def jobs(world: Versions, name: str) -> list[Job]:
    return list(world.workers[name].wire)


def test_the_old_version_goes_on_until_the_new_one_is_open_and_then_finishes_what_it_has(world: Versions) -> None:
    world.start("old", OLD)
    world.want(NEW)
    for _ in range(4):
        world.cameras["cam0"].shoot(LONG)
    world.exchange()
    first = [job.key.seq for job in jobs(world, "old")]
    assert first == [0, 1], "nobody else is there"
    world.start("new", NEW)
    world.turn()
    assert [job.key.seq for job in jobs(world, "new")] == [2, 3]
    world.answer("old")
    world.turn()
    assert world.voids("old") == ["replaced"]
    assert world.router.counts["requeued_total", "det"] == 0


def test_a_worker_of_the_old_version_is_turned_away_while_the_new_one_is_open(world: Versions) -> None:
    world.want(NEW)
    world.start("new", NEW)
    world.start("late", OLD)
    assert world.voids("late") == ["other_version"]
    (session,) = world.router.dispatcher.roster.sessions.values()
    world.router.lose(world.now, session, "disconnected")
    world.start("again", OLD)
    assert world.voids("again") == [], "any version is better than none"


def test_back_to_the_old_version_is_the_same_way(world: Versions) -> None:
    world.want(NEW)
    world.start("new", NEW)
    world.want(OLD)
    world.start("old", OLD)
    world.turn()
    assert world.voids("new") == ["replaced"]


def test_of_a_model_without_a_wanted_version_all_are_served(world: Versions) -> None:
    world.start("one", OLD)
    world.start("two", NEW)
    world.want("")
    world.turn()
    assert {session.ready for session in world.router.dispatcher.roster.sessions.values()} == {True}


# --- a line ----------------------------------------------------------------------------------------------------------


def worker_of(line: WholeLine, name: str, source: Path) -> tuple[threading.Thread, Worker]:
    options = ModelOptions(name="tiny", source=source, engine_threads=1)
    worker = Worker(backend=line.line.endpoints.backend, models=[options], name=name, context=line.context)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    return thread, worker


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_is_replaced_under_load_and_each_frame_is_answered_by_one_version(
    endpoint: Endpoint, context: Context, tmp_path: Path
) -> None:
    """The two versions call their classes differently: what an answer shows must agree with the version it names."""
    frames, old, new = 80, tmp_path / "old.onnx", tmp_path / "new.onnx"
    tiny.make(old)
    describe(old, new, Hints(names=tuple(f"new-{name}" for name in tiny.NAMES)))
    with whole_line(endpoint, context, tmp_path, {"tiny": old}) as line:
        operator = Peer(context, zmq.DEALER, line.line.endpoints.control)
        worker_of(line, "second", old)
        end = line.line.endpoints.frontend
        with (
            Camera("cam1", endpoint=end, context=context, deadline=60.0) as one,
            Camera("cam2", endpoint=end, context=context, deadline=60.0) as two,
        ):
            for number in range(frames):
                if number == frames // 4:
                    text = line.broker.in_force.text.replace('file = ""', 'file = "new.onnx"')
                    operator.send(Reload(text=text, versions={"tiny": sha256(new)}))
                    assert operator.expect(wire.Reloaded).changes == ['models.tiny.file: "" -> "new.onnx"']
                    replacement, worker = worker_of(line, "new", new)
                if number == frames // 2:
                    line.wait_for(lambda: _open(operator) == {sha256(new)})
                one.send(spots(number), timeout=30.0)
                two.send(spots(number), timeout=30.0)
            assert one.flush(30.0)
            assert two.flush(30.0)
        line.wait_published(2 * frames)
        report = line.report()
        worker.stop()
        replacement.join(10)
        operator.close()
    assert (report["joined"], report["requeued"], report["duplicates"]) == (2 * frames, 0, 0)
    for camera in ("cam1", "cam2"):
        bodies = sorted((body for _, _, body in line.published if body["camera"] == camera), key=lambda b: b["seq"])
        assert [body["outcome"] for body in bodies] == ["complete"] * frames
        used = [body["results"]["tiny"]["version"] for body in bodies]
        known = {sha256(old)[:12]: "", sha256(new)[:12]: "new-"}
        assert used == sorted(used, key=list(known).index), "an older version after a newer one"
        assert set(used) == set(known)
        for body in bodies:
            (spot,) = body["results"]["tiny"]["detections"]
            assert spot["name"].startswith("new-") == bool(known[body["results"]["tiny"]["version"]])


def _open(operator: Peer) -> set[str]:
    operator.send(wire.List())
    return {session.sha256 for session in operator.expect(wire.Listed).sessions}
