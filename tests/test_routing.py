from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker import desk
from broker import line as line_file
from broker.admission import SEQ_LIMIT
from broker.backlog import Backlog
from broker.dispatch import CRASH_LIMIT
from broker.egress import LOOSE_LIMIT
from broker.line import CameraEntry
from broker.publisher import Publisher
from broker.task import LEASED, OpenFrame, Task
from broker.wire import (
    RESULT_LIMIT,
    Answer,
    Bye,
    Done,
    Expectation,
    Frame,
    Hello,
    Jack,
    Key,
    Message,
    Outcome,
    Skip,
    Stop,
)
from tests.world import JPEG, World

LONG = 1000.0


def settle_all(world: World, seconds: float = 30.0) -> None:
    """A healthy network settles everything; what is not settled then is lost."""
    world.calm(2.0)  # whoever was let go hears of it
    for model in world.line.models:
        if not any(worker.model == model and not worker.over for worker in world.workers.values()):
            world.start_worker(model)
    for camera in world.cameras.values():
        camera.hello()
    world.ledger.hello()
    world.calm(seconds)
    check_settled(world)


def check_settled(world: World) -> None:
    ledger = world.ledger
    for camera in world.cameras.values():
        assert not camera.held, f"unsettled: {camera.held}"
        for seq, complete in camera.settled.items():
            key = Key(camera.name, camera.boot, seq)
            statuses = [ledger.statuses[key, model][0] for model in ledger.rows[key]]
            assert complete == all(status == "ok" for status in statuses)
    for key, models in ledger.rows.items():
        for model in models:
            status, _reason = ledger.statuses[key, model]
            assert status != "ok" or (key, model) in world.looked, "ok, but nobody looked"
    router = world.router
    assert not router.frames.open
    assert router.frames.bytes == 0
    assert not router.egress.unacked
    for session in router.dispatcher.roster.sessions.values():
        assert not session.in_flight


