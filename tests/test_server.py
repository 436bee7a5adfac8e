from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgpack
import pytest
import zmq

from broker import gauges, wire
from broker import line as line_file
from broker.line import Line
from broker.server import BrokerServer
from tests.peers import JPEG, Context, Join, Peer, beat, broker, frame, hello, make_line, ready, running


@pytest.fixture
def line(endpoint: Callable[[str], str]) -> Line:
    return make_line(endpoint)


@pytest.fixture
def server(line: Line, context: Context) -> Iterator[BrokerServer]:
    with broker(line, context) as instance:
        yield instance


@pytest.fixture
def join(server: BrokerServer, context: Context) -> Iterator[Join]:
    peer = Join(context, server.line.endpoints.egress)
    yield peer
    peer.close()


@pytest.fixture
def camera(server: BrokerServer, context: Context) -> Iterator[Peer]:
    peer = Peer(context, zmq.DEALER, server.line.endpoints.frontend)
    yield peer
    peer.close()


@pytest.fixture
def worker(server: BrokerServer, context: Context) -> Iterator[Peer]:
    peer = Peer(context, zmq.DEALER, server.line.endpoints.backend)
    yield peer
    peer.close()


@pytest.fixture
def pull(server: BrokerServer, worker: Peer, context: Context) -> Iterator[Peer]:
    """The data socket of session s1, registered."""
    worker.send(ready())
    endpoint = worker.expect(wire.Endpoint)
    peer = Peer(context, zmq.PULL, wire.data_endpoint(server.line.endpoints.backend, endpoint.port))
    yield peer
    peer.close()


def beat_until(worker: Peer, other: Peer, timeout: float = 5.0) -> None:
    """Beat as a live worker does while `other` waits for a message."""
    end = time.monotonic() + timeout
    while not other.socket.poll(50):
        assert time.monotonic() < end, "nothing came"
        worker.send(beat("w1", "s1"))


def test_one_frame_to_one_answer(server: BrokerServer, join: Join, camera: Peer, worker: Peer, pull: Peer) -> None:
    camera.send(hello())
    welcome = camera.expect(wire.Welcome)
    assert (welcome.epoch, welcome.max_frame) == (server.epoch, server.line.limits.max_frame)
    camera.send(frame(budget=60.0), JPEG)
    beat_until(worker, pull)
    kind, header, payload = pull.socket.recv_multipart()
    job = wire.decode(kind, header)
    assert (job.key, job.dseq, job.tries, payload) == (frame().key, 1, 1, JPEG)
    assert msgpack.unpackb(header)["session"] == "s1"
    answer = wire.Answer(dseq=1, key=job.key, status="ok", body=b"seen")
    worker.send(wire.Done(session="s1", grant=3, model="det", items=[answer]))
    join.commit_until(lambda: bool(join.results))
    assert (join.results[0].status, join.results[0].body, join.results[0].tries) == ("ok", b"seen", 1)
    assert join.expected[0].models == ["det"]
    accepted = camera.expect(wire.Accepted)
    assert accepted.seqs == [0]
    assert camera.expect(wire.Settled).complete == [0]


@pytest.mark.parametrize("size", [1000, wire.COPY_THRESHOLD, 3_000_000])
def test_payloads_arrive_as_they_were_sent(
    size: int, server: BrokerServer, join: Join, camera: Peer, worker: Peer, pull: Peer
) -> None:
    payload = JPEG + bytes(range(256)) * (size // 256)
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(len=len(payload)), payload)
    beat_until(worker, pull)
    assert pull.socket.recv_multipart()[2] == payload


def test_a_two_segment_frame_carries_its_payload_in_the_header(
    server: BrokerServer, join: Join, camera: Peer, worker: Peer, pull: Peer
) -> None:
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(payload=JPEG))
    beat_until(worker, pull)
    assert pull.socket.recv_multipart()[2] == JPEG


def test_a_deadline_without_workers_is_expired_with_the_reason(server: BrokerServer, join: Join, camera: Peer) -> None:
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(budget=0.05), JPEG)
    join.commit_until(lambda: bool(join.results))
    assert (join.results[0].status, join.results[0].reason) == ("expired", "no_worker")
    assert camera.expect(wire.Settled).incomplete == [0]


def test_a_late_answer_is_recorded_as_late(
    server: BrokerServer, join: Join, camera: Peer, worker: Peer, pull: Peer
) -> None:
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(budget=0.05), JPEG)
    beat_until(worker, pull)
    job = wire.decode(*pull.socket.recv_multipart()[:2])
    join.commit_until(lambda: bool(join.results))
    assert (join.results[0].status, join.results[0].reason) == ("expired", "running")
    answer = wire.Answer(dseq=1, key=job.key, status="ok", body=b"late")
    worker.send(wire.Done(session="s1", grant=3, model="det", items=[answer]))
    join.commit_until(lambda: len(join.results) == 2)
    assert join.results[1].late
    assert join.results[1].status == "ok"


