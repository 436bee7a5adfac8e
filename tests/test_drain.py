"""Workers that are let go while frames flow: nothing is lost, nothing runs twice, whoever asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from broker import desk, wire
from broker.line import Line
from broker.roster import OVER_KEPT
from broker.server import BrokerServer
from broker.wire import Beat, Drain, Key, List, SessionBeat, Stop, Void
from clients.camera import Camera
from tests.peers import JPEG, Context, Join, Peer, beat, broker, frame, hello, make_line, ready
from tests.test_end_to_end import assert_reconciled, spots
from tests.whole_line import WholeLine, whole_line
from tests.world import World
from workers.engine.fake import Fake
from workers.options import ModelOptions
from workers.worker import Worker

LONG = 1000.0
Endpoint = Callable[[str], str]


# --- the router ------------------------------------------------------------------------------------------------------


def stop(world: World, **meant: Any) -> wire.Stopped:
    return desk.stop(world.router, world.now, Stop(**meant))


def running(frames: int) -> World:
    """One camera, one model with two workers, `frames` frames under way."""
    world = World(cameras=1, models=("det",))
    world.start_worker("det")
    world.calm(0.3)
    for _ in range(frames):
        assert world.cameras["cam0"].shoot(LONG)
    world.exchange()
    return world


def test_a_stopped_session_finishes_what_it_has_gets_nothing_new_and_is_told() -> None:
    world = running(frames=4)
    had = [job.dseq for job in world.workers["w1"].wire]
    answer = stop(world, workers=["w1"])
    assert [(one.worker, one.in_flight, one.draining, one.open) for one in answer.sessions] == [("w1", 2, True, False)]
    for _ in range(4):
        world.cameras["cam0"].shoot(LONG)
    world.exchange()
    assert [job.dseq for job in world.workers["w1"].wire] == had
    voids = []
    for _ in had:
        world.workers["w1"].take()
        world.workers["w1"].run(world.looked)
        for message in world.workers["w1"].outgoing:
            world.from_worker("w1", message)
        world.workers["w1"].outgoing.clear()
        world.turn()
        voids += [m.reason for m in world.to_worker["w1"] if isinstance(m, Void)]
        world.to_worker["w1"].clear()
    assert voids == ["stopped"]
    del world.workers["w1"], world.to_worker["w1"]
    world.calm(2.0)
    assert world.cameras["cam0"].settled == dict.fromkeys(range(8), True)
    assert world.router.counts["requeued_total", "det"] == 0


def test_a_session_that_lost_the_word_is_told_again_and_never_taken_back() -> None:
    world = running(frames=0)
    (one,) = stop(world, workers=["w1"]).sessions
    world.turn()
    world.to_worker["w1"].clear()  # the VOID is lost
    beats = [SessionBeat(session=one.session, started=0, completed=0, exec_age=0.0, grant=2)]
    world.from_worker("w1", Beat(worker="w1", sessions=beats))
    world.from_worker("w1", ready(one.session))
    world.turn()
    assert [m.reason for m in world.to_worker["w1"] if isinstance(m, Void)] == ["stopped", "stopped"]
    assert one.session not in world.router.dispatcher.roster.sessions


def test_of_sessions_that_are_over_only_so_many_are_remembered() -> None:
    world = running(frames=0)
    for number in range(OVER_KEPT + 3):
        world.now += 0.03  # registrations have a rate
        world.from_worker("w9", ready(f"x{number}", worker="w9"))
        stop(world, workers=["w9"])
    assert len(world.router.dispatcher.roster.over) == OVER_KEPT


@pytest.mark.parametrize("meant", [{"workers": ["w1", "w7"]}, {"models": ["seg"]}])
def test_of_an_unknown_name_nothing_is_stopped(meant: Any) -> None:
    world = running(frames=0)
    answer = stop(world, **meant)
    assert (answer.unknown, answer.sessions) == ([name for names in meant.values() for name in names][-1:], [])
    assert not any(session.draining for session in world.router.dispatcher.roster.sessions.values())


@pytest.mark.parametrize("meant", [{"models": ["det"]}, {"everything": True}, {"workers": ["w1", "w2"]}])
def test_by_model_by_name_or_all(meant: Any) -> None:
    world = running(frames=2)
    assert {one.worker for one in stop(world, **meant).sessions} == {"w1", "w2"}


def test_a_stopped_worker_that_dies_is_a_lost_one() -> None:
    world = running(frames=4)
    stop(world, workers=["w1"])
    world.kill_worker("w1")
    world.calm(5.0)
    assert world.cameras["cam0"].settled == dict.fromkeys(range(4), True)
    assert world.router.counts["requeued_total", "det"] == 2


# --- the broker ------------------------------------------------------------------------------------------------------


@pytest.fixture
def line(endpoint: Endpoint) -> Line:
    return make_line(endpoint)


@pytest.fixture
def server(line: Line, context: Context) -> Iterator[BrokerServer]:
    with broker(line, context) as instance:
        yield instance


def test_an_operator_sees_who_is_there_and_stops_one(server: BrokerServer, context: Context) -> None:
    ends = server.line.endpoints
    operator = Peer(context, zmq.DEALER, ends.control)
    worker = Peer(context, zmq.DEALER, ends.backend)
    camera = Peer(context, zmq.DEALER, ends.frontend)
    join = Join(context, ends.egress)
    worker.send(ready(sha256="ab" * 32))
    port = worker.expect(wire.Endpoint).port
    pull = Peer(context, zmq.PULL, wire.data_endpoint(ends.backend, port))
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(budget=60.0), JPEG)
    while not pull.socket.poll(50):
        worker.send(beat("w1", "s1"))
    operator.send(List())
    (told,) = operator.expect(wire.Listed).sessions
    assert (told.worker, told.model, told.sha256, told.in_flight) == ("w1", "det", "ab" * 32, 1)
    operator.raw(b"\x73", b"\xc1")
    operator.send(Stop(workers=["w2"]))
    assert operator.expect(wire.Stopped).unknown == ["w2"]
    operator.send(Stop(workers=["w1"]))
    assert [one.in_flight for one in operator.expect(wire.Stopped).sessions] == [1]
    answer = wire.Answer(dseq=1, key=Key("cam1", "b1", 0), status="ok")
    worker.send(wire.Done(session="s1", grant=3, model="det", items=[answer]))
    assert worker.expect(Void).reason == "stopped"
    operator.send(List(models=["det"]))
    assert operator.expect(wire.Listed).sessions == []
    assert server.router.counts["refused_total", "not_msgpack"] == 1
    for peer in (operator, worker, camera, join, pull):
        peer.close()


# --- a line ----------------------------------------------------------------------------------------------------------


def feed(line: WholeLine, frames: int, half: Callable[[], None]) -> None:
    """Two cameras send `frames` frames each as credit allows; after half of them `half` is called."""
    end, context = line.line.endpoints.frontend, line.context
    with (
        Camera("cam1", endpoint=end, context=context, deadline=60.0) as first,
        Camera("cam2", endpoint=end, context=context, deadline=60.0) as second,
    ):
        for number in range(frames):
            if number == frames // 2:
                half()
            first.send(spots(number), timeout=30.0)
            second.send(spots(number), timeout=30.0)
        assert first.flush(30.0)
        assert second.flush(30.0)
        assert [one.stats.complete for one in (first, second)] == [frames, frames]


def assert_nothing_ran_twice(line: WholeLine, frames: int) -> None:
    line.wait_published(2 * frames)
    report = line.report()
    assert_reconciled(report, 2 * frames, 1)
    assert report["requeued"] == 0
    assert {body["results"]["slow"]["tries"] for _, _, body in line.published} == {1}
    assert line.broker.router.counts["requeued_total", "slow"] == 0


def other_worker(line: WholeLine) -> tuple[Worker, threading.Event]:
    """A second worker of the model `slow`, open; and whether it has ended in order."""
    ended = threading.Event()
    options = ModelOptions(name="slow", source=Fake(delay=0.01), engine_threads=1)
    worker = Worker(backend=line.line.endpoints.backend, models=[options], name="other", context=line.context)

    def run() -> None:
        if worker.run():
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    return worker, ended


@pytest.mark.parametrize("how", ["signal", "operator"])
def test_a_worker_that_ends_under_load_loses_nothing_and_runs_nothing_twice(
    endpoint: Endpoint, context: Context, tmp_path: Path, how: str
) -> None:
    frames = 60
    with whole_line(endpoint, context, tmp_path, {"slow": Fake(delay=0.01)}) as line:
        worker, ended = other_worker(line)
        operator = Peer(context, zmq.DEALER, line.line.endpoints.control)

        def sessions() -> list[wire.SessionState]:
            operator.send(List())
            found: list[wire.SessionState] = operator.expect(wire.Listed).sessions
            return [one for one in found if one.worker == "other"]

        def end_it() -> None:
            assert any(any(one.in_flight for one in sessions()) for _ in range(20_000)), "the other worker has no job"
            if how == "signal":
                worker.stop()
            else:
                operator.send(Stop(workers=["other"]))
                assert operator.expect(wire.Stopped).unknown == []

        feed(line, frames, end_it)
        assert ended.wait(10)
        assert sessions() == []
        assert_nothing_ran_twice(line, frames)
        operator.close()


def test_drain_of_another_workers_session_is_nobodys_right() -> None:
    world = running(frames=0)
    session = next(iter(world.router.dispatcher.roster.sessions))
    world.from_worker("stranger", Drain(worker="w1", sessions=[session]))
    assert session in world.router.dispatcher.roster.sessions