class Line(RuleBasedStateMachine):
    """Cameras, workers and join around the real router, on links that lose, repeat and reorder."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.calm(0.2)

    @rule(camera=st.sampled_from(["cam0", "cam1"]), budget=st.sampled_from([0.4, LONG]), count=st.integers(1, 3))
    def shoot(self, camera: str, budget: float, count: int) -> None:
        for _ in range(count):
            self.world.cameras[camera].shoot(budget)

    @rule(
        seed=st.integers(0, 1 << 30),
        lose=st.sampled_from([0.0, 0.3]),
        repeat=st.sampled_from([0.0, 0.3]),
        mix=st.booleans(),
    )
    def storm(self, seed: int, lose: float, repeat: float, mix: bool) -> None:
        """Some messages of every link arrive: maybe twice, maybe never, maybe in another order."""
        chance = random.Random(seed)

        def some(messages: list[Message]) -> list[Message]:
            arriving = list(messages)
            messages.clear()
            if mix:
                chance.shuffle(arriving)
            return [m for m in arriving if chance.random() >= lose for _ in range(1 + (chance.random() < repeat))]

        world = self.world
        for name, camera in world.cameras.items():
            for message in some(camera.outgoing):
                world.from_camera(name, message)
        for name, worker in list(world.workers.items()):
            for message in some(worker.outgoing):
                world.from_worker(name, message)
        for message in some(world.ledger.outgoing):
            world.from_join(message)
        world.turn()
        for name, camera in world.cameras.items():
            for message in some(world.to_camera[name]):
                camera.receive(message)
        for name, worker in world.workers.items():
            for message in some(world.to_worker[name]):
                worker.receive(message)
        for message in some(world.to_join):
            if not hasattr(message, "text"):
                world.ledger.receive(world.now, message)

    @rule(which=st.integers(0, 5))
    def work(self, which: int) -> None:
        workers = list(self.world.workers.values())
        if workers:
            worker = workers[which % len(workers)]
            worker.take()
            worker.run(self.world.looked)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 0.5]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds
        for worker in self.world.workers.values():
            worker.beat()
        self.world.ledger.close_due(self.world.now, self.world.router.epoch)

    @rule()
    def ask(self) -> None:
        for camera in self.world.cameras.values():
            camera.hello()
        self.world.ledger.hello()

    @rule(which=st.integers(0, 5), again=st.booleans())
    def kill_worker(self, which: int, again: bool) -> None:
        workers = list(self.world.workers.values())
        if workers:
            worker = workers[which % len(workers)]
            self.world.kill_worker(worker.name)
            if again:
                self.world.start_worker(worker.model)

    @rule(which=st.integers(0, 5))
    def stop_worker(self, which: int) -> None:
        workers = list(self.world.workers)
        if workers:
            desk.stop(self.world.router, self.world.now, Stop(workers=[workers[which % len(workers)]]))

    @rule(model=st.sampled_from(["det", "seg"]))
    def add_worker(self, model: str) -> None:
        if len(self.world.workers) < 6:
            self.world.start_worker(model)

    @rule()
    def kill_broker(self) -> None:
        self.world.start_broker()
        for worker in self.world.workers.values():
            worker.wire.clear()

    @rule()
    def kill_join(self) -> None:
        self.world.ledger.restart()
        self.world.to_join.clear()

    @invariant()
    def cameras_keep_to_their_window(self) -> None:
        for camera in self.world.cameras.values():
            assert len(camera.held) <= 2 * self.world.line.limits.window

    @invariant()
    def workers_hold_no_more_than_they_asked_for(self) -> None:
        for worker in self.world.workers.values():
            assert len(worker.wire) + len(worker.jobs) <= self.world.window

    def teardown(self) -> None:
        settle_all(self.world, 60.0)


Line.TestCase.settings = settings(
    max_examples=300, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLine = pytest.mark.slow(Line.TestCase)


def test_a_frame_goes_to_every_model_and_is_settled_once() -> None:
    world = World()
    world.calm(0.3)
    assert world.cameras["cam0"].shoot(LONG)
    world.calm(1.0)
    assert world.cameras["cam0"].settled == {0: True}
    assert world.looked == {(Key("cam0", "b0", 0), model) for model in ("det", "seg")}
    check_settled(world)


def test_a_lost_session_requeues_and_the_report_says_how_many() -> None:
    world = World(models=("det",))
    world.calm(0.3)
    for _ in range(2):
        world.cameras["cam0"].shoot(LONG)
    world.exchange()
    world.crash_worker("w1")
    world.start_worker("det")
    world.calm(10.0)
    check_settled(world)
    assert world.router.counts["requeued_total", "det"] == 2
    assert world.ledger.suspects == {(Key("cam0", "b0", 0), "det"): 1}


@pytest.mark.parametrize(("silences", "ending"), [(1, ("ok", "")), (3, ("ok", "")), (4, ("failed", "poison"))])
def test_a_worker_that_falls_silent_is_evidence_only_where_the_frame_was_alone(
    silences: int, ending: tuple[str, str]
) -> None:
    """A worker that is cut off, starved or stopped may live; one after the other with the same frame may not."""
    world = World(cameras=1, models=("det",))
    world.start_worker("det")
    world.calm(0.3)
    world.cameras["cam0"].shoot(LONG)
    world.exchange()
    sessions = world.router.dispatcher.roster.sessions
    for number in range(silences):
        until = world.now + 10.0
        while not (
            holding := [s.worker.name for s in sessions.values() if s.in_flight and s.worker.name in world.workers]
        ):
            assert world.now < until, "it was given up"
            world.now += 0.01
            for worker in world.workers.values():
                worker.beat()
            world.exchange()
        assert world.ledger.suspects.get((Key("cam0", "b0", 0), "det"), 0) == max(0, number - 1)
        world.kill_worker(holding[0])
        world.start_worker("det")
    world.calm(10.0)
    check_settled(world)
    assert world.ledger.statuses[Key("cam0", "b0", 0), "det"] == ending
    assert world.router.counts["sessions_lost_total", "det", "no_beat"] == silences
    assert world.router.counts["poison_total", "det"] == (ending[1] == "poison")


def test_an_answer_that_the_join_gave_up_before_it_knew_the_frame_settles_nothing() -> None:
    world = World(cameras=1, models=("det",))
    world.calm(0.3)
    world.cameras["cam0"].shoot(LONG)
    world.exchange()
    world.workers["w1"].take()
    world.workers["w1"].run(world.looked)
    for message in world.workers["w1"].outgoing:
        world.from_worker("w1", message)
    world.turn()
    kinds: dict[type[Any], list[Any]] = {Expectation: [], Outcome: []}
    for entry in world.router.egress.unacked.values():
        kinds.setdefault(type(entry.item), []).append(entry.item)
    (expectation,), (outcome,) = kinds[Expectation], kinds[Outcome]
    world.from_join(Jack(epoch=world.router.epoch, tickets=[outcome.ticket]))
    world.from_join(Jack(epoch=world.router.epoch, tickets=[expectation.ticket]))
    world.turn()
    assert outcome.key in world.router.frames.open
    world.from_join(Jack(epoch=world.router.epoch, tickets=[outcome.ticket]))
    assert outcome.key not in world.router.frames.open


@pytest.mark.parametrize("proven", [True, False])
def test_a_suspect_runs_where_something_was_answered_before(proven: bool) -> None:
    """Workers that die at their start, whatever they are given, make no frame poison."""
    world = World(cameras=1, models=("det",))
    for _ in range(2):
        world.start_worker("det")
    world.calm(0.3)
    world.cameras["cam0"].shoot(LONG)
    world.exchange()
    (victim,) = [name for name, worker in world.workers.items() if worker.wire or worker.jobs]
    fresh, old = (one for one in world.router.dispatcher.roster.sessions.values() if one.worker.name != victim)
    old.answered = 3 if proven else 0
    world.kill_worker(victim)
    taken: list[str] = []
    for _ in range(400 if proven else 150):
        world.now += 0.01
        for worker in world.workers.values():
            worker.beat()
            taken += [worker.name] * len(worker.wire)
            worker.take()
            worker.run(world.looked)
        world.exchange()
    assert not fresh.in_flight
    assert set(taken) == ({old.worker.name} if proven else set())
    world.calm(10.0)  # patience has an end
    check_settled(world)


def poison(world: World, key: Key, crashes: int, *, settle: bool = True) -> None:
    """Workers that take this frame die, `crashes` times, and are started again by a supervisor."""
    done = 0
    for turn in range(4000):
        if not settle and done == crashes == world.ledger.suspects.get((key, "det")):
            break
        if turn % 10 == 0:
            for worker in world.workers.values():
                if not worker.registered:
                    worker.ready()
        world.now += 0.01
        for worker in list(world.workers.values()):
            worker.beat()
            worker.take()
            if done < crashes and worker.jobs and worker.jobs[0].key == key:
                world.crash_worker(worker.name)
                world.start_worker(worker.model)
                done += 1
                continue
            worker.run(world.looked)
        world.exchange()
    assert done == crashes


def test_a_poison_frame_is_failed_after_three_crashes_and_no_other_is() -> None:
    world = World(models=("det",))
    world.start_worker("det")
    world.calm(0.3)
    for _ in range(4):
        world.cameras["cam0"].shoot(LONG)
        world.cameras["cam1"].shoot(LONG)
    key = Key("cam0", "b0", 1)
    poison(world, key, CRASH_LIMIT)
    check_settled(world)
    assert world.ledger.statuses[key, "det"] == ("failed", "poison")
    others = [status for (other, _), (status, _reason) in world.ledger.statuses.items() if other != key]
    assert others == ["ok"] * 7


def test_suspect_counts_outlive_the_broker() -> None:
    world = World(models=("det",))
    world.start_worker("det")
    world.calm(0.3)
    world.cameras["cam0"].shoot(LONG)
    key = Key("cam0", "b0", 0)
    poison(world, key, CRASH_LIMIT - 1, settle=False)
    assert world.ledger.suspects == {(key, "det"): CRASH_LIMIT - 1}
    world.start_broker()
    for worker in world.workers.values():  # a crash with a job of the old broker is one that the new can not know of
        worker.wire.clear()
        worker.jobs.clear()
    world.ledger.hello()
    world.cameras["cam0"].hello()
    poison(world, key, 1)
    check_settled(world)
    assert world.ledger.statuses[key, "det"] == ("failed", "poison")


def test_monitor_frames_are_latest_wins_and_every_one_is_accounted_for() -> None:
    world = World(cameras=1, models=("det",))
    world.line.cameras["cam0"] = type(world.line.cameras["cam0"])(station="station", policy="monitor")
    router = world.router
    router.from_camera(world.now, b"cam0", Hello(camera="cam0", boot="b", protocol=1, policy="monitor"))
    world.turn()
    for seq in range(5):
        header = Frame(
            key=Key("cam0", "b", seq), policy="monitor", encoding="jpeg", shape=[1, 1], len=4, age=0.0, budget=5.0
        )
        router.frame(world.now, b"cam0", header, JPEG, JPEG, 4)
        world.turn()
    assert router.counts["accepted_total", "cam0"] == 5
    assert router.counts["tasks_total", "det", "dropped"] == 4
    assert len(router.frames.open) == 1


def test_a_monitor_camera_that_sends_often_keeps_its_turn() -> None:
    backlog = Backlog("det")
    served: list[str] = []
    for tick in range(600):  # fast sends each tick, the slow ones every sixth; one frame is served every third
        for camera in ("fast", "slow1", "slow2"):
            if camera == "fast" or tick % 6 == 0:
                backlog.replace(monitor_task(camera, tick))
        if tick % 3 == 0:
            task = backlog.pop()
            assert task is not None
            task.state = LEASED
            served.append(task.frame.key.camera)
    assert min(served.count(camera) for camera in ("fast", "slow1", "slow2")) >= 40


def monitor_task(camera: str, seq: int) -> Task:
    header = Frame(
        key=Key(camera, "b", seq), policy="monitor", encoding="jpeg", shape=[1, 1], len=4, age=0.0, budget=5.0
    )
    entry = CameraEntry(station="station", policy="monitor")
    return Task(OpenFrame(Publisher(camera, entry, b"", "b", 0.0), header, JPEG, 4, 5.0), "det", 0.0)


def test_one_camera_can_not_starve_another() -> None:
    world = World(models=("det",), window=1)
    world.calm(0.3)
    for camera in world.cameras.values():
        camera.credit = 50
    for publisher in world.router.admission.publishers.values():
        publisher.credit = 50
    for _ in range(20):
        world.cameras["cam0"].shoot(LONG)
    for _ in range(4):
        world.cameras["cam1"].shoot(LONG)
    served: list[str] = []
    while len(world.cameras["cam1"].settled) < 4:
        world.now += 0.01
        for worker in world.workers.values():
            worker.beat()
            worker.take()
            served += [job.key.camera for job in worker.jobs]
            worker.run(world.looked)
        world.exchange()
    assert served.count("cam0") <= 6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"len": 5}, "length_mismatch"),
        ({"shape": [0, 1]}, "shape_invalid"),
        ({"encoding": "bgr8", "shape": [1, 1, 3]}, "length_mismatch"),
        ({"encoding": "bgr8", "shape": [1, 1]}, "shape_invalid"),
        ({"encoding": "png"}, "not_an_image"),
        ({"policy": "monitor"}, "policy_mismatch"),
        ({"key": Key("cam0", "other", 0)}, "unknown_boot"),
        ({"key": Key("cam0", "b0", 10_000)}, "over_credit"),
        ({"age": -1.0}, "header_invalid"),
        ({"budget": float("nan")}, "header_invalid"),
    ],
)
def test_a_frame_that_is_not_what_its_header_says_is_refused(change: dict[str, object], reason: str) -> None:
    world = World(cameras=1)
    world.calm(0.2)
    fields: dict[str, object] = {
        "key": Key("cam0", "b0", 0),
        "policy": "inspect",
        "encoding": "jpeg",
        "shape": [1, 1, 3],
        "len": 4,
        "age": 0.0,
        "budget": 5.0,
    }
    header = Frame(**(fields | change))  # type: ignore[arg-type]
    world.from_camera("cam0", header)
    world.turn()
    assert world.router.counts["rejected_total", reason] == 1
    assert not world.router.frames.open


def test_a_second_live_camera_of_the_same_name_is_refused_and_a_dead_one_is_replaced() -> None:
    world = World(cameras=1)
    world.calm(0.2)
    router = world.router
    router.from_camera(world.now, b"impostor", Hello(camera="cam0", boot="b1", protocol=1))
    assert router.counts["rejected_total", "key_conflict"] == 1
    world.now += 2.0
    router.from_camera(world.now, b"impostor", Hello(camera="cam0", boot="b1", protocol=1))
    assert router.admission.publishers["cam0"].boot == "b1"


@pytest.mark.parametrize("away", [0.1, 5.0])
def test_what_an_older_connection_still_brings_in_does_not_draw_the_answers_there(away: float) -> None:
    """After a cut TCP delivers what was sent before it, and that may come after the greeting on a new connection."""
    world = World(cameras=1)
    world.calm(0.2)
    router = world.router
    greeting = Hello(camera="cam0", boot=world.cameras["cam0"].boot, protocol=1)
    world.now += away
    router.end_turn(world.now)  # after 5 s the broker has given the camera up
    router.outbox.clear()
    older, newer = b"\0\0\0\0\7", b"\0\0\0\0\10"
    router.from_camera(world.now, newer, greeting)
    router.from_camera(world.now, older, greeting)  # for the first time: what it greeted with before was on its way
    assert [identity for identity, _ in router.outbox.to_cameras] == [newer]
    assert router.admission.publishers["cam0"].identity == newer
    assert router.counts["stale_total", "hello"] == 1
    router.from_camera(world.now, newer, greeting)
    assert [identity for identity, _ in router.outbox.to_cameras] == [newer, newer]


def test_an_older_connection_that_goes_on_greeting_alone_is_answered() -> None:
    """Handshakes may end in another order than they began, and the camera lives on the connection that seems older."""
    world = World(cameras=1)
    world.calm(0.2)
    router = world.router
    alive, dead = b"\0\0\0\0\7", b"\0\0\0\0\10"
    greeting = Hello(camera="cam0", boot=world.cameras["cam0"].boot, protocol=1)
    router.from_camera(world.now, dead, greeting)
    router.outbox.clear()
    for _ in range(5):
        world.now += 0.3
        router.from_camera(world.now, alive, greeting)
    assert [identity for identity, _ in router.outbox.to_cameras] == [alive]
    assert router.admission.by_identity == {alive: router.admission.publishers["cam0"]}


def test_another_boot_of_a_camera_may_greet_on_any_connection() -> None:
    world = World(cameras=1)
    world.calm(0.2)
    router = world.router
    for boot in ("b1", "b2", "b1"):
        world.now += 2.0
        router.from_camera(world.now, b"same", Hello(camera="cam0", boot=boot, protocol=1))
        assert router.admission.publishers["cam0"].boot == boot


def test_skips_and_ends_of_boots_are_recorded() -> None:
    world = World(cameras=1)
    world.calm(0.2)
    world.from_camera("cam0", Skip(key=Key("cam0", "b0", 0), reason="no_credit"))
    world.from_camera("cam0", Bye(camera="cam0", boot="b0", last_seq=0))
    world.exchange()
    assert world.ledger.boots == {("cam0", "b0"): "ended"}


def test_a_skip_gives_back_the_seq_that_it_used_up_and_a_repeated_one_nothing() -> None:
    world = World(cameras=1)
    world.calm(0.2)
    publisher = world.router.admission.publishers["cam0"]
    while world.cameras["cam0"].shoot(LONG):
        pass
    world.exchange()
    credit, seq = publisher.credit, world.cameras["cam0"].next_seq
    for _ in range(2):
        world.from_camera("cam0", Skip(key=Key("cam0", "b0", seq), reason="no_credit"))
        world.turn()
        assert (publisher.latest, publisher.credit) == (seq, credit + 1)


def test_a_drained_session_finishes_and_is_told_so() -> None:
    world = World(models=("det",))
    world.calm(0.3)
    world.cameras["cam0"].shoot(LONG)
    world.exchange()
    world.drain_workers()
    worker = world.workers["w1"]
    worker.take()
    before = worker.session
    worker.run(world.looked)
    for _ in range(3):
        world.exchange()
    assert world.cameras["cam0"].settled == {0: True}
    assert world.router.counts["sessions_lost_total", "det", "drained"] == 1
    assert worker.session != before
    assert not world.ledger.suspects


def test_a_camera_that_was_cut_off_goes_on_where_it_was() -> None:
    world = World(cameras=1, models=("det",))
    world.calm(0.2)
    camera = world.cameras["cam0"]
    worker = world.workers.pop("w1")  # busy: it beats and does not answer
    while camera.shoot(LONG):
        pass
    for _ in range(100):  # 5 s without a word of the camera
        world.now += 0.05
        worker.beat()
        for message in worker.outgoing:
            world.from_worker("w1", message)
        worker.outgoing.clear()
        for message in camera.outgoing:
            world.from_camera("cam0", message)
        camera.outgoing.clear()
        for message in world.ledger.outgoing:
            world.from_join(message)
        world.ledger.outgoing.clear()
        world.turn()
        for message in world.to_join:
            if not hasattr(message, "text"):
                world.ledger.receive(world.now, message)
        world.to_join.clear()
    assert "cam0" not in world.router.admission.publishers
    world.workers["w1"] = worker
    world.to_camera["cam0"].clear()
    camera.hello()
    before = camera.next_seq
    world.calm(10.0)
    assert camera.shoot(LONG), "credit never comes back"
    world.calm(10.0)
    assert camera.settled == dict.fromkeys(range(before + 1), True)
    check_settled(world)


def test_a_frame_beyond_the_credit_does_not_extend_it() -> None:
    world = World(cameras=1)
    world.calm(0.2)
    before = world.router.admission.publishers["cam0"].credit
    for again in (0, 1):
        header = Frame(
            key=Key("cam0", "b0", 10_000), policy="inspect", encoding="jpeg", shape=[1, 1, 3], len=4, age=0.0,
            budget=5.0, again=again,
        )  # fmt: skip
        world.from_camera("cam0", header)
        world.turn()
    assert world.router.counts["rejected_total", "over_credit"] == 2
    assert world.router.admission.publishers["cam0"].credit == before


def test_a_camera_with_nothing_open_may_send_one_frame_when_there_is_no_room() -> None:
    publisher = Publisher("cam0", CameraEntry(station="station"), b"", "b", 0.0)
    publisher.grant(64, room=False)
    assert publisher.credit == 0
    publisher.latest = publisher.credit
    publisher.open = 1
    publisher.grant(64, room=False)
    assert publisher.credit == 0
    publisher.grant(64, room=True)
    assert publisher.credit > 4


def test_without_a_join_notes_are_bounded_and_the_surplus_is_counted() -> None:
    world = World(cameras=1)
    world.calm(0.2)
    world.router.join_unreachable()
    for seq in range(LOOSE_LIMIT + 100):
        world.from_camera("cam0", Skip(key=Key("cam0", "b0", seq), reason="no_credit"))
    assert len(world.router.egress.unacked) <= LOOSE_LIMIT
    assert world.router.egress.given_up_total >= 100


def test_a_seq_that_the_ledger_can_not_number_is_refused() -> None:
    world = World(cameras=1)
    world.calm(0.2)
    world.from_camera("cam0", Skip(key=Key("cam0", "b0", SEQ_LIMIT), reason="no_credit"))
    world.from_camera("cam0", Hello(camera="cam0", boot="b0", protocol=1, next_seq=SEQ_LIMIT))
    assert world.router.counts["rejected_total", "header_invalid"] == 2


def test_a_reload_moves_a_busy_camera_to_its_new_station_at_once() -> None:
    world = World(cameras=1, models=("det",))
    world.calm(0.2)
    text = line_file.to_toml(world.line).replace("[stations.station]", "[stations.press]")
    world.router.reload(line_file.parse(text.replace('station = "station"', 'station = "press"')), "new")
    world.cameras["cam0"].shoot(LONG)
    world.exchange()
    (frame,) = world.router.frames.open.values()
    assert (frame.expectation.station, frame.expectation.line) == ("press", "new")


def test_a_session_whose_socket_nobody_reaches_is_given_up() -> None:
    world = World(models=("det",))
    world.calm(0.3)
    (session,) = world.router.dispatcher.roster.sessions.values()
    session.ready = False
    worker = world.workers["w1"]
    for _ in range(120):
        world.now += 0.05
        worker.beat()
        for message in worker.outgoing:
            world.from_worker("w1", message)
        worker.outgoing.clear()
        world.turn()
    assert world.router.counts["sessions_lost_total", "det", "not_connected"] == 1
    assert not world.router.dispatcher.served()


def test_what_is_too_large_for_the_join_is_a_failure() -> None:
    world = World(cameras=1, models=("det",))
    world.calm(0.2)
    world.cameras["cam0"].shoot(LONG)
    world.exchange()
    (job,) = world.workers["w1"].wire
    answer = Answer(dseq=job.dseq, key=job.key, status="ok", body=bytes(RESULT_LIMIT + 1))
    world.from_worker("w1", Done(session=job.session, grant=9, model="det", items=[answer]))
    world.exchange()
    assert world.ledger.statuses[job.key, "det"] == ("failed", "result_too_large")


# --- frames that come again after their deadline ---------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0, 1])
def test_a_frame_that_comes_again_after_its_deadline_ends_as_the_ledger_has_it(missing: int) -> None:
    """The new broker gives every model `expired` before the join has said what it knows: what it knows counts."""
    world = World(cameras=1)
    camera = world.cameras["cam0"]
    settle_all(world, 2.0)
    assert camera.shoot(5.0)
    frame = camera.held[0]
    settle_all(world, 2.0)
    assert camera.settled == {0: True}

    camera.settled.clear()  # the news were lost with the broker
    for model in world.line.models if missing else []:
        del world.ledger.statuses[frame.key, model]
    camera.held[0] = msgspec.structs.replace(frame, age=60.0, again=1)
    world.start_broker()
    settle_all(world)
    assert camera.settled == {0: not missing}
