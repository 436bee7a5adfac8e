from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from broker import wire
from broker.wire import Beat, Done, Drain, Endpoint, Job, Key, Message, Nack, Ready, Void, data_endpoint
from tests.conftest import free_port
from workers.engine.fake import Fake, poison_picture
from workers.errors import RefusedError, WorkersError
from workers.image import Picture
from workers.options import ModelOptions
from workers.worker import Worker

PATIENCE = 10.0
SQUARE = 64


@dataclass
class Lease:
    """The broker's side of a session: its READY and its PUSH."""

    ready: Ready
    identity: bytes
    push: zmq.Socket[bytes]
    sent: int = 0


@dataclass
class FakeBroker:
    """A ROUTER and a PUSH per session; keeps every message that it hears."""

    context: zmq.Context[zmq.Socket[bytes]]
    backend: str
    heard: list[tuple[bytes, Message]] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)

    def start(self) -> None:
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        self.router.router_mandatory = True
        self.router.bind(self.backend)

    def close(self) -> None:
        self.router.close(0)
        for lease in self.leases:
            lease.push.close(0)

    def wait(self, kind: type[Message], accept: Callable[[Any], bool] = lambda _: True, count: int = 1) -> list[Any]:
        """The messages of `kind` that were heard, once there are `count`."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = [m for _, m in self.heard if isinstance(m, kind) and accept(m)]
            if len(found) >= count:
                return found
            if not self.router.poll(max(0, int(1000 * (deadline - time.monotonic())))):
                pytest.fail(f"only {len(found)} of {count} {kind.__name__}; heard {[m for _, m in self.heard][-5:]}")
            identity, *segments = self.router.recv_multipart()
            self.heard.append((identity, wire.decode_message(segments)))

    def hear(self, seconds: float) -> list[tuple[bytes, Message]]:
        """What comes within the next `seconds`."""
        known = len(self.heard)
        deadline = time.monotonic() + seconds
        while self.router.poll(max(0, int(1000 * (deadline - time.monotonic())))):
            identity, *segments = self.router.recv_multipart()
            self.heard.append((identity, wire.decode_message(segments)))
        return self.heard[known:]

    def lease(self, *known: str) -> Lease:
        """Register the next session that says READY and whose id is not among `known`."""
        ready = self.wait(Ready, lambda m: m.session not in known)[0]
        identity = next(i for i, m in self.heard if isinstance(m, Ready) and m.session == ready.session)
        port = free_port()
        push = self.context.socket(zmq.PUSH)
        push.linger = 0
        push.bind(data_endpoint(self.backend, port))
        self.say(identity, Endpoint(session=ready.session, port=port, epoch="0" * 12))
        lease = Lease(ready, identity, push)
        self.leases.append(lease)
        assert push.poll(int(1000 * PATIENCE), zmq.POLLOUT), "the session does not connect its PULL"
        return lease

    def say(self, identity: bytes, message: Message) -> None:
        self.router.send_multipart([identity, *wire.encode(message)])

    def send(self, lease: Lease, picture: Picture, *, camera: str = "cam1", **changes: Any) -> Job:
        lease.sent += 1
        payload = changes.pop("payload", picture.tobytes())
        values: dict[str, Any] = {
            "session": lease.ready.session,
            "dseq": lease.sent,
            "key": Key(camera, "b" * 12, lease.sent),
            "tries": 1,
            "encoding": "bgr8",
            "shape": list(picture.shape),
            "budget": 60.0,
        }
        job = Job(**(values | changes))
        lease.push.send_multipart([*wire.encode(job), payload])
        return job

    def answers(self, session: str, count: int) -> list[wire.Answer]:
        """The answers to `session`, in the order of their coming, once there are `count`."""
        deadline = time.monotonic() + PATIENCE
        wanted = 1
        while time.monotonic() < deadline:
            done = self.wait(Done, lambda m: m.session == session, wanted)
            items = [answer for message in done for answer in message.items]
            if len(items) >= count:
                return items
            wanted = len(done) + 1
        pytest.fail(f"no {count} answers")


@pytest.fixture
def broker(context: zmq.Context[Any], endpoint: Callable[[str], str]) -> Iterator[FakeBroker]:
    broker = FakeBroker(context, endpoint("backend"))
    broker.start()
    yield broker
    broker.close()


@contextlib.contextmanager
def running(worker: Worker) -> Iterator[list[BaseException]]:
    """The worker in a thread; what it raised is in the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield raised
    finally:
        worker.stop()
        worker.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the worker does not end"