def test_a_silent_worker_loses_its_job_to_another(
    server: BrokerServer, join: Join, camera: Peer, worker: Peer, pull: Peer, context: Context
) -> None:
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(budget=60.0), JPEG)
    beat_until(worker, pull)
    other = Peer(context, zmq.DEALER, server.line.endpoints.backend)
    other.send(ready("s2", worker="w2"))
    port = other.expect(wire.Endpoint).port
    data = Peer(context, zmq.PULL, wire.data_endpoint(server.line.endpoints.backend, port))
    end = time.monotonic() + 10
    while not data.socket.poll(50):
        assert time.monotonic() < end
        other.send(beat("w2", "s2"))
    job = wire.decode(*data.socket.recv_multipart()[:2])
    assert (job.key, job.tries) == (frame().key, 2)
    assert worker.expect(wire.Void).session == "s1"
    assert server.router.counts["requeued_total", "det"] == 1
    data.close()
    other.close()


def bad(camera: Peer, *segments: bytes) -> wire.Reject:
    camera.raw(*segments)
    answer: wire.Reject = camera.expect(wire.Reject)
    return answer


def test_bad_bytes_are_refused_with_a_reason_counted_and_stop_nothing(server: BrokerServer, camera: Peer) -> None:
    frame_type = wire.Frame.TYPE
    good = wire.encode(frame())[1]
    cases: dict[str, list[tuple[bytes, ...]]] = {
        "segments": [(b"x",), (b"",), (frame_type, good, JPEG, b"more")],
        "unknown_type": [
            (b"\xee", b"\x80"),
            (b"", b"\x80"),
            (b"longer", b"\x80"),
            tuple(wire.encode(wire.Jack(epoch="e", tickets=[]))),
        ],
        "header_too_large": [(frame_type, b"\x80" * 2_000_000)],
        "not_msgpack": [(frame_type, b""), (frame_type, good[:-5]), (frame_type, b"\xc1")],
        "header_invalid": [(frame_type, b"\x80"), (frame_type, msgpack.packb({"key": "no"})), (frame_type, b"\x01")],
        "no_hello": [(frame_type, good, JPEG)],
    }
    for reason, messages in cases.items():
        for segments in messages:
            assert bad(camera, *segments).reason == reason, segments
        assert server.router.counts["rejected_total", reason] == len(messages)
    camera.send(hello())
    assert camera.expect(wire.Welcome).epoch == server.epoch


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (hello(protocol=99), "protocol"),
        (hello(camera="nobody"), "unknown_camera"),
        (hello(policy="monitor"), "policy_mismatch"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(
    message: wire.Hello, reason: str, server: BrokerServer, camera: Peer
) -> None:
    camera.send(message)
    assert camera.expect(wire.Reject).reason == reason


@pytest.mark.parametrize(
    ("fields", "payload", "reason"),
    [
        ({"len": 0}, b"", "payload_empty"),
        ({"len": 5}, JPEG, "length_mismatch"),
        ({"encoding": "png"}, JPEG, "not_an_image"),
        ({"encoding": "bgr8", "shape": [2, 2, 3]}, JPEG, "length_mismatch"),
        ({"encoding": "mono8", "shape": [2, 2], "stride": 1}, JPEG, "shape_invalid"),
        ({"shape": [1 << 20, 1]}, JPEG, "shape_invalid"),
    ],
)
def test_a_payload_that_is_not_what_the_header_says_is_refused(
    fields: dict[str, Any], payload: bytes, reason: str, server: BrokerServer, camera: Peer
) -> None:
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(**fields), payload)
    answer = camera.expect(wire.Reject)
    assert (answer.reason, answer.key) == (reason, frame().key)


def test_a_frame_over_the_limit_never_reaches_the_broker(context: Context, endpoint: Callable[[str], str]) -> None:
    line = make_line(endpoint, limits=line_file.Limits(max_frame=4096))
    with broker(line, context) as server:
        camera = Peer(context, zmq.DEALER, line.endpoints.frontend)
        camera.send(hello())
        camera.expect(wire.Welcome)
        camera.send(frame(len=5000), bytes(5000))
        assert camera.expect(wire.Reject).reason == "payload_too_large"
        camera.close()
        assert not server.router.frames.open


def test_the_same_frame_again_is_acknowledged_again_and_done_once(
    server: BrokerServer, join: Join, camera: Peer
) -> None:
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(budget=60.0), JPEG)
    join.commit_until(lambda: bool(join.expected))
    assert camera.expect(wire.Accepted).seqs == [0]
    camera.send(frame(budget=60.0, again=1), JPEG)
    assert camera.expect(wire.Accepted).seqs == [0]
    assert server.router.counts["accepted_total", "cam1"] == 1