def worker_of(broker: FakeBroker, *fakes: Fake, **options: Any) -> Worker:
    models = [ModelOptions(name=f"m{number}", source=fake, **options) for number, fake in enumerate(fakes)]
    return Worker(backend=broker.backend, models=models, name="w", context=broker.context)


def grey(level: int) -> Picture:
    return np.full((SQUARE, SQUARE, 3), level, np.uint8)


def score(answer: wire.Answer) -> float:
    assert answer.status == "ok", answer.reason
    return float(msgspec.msgpack.decode(answer.body)["detections"][0]["score"])


def test_a_worker_that_no_broker_answers_says_so(context: zmq.Context[Any], endpoint: Callable[[str], str]) -> None:
    broker = FakeBroker(context, endpoint("backend"))
    models = [ModelOptions(name="m", source=Fake())]
    worker = Worker(backend=broker.backend, models=models, name="w", context=context, patience=0.3)
    with capture_logs() as logs, running(worker), contextlib.ExitStack() as stack:
        broker_words(logs, 1)
        broker.start()
        stack.callback(broker.close)
        broker.lease()
        broker_words(logs, 2)
        broker.close()
        lost, back, again = broker_words(logs, 3)
    assert (lost["log_level"], lost["backend"], back["log_level"]) == ("warning", broker.backend, "info")
    assert [word["event"] for word in (lost, back, again)] == [
        "no broker answers",
        "the broker answers again",
        "no broker answers",
    ]


def broker_words(logs: Sequence[Any], count: int) -> list[Any]:
    """What was logged of the broker's silence, once it is `count` entries."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while len(found := [entry for entry in logs if "answers" in entry["event"]]) < count:
        assert time.monotonic() < deadline, logs
        pause.wait(0.01)
    return found


def test_answers_belong_to_their_frames_and_keep_their_order(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake())):
        lease = broker.lease()
        assert (lease.ready.grant, lease.ready.depth, lease.ready.max_batch) == (2, 2, 1)
        assert lease.ready.classes == ["frame"]
        levels = [70, 100, 140, 180, 220, 250]
        for level in levels:
            broker.send(lease, grey(level))
        answers = broker.answers(lease.ready.session, len(levels))
    assert [answer.dseq for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert [score(answer) for answer in answers] == pytest.approx([level / 255 for level in levels], abs=1e-3)
    assert max(done.grant for done in broker.wait(Done)) == len(levels) + 2


def test_body_has_box_in_frame_pixels_and_all_timings(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake())):
        lease = broker.lease()
        broker.send(lease, np.full((200, 400, 3), 250, np.uint8))
        body = msgspec.msgpack.decode(broker.answers(lease.ready.session, 1)[0].body)
    assert body["task"] == "detect"
    assert body["detections"][0]["box"] == [0, 0, 400, 200]
    assert body["detections"][0]["area"] == 80000
    assert set(body["timings"]) == {"wait", "decode", "preprocess", "inference", "postprocess", "batch"}
    assert body["timings"]["batch"] == 1
    assert all(value >= 0 for value in body["timings"].values())


def test_batches_across_cameras(broker: FakeBroker) -> None:
    fake = Fake(batch=4)
    with running(worker_of(broker, fake, max_batch=4, max_delay=5.0)):
        lease = broker.lease()
        assert (lease.ready.grant, lease.ready.depth, lease.ready.max_batch) == (8, 8, 4)
        for number in range(4):
            broker.send(lease, grey(80 + 40 * number), camera=f"cam{number}")
        answers = broker.answers(lease.ready.session, 4)
    assert [answer.key.camera for answer in answers] == ["cam0", "cam1", "cam2", "cam3"]
    assert [msgspec.msgpack.decode(answer.body)["timings"]["batch"] for answer in answers] == [4] * 4
    assert [score(answer) for answer in answers] == pytest.approx([80 / 255, 120 / 255, 160 / 255, 200 / 255], abs=1e-3)


def test_a_batch_that_does_not_fill_leaves_after_max_delay(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake(batch=4), max_batch=4, max_delay=0.05)):
        lease = broker.lease()
        broker.send(lease, grey(200))
        (answer,) = broker.answers(lease.ready.session, 1)
    assert msgspec.msgpack.decode(answer.body)["timings"]["batch"] == 1


def test_encodings(broker: FakeBroker) -> None:
    picture = grey(180)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    png = cv2.imencode(".png", picture)[1].tobytes()
    padded = np.zeros((SQUARE, 80), np.uint8)
    padded[:, :SQUARE] = 180
    shape = [SQUARE, SQUARE]
    with running(worker_of(broker, Fake())):
        lease = broker.lease()
        broker.send(lease, picture, encoding="jpeg", payload=jpeg)
        broker.send(lease, picture, encoding="png", payload=png)
        broker.send(lease, picture, encoding="mono8", shape=shape, stride=80, payload=padded.tobytes())
        broker.send(lease, picture, encoding="bayer_rg8", shape=shape, payload=bytes([180]) * SQUARE**2)
        answers = broker.answers(lease.ready.session, 4)
    assert [score(answer) for answer in answers] == pytest.approx([180 / 255] * 4, abs=4e-3)


def test_bad_payloads_fail_their_jobs_only(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake())):
        lease = broker.lease()
        broker.send(lease, grey(200), encoding="jpeg", payload=b"no picture at all")
        broker.send(lease, grey(200), payload=b"")
        broker.send(lease, grey(200), shape=[9, 9, 3])
        broker.send(lease, grey(200), encoding="jpeg", payload=cv2.imencode(".jpg", grey(9))[1].tobytes()[:-40])
        broker.send(lease, grey(200))
        answers = broker.answers(lease.ready.session, 5)
    assert [(answer.status, answer.reason) for answer in answers] == [
        ("failed", "not_an_image"),
        ("failed", "payload_empty"),
        ("failed", "shape_mismatch"),
        ("failed", "truncated"),
        ("ok", ""),
    ]


def test_a_failed_job_inside_a_batch_keeps_the_order(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake(batch=3), max_batch=3, max_delay=5.0)):
        lease = broker.lease()
        broker.send(lease, grey(100))
        broker.send(lease, grey(150), encoding="jpeg", payload=b"broken")
        broker.send(lease, grey(200))
        first, second, third = broker.answers(lease.ready.session, 3)
    assert (first.dseq, second.dseq, third.dseq) == (1, 2, 3)
    assert second.status == "failed"
    assert (score(first), score(third)) == pytest.approx((100 / 255, 200 / 255), abs=1e-3)


def test_an_overdue_job_is_not_run(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake())):
        lease = broker.lease()
        broker.send(lease, grey(200), budget=-0.1)
        broker.send(lease, grey(200))
        answers = broker.answers(lease.ready.session, 2)
    assert [(answer.status, answer.reason) for answer in answers] == [("expired", "worker_queue"), ("ok", "")]


def test_garbage_on_the_pull_is_counted_and_survived(broker: FakeBroker) -> None:
    worker = worker_of(broker, Fake())
    with running(worker):
        lease = broker.lease()
        push = lease.push
        push.send_multipart([b"\x33"])
        push.send_multipart([b"\x33", b"\xc1", b"x"])
        push.send_multipart([b"\xff", b"", b"x"])
        push.send_multipart([b"\x33", b"x" * 5000, b"x"])
        push.send_multipart([*wire.encode(Void(session="s" * 12, reason="r")), b"x"])
        broker.send(lease, grey(200))
        broker.send(lease, grey(200), dseq=1)
        broker.send(lease, grey(200), dseq=2)
        answers = broker.answers(lease.ready.session, 2)
    assert [answer.dseq for answer in answers] == [1, 2]
    refused = {
        sample.labels["reason"]: sample.value
        for metric in worker.metrics.refused.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    wanted = ["segments", "not_msgpack", "unknown_type", "header_too_large", "unexpected_type", "repeated"]
    assert refused == dict.fromkeys(wanted, 1.0)


def test_a_job_of_another_session_is_given_back(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake())):
        lease = broker.lease()
        broker.send(lease, grey(200), session="other", dseq=77)
        (nack,) = broker.wait(Nack)
        lease.sent = 0
        broker.send(lease, grey(200))
        broker.answers(lease.ready.session, 1)
    assert (nack.session, nack.dseq, nack.retryable, nack.grant) == ("other", 77, True, 0)


def test_engine_error_gives_back_then_fails(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake(poison="raise"))):
        lease = broker.lease()
        broker.send(lease, poison_picture(SQUARE, SQUARE))
        (nack,) = broker.wait(Nack)
        assert (nack.dseq, nack.retryable, nack.reason, nack.grant) == (1, True, "engine_error", 3)
        broker.send(lease, poison_picture(SQUARE, SQUARE), tries=2)
        broker.send(lease, grey(200))
        failed, fine = broker.answers(lease.ready.session, 2)
    assert (failed.status, failed.reason) == ("failed", "engine_error")
    assert fine.status == "ok"


def test_one_poison_picture_does_not_fail_its_batch(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake(batch=3, poison="raise"), max_batch=3, max_delay=5.0)):
        lease = broker.lease()
        broker.send(lease, grey(100), tries=2)
        broker.send(lease, poison_picture(SQUARE, SQUARE), tries=2)
        broker.send(lease, grey(200), tries=2)
        answers = broker.answers(lease.ready.session, 3)
    assert [(answer.dseq, answer.reason) for answer in answers] == [(1, ""), (2, "engine_error"), (3, "")]
    assert (score(answers[0]), score(answers[2])) == pytest.approx((100 / 255, 200 / 255), abs=1e-3)


def test_ready_is_repeated_until_endpoint_and_beats_tell_progress(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake())):
        first, second = broker.wait(Ready, count=2)[:2]
        assert first == second
        lease = broker.lease()
        broker.send(lease, grey(200))
        broker.answers(lease.ready.session, 1)
        (beat, *_) = broker.wait(Beat, lambda m: any(s.completed == 1 for s in m.sessions))
    session = beat.sessions[0]
    assert (session.session, session.started, session.grant) == (first.session, 1, 3)


def test_void_makes_a_new_registration_and_the_old_job_is_still_answered(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake(delay=0.3))):
        old = broker.lease()
        broker.send(old, grey(200))
        broker.wait(Beat, lambda m: any(s.started == 1 for s in m.sessions))
        broker.say(old.identity, Void(session=old.ready.session, reason="no_beat"))
        new = broker.lease(old.ready.session)
        assert new.ready.session != old.ready.session
        broker.send(new, grey(100))
        assert score(broker.answers(old.ready.session, 1)[0]) == pytest.approx(200 / 255, abs=1e-3)
        assert score(broker.answers(new.ready.session, 1)[0]) == pytest.approx(100 / 255, abs=1e-3)


def test_a_void_of_an_old_session_changes_nothing(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake())):
        lease = broker.lease()
        broker.say(lease.identity, Void(session="f" * 12, reason="no_beat"))
        broker.send(lease, grey(200))
        broker.answers(lease.ready.session, 1)
        assert {ready.session for ready in broker.wait(Ready)} == {lease.ready.session}


def test_stop_drains(broker: FakeBroker) -> None:
    worker = worker_of(broker, Fake(delay=0.1))
    with running(worker) as raised:
        lease = broker.lease()
        broker.send(lease, grey(200))
        broker.send(lease, grey(100))
        worker.stop()
        (drain, *_) = broker.wait(Drain)
        assert drain.sessions == [lease.ready.session]
        assert len(broker.answers(lease.ready.session, 2)) == 2
        broker.say(lease.identity, Void(session=lease.ready.session, reason="drained"))
    assert not raised


def test_two_models_and_two_sessions_of_each(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake(), Fake(), threads=2)):
        known: list[str] = []
        for _ in range(4):
            known.append(broker.lease(*known).ready.session)
        assert sorted(lease.ready.model for lease in broker.leases) == ["m0", "m0", "m1", "m1"]
        for number, lease in enumerate(broker.leases):
            broker.send(lease, grey(50 * number + 80))
        for number, lease in enumerate(broker.leases):
            (answer,) = broker.answers(lease.ready.session, 1)
            assert score(answer) == pytest.approx((50 * number + 80) / 255, abs=1e-3)
        broker.wait(Beat, lambda m: {s.session for s in m.sessions} == set(known))


@pytest.mark.parametrize("reason", ["protocol", "ready_invalid"])
def test_a_refusal_that_nothing_can_change_ends_the_worker(broker: FakeBroker, reason: str) -> None:
    with running(worker_of(broker, Fake())) as raised:
        (ready,) = broker.wait(Ready)
        broker.say(broker.heard[-1][0], Void(session=ready.session, reason=reason))
        wait_for(lambda: bool(raised))
    assert isinstance(raised[0], RefusedError)


def test_a_name_that_stays_taken_ends_the_worker(broker: FakeBroker) -> None:
    with running(worker_of(broker, Fake())) as raised:
        deadline = time.monotonic() + PATIENCE
        while not raised and time.monotonic() < deadline:
            for identity, message in broker.hear(0.05):
                if isinstance(message, Ready):
                    broker.say(identity, Void(session=message.session, reason="name_taken"))
    assert "--name" in str(raised[0])


def test_a_new_broker_at_the_same_place(context: zmq.Context[Any], endpoint: Callable[[str], str]) -> None:
    backend = endpoint("backend")
    if backend.startswith("inproc"):
        pytest.skip("inproc peers die with their process: nothing reconnects")
    first = FakeBroker(context, backend)
    first.start()
    with running(worker_of(first, Fake())):
        old = first.lease()
        first.close()
        second = FakeBroker(context, backend)
        wait_for(lambda: starts(second))
        beat = second.wait(Beat)[0]
        assert [session.session for session in beat.sessions] == [old.ready.session]
        second.say(second.heard[-1][0], Void(session=old.ready.session, reason="unknown_session"))
        new = second.lease()
        second.send(new, grey(200))
        second.answers(new.ready.session, 1)
        second.close()


def test_a_hanging_engine_is_told_by_exec_age(broker: FakeBroker) -> None:
    worker = worker_of(broker, Fake(poison="hang", hang=2.0))
    with running(worker):
        lease = broker.lease()
        broker.send(lease, poison_picture(SQUARE, SQUARE))
        broker.wait(Beat, lambda m: any(s.exec_age > 0.5 for s in m.sessions))
        broker.say(lease.identity, Void(session=lease.ready.session, reason="exec_timeout"))
        heard = broker.hear(0.5)
        assert not any(isinstance(message, Ready) for _, message in heard), "a stuck session registers again"
        broker.wait(Ready, lambda m: m.session != lease.ready.session)


def test_an_unusable_backend_is_said() -> None:
    worker = Worker(backend="nonsense", models=[ModelOptions(name="m", source=Fake())], name="w")
    with pytest.raises(WorkersError, match="--backend"):
        worker.run()


def wait_for(condition: Callable[[], bool]) -> None:
    waiter = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        waiter.wait(0.01)


def starts(broker: FakeBroker) -> bool:
    """Bind, once the predecessor has left the address."""
    try:
        broker.start()
    except zmq.ZMQError:
        broker.router.close(0)
        return False
    return True