def test_answers_that_nobody_asked_for_are_counted(server: BrokerServer, worker: Peer, pull: Peer) -> None:
    answer = wire.Answer(dseq=7, key=wire.Key("cam1", "b1", 7), status="ok")
    worker.send(wire.Done(session="s1", grant=3, model="det", items=[answer]))
    worker.raw(b"\x23", b"\xc1")
    worker.raw(b"lonely")
    worker.send(
        wire.Beat(
            worker="w1", sessions=[wire.SessionBeat(session="ghost", started=0, completed=0, exec_age=0.0, grant=1)]
        )
    )
    void = worker.expect(wire.Void)
    while void.session != "ghost":
        void = worker.expect(wire.Void)
    assert server.router.counts["unasked_total", "done"] == 1
    assert server.router.counts["refused_total", "segments"] == 1
    assert server.router.counts["refused_total", "not_msgpack"] == 1


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (ready("s2"), "name_taken"),
        (ready("s2", worker="w2", model="nothing"), "unknown_model"),
        (ready("s2", worker="w2", protocol=99), "protocol"),
    ],
)
def test_a_worker_that_does_not_fit_is_sent_away(
    message: wire.Ready, reason: str, server: BrokerServer, worker: Peer, pull: Peer, context: Context
) -> None:
    other = Peer(context, zmq.DEALER, server.line.endpoints.backend)
    worker.send(beat("w1", "s1"))
    other.send(message)
    assert other.expect(wire.Void).reason == reason
    other.close()


def test_an_endpoint_in_use_is_named(line: Line, server: BrokerServer, context: Context) -> None:
    with pytest.raises(zmq.ZMQError, match=line.endpoints.frontend.replace("+", ".")):
        BrokerServer(line, context=context).run()


def test_a_reload_changes_later_frames_and_an_invalid_one_nothing(
    line: Line, server: BrokerServer, join: Join, context: Context
) -> None:
    operator = Peer(context, zmq.DEALER, line.endpoints.control)
    text = line_file.to_toml(line)
    operator.send(wire.Reload(text=text + "\n[models.seg]\n"))
    answer = operator.expect(wire.Reloaded)
    assert answer.errors == []
    assert answer.changes == ["models.seg: added"]
    assert answer.digest == server.in_force.digest == line_file.digest(text + "\n[models.seg]\n")
    assert join.expect(wire.LineText).digest == answer.digest
    for wrong in ("nonsense = [", text.replace('policy = "inspect"', 'policy = "inspekt"')):
        operator.send(wire.Reload(text=wrong))
        refused = operator.expect(wire.Reloaded)
        assert refused.errors
        assert refused.digest == answer.digest
    operator.close()


def test_gauges_tell_what_is_there(server: BrokerServer, join: Join, camera: Peer, pull: Peer) -> None:
    camera.send(hello())
    camera.expect(wire.Welcome)
    samples = gauges.samples(server.router)
    assert samples["open_frames", "cam1"] == 0
    assert samples["join_up",] == 1
    assert ("queue_frames", "det") in samples


def test_a_session_id_that_is_used_again_in_one_turn_opens_again(
    server: BrokerServer, worker: Peer, pull: Peer
) -> None:
    for _ in range(5):
        worker.send(wire.Beat(worker="w1", sessions=[]))
        worker.send(ready())
        endpoint = worker.expect(wire.Endpoint)
    assert endpoint.session == "s1"
    worker.send(wire.Drain(worker="w1", sessions=["s1"]))
    void = worker.expect(wire.Void)
    while void.reason != "drained":
        void = worker.expect(wire.Void)


def test_a_stranger_who_connects_to_a_session_port_and_leaves_costs_nothing(
    transport: str, server: BrokerServer, join: Join, camera: Peer, worker: Peer, pull: Peer
) -> None:
    if transport != "tcp":
        pytest.skip("only tcp ports can be scanned")
    camera.send(hello())
    camera.expect(wire.Welcome)
    camera.send(frame(budget=60.0), JPEG)
    beat_until(worker, pull)
    address = urlsplit(str(pull.socket.getsockopt_string(zmq.LAST_ENDPOINT)))
    for _ in range(3):
        with socket.create_connection((str(address.hostname), int(address.port or 0))):
            pass
        worker.send(beat("w1", "s1"))
    job = wire.decode(*pull.socket.recv_multipart()[:2])
    answer = wire.Answer(dseq=1, key=job.key, status="ok")
    worker.send(wire.Done(session="s1", grant=3, model="det", items=[answer]))
    join.commit_until(lambda: bool(join.results))
    assert join.results[0].status == "ok"
    assert not server.router.counts["suspects_total", "det"]


def test_a_reload_from_a_desk_without_model_files_wants_what_was_wanted(line: Line, context: Context) -> None:
    pinned = BrokerServer(line, context=context, versions={"det": "ab" * 32})
    with running(pinned):
        assert pinned.ready.wait(5)
        operator = Peer(context, zmq.DEALER, line.endpoints.control)
        text = line_file.to_toml(line) + "\n[models.seg]\n"
        for versions, wanted in (({}, "ab"), ({"det": "cd" * 32}, "cd")):
            operator.send(wire.Reload(text=text, versions=versions))
            assert operator.expect(wire.Reloaded).errors == []
            operator.send(wire.List())
            assert operator.expect(wire.Listed).wanted["det"] == wanted * 32
        operator.close()
