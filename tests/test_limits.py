"""Every bound of docs/limits.md that no other test holds: what happens beyond it, and which counter says so."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import zmq

from broker import document, gallery, metrics, quarantine, recorder, wire
from broker import line as line_file
from broker.admission import STRANGERS
from broker.bucket import Bucket
from broker.catchup import WAITING, CatchUp
from broker.in_force import RELOAD_LIMIT, RELOADS_AT_ONCE
from broker.join_server import JoinServer
from broker.line import Limits, LineError
from broker.log_budget import LINES_AT_ONCE
from broker.memory import SLACK, Memory
from broker.outbox import Outbox
from broker.part import PartGate
from broker.recorder_server import RecorderServer
from broker.roster import LARGEST_WINDOW
from broker.routing import Router
from broker.strays import LIMIT, PATIENCE, Strays
from broker.wire import Since, WireError
from clients.camera import Camera
from tests.conftest import free_port
from tests.fuzz import zmtp
from tests.peers import JPEG, Context, Peer, broker, frame, hello, make_line, ready, running
from tests.test_end_to_end import spots
from tests.whole_line import whole_line
from workers import metadata, model
from workers.engine import Signature
from workers.engine.fake import Fake
from workers.errors import ModelError, RefusedError
from workers.worker import Worker

Endpoint = Callable[[str], str]


def router(**limits: Any) -> Router:
    line = line_file.from_flags(cameras=["cam1", "cam2", "cam3"], models=["det"])
    return Router(msgspec.structs.replace(line, limits=Limits(**limits)), "digest", "epoch", 0.0)


def taken(outbox: Outbox) -> tuple[list[Any], list[Any]]:
    """What cameras and workers were told since last time."""
    told = [message for _, message in outbox.to_cameras], [message for _, message in outbox.to_workers]
    outbox.clear()
    return told


# --- cameras ---------------------------------------------------------------------------------------------------------


def test_more_cameras_than_limits_cameras_are_refused() -> None:
    few = router(cameras=2)
    for number in (1, 2, 3):
        few.from_camera(1.0, b"%d" % number, hello(camera=f"cam{number}"))
    cameras, _ = taken(few.outbox)
    assert [type(message).__name__ for message in cameras] == ["Welcome", "Welcome", "Reject"]
    assert cameras[2].reason == "too_many_cameras"
    assert few.counts["rejected_total", "too_many_cameras"] == 1
    assert len(few.admission.publishers) == 2


def test_identities_are_as_many_as_cameras_whoever_says_hello() -> None:
    one = router()
    for number in range(500):
        one.from_camera(1.0, b"%d" % number, hello(camera=f"cam{1 + number % 3}"))
        one.from_camera(1.0, b"%d" % number, hello(camera=f"ghost{number}"))
    assert len(one.admission.by_identity) <= 3
    assert len(one.admission.publishers) == 3


def test_strangers_are_all_counted_and_few_are_answered() -> None:
    one = router()
    one.from_camera(1.0, b"known", hello())
    taken(one.outbox)
    for number in range(500):
        one.from_camera(1.0, b"%d" % number, hello(camera="ghost"))
    one.frame(1.0, b"known", frame(camera="cam2"), JPEG, JPEG, 4)
    cameras, _ = taken(one.outbox)
    assert [message.reason for message in cameras] == ["unknown_camera"] * STRANGERS + ["unknown_boot"]
    assert one.counts["rejected_total", "unknown_camera"] == 500
    one.end_turn(1.1)
    one.from_camera(1.1, b"late", hello(camera="ghost"))
    assert [message.reason for message in taken(one.outbox)[0]] == ["unknown_camera"]


def test_a_camera_gets_no_credit_beyond_queue_bytes() -> None:
    full = router(queue_bytes=1 << 20)
    full.from_camera(1.0, b"one", hello())
    size = 1 << 20
    payload = b"\xff\xd8\xff".ljust(size)
    for seq in range(3):
        full.frame(1.0, b"one", frame(seq, len=size), payload, payload[:4], size)
    assert full.frames.bytes <= 2 * size
    assert full.counts["rejected_total", "over_credit"] >= 1


def test_the_part_gate_forgets_the_oldest() -> None:
    gate = PartGate(limit=10)
    for number in range(100):
        gate.admit(1.0, "station", f"part{number}", "cam1", wire.Key("cam1", "b", number))
    assert len(gate) == 10


# --- workers ---------------------------------------------------------------------------------------------------------


def test_registrations_have_a_rate_and_a_burst() -> None:
    one = router(sessions=4)
    for number in range(4):
        one.from_worker(1.0, b"w", ready(f"s{number}"))
    taken(one.outbox)
    one.from_worker(1.0, b"w", ready("more"))
    assert [message.reason for message in taken(one.outbox)[1]] == ["too_many_sessions"]
    assert one.counts["refused_total", "too_many_sessions"] == 1
    one.lose(1.0, one.dispatcher.roster.sessions["s0"], "no_beat")
    taken(one.outbox)
    one.from_worker(1.0, b"v", ready("again", worker="w2"))
    assert taken(one.outbox)[1] == []  # it repeats READY every 250 ms
    assert one.counts["refused_total", "too_fast"] == 1
    one.from_worker(1.25, b"v", ready("again", worker="w2"))
    assert "again" in one.dispatcher.roster.sessions


def test_refused_registrations_are_all_counted_and_few_are_answered() -> None:
    one = router(sessions=4)
    for number in range(500):
        one.from_worker(1.0, b"w", ready(f"s{number}", model="ghost"))
    assert len(taken(one.outbox)[1]) == 4
    assert one.counts["refused_total", "unknown_model"] == 500
    assert len(one.dispatcher.roster.workers) == 0


@pytest.mark.parametrize("grant", [LARGEST_WINDOW + 1, -1])
def test_a_window_that_is_too_large_is_refused(grant: int) -> None:
    one = router()
    one.from_worker(1.0, b"w", ready(grant=grant))
    assert [message.reason for message in taken(one.outbox)[1]] == ["ready_invalid"]


@pytest.mark.parametrize("field", ["worker", "session", "model"])
def test_names_of_workers_and_sessions_have_a_length(field: str) -> None:
    fields: dict[str, Any] = {"session": "s1", field: "x" * 65}
    with pytest.raises(WireError, match="header_invalid"):
        wire.decode(*wire.encode(ready(**fields)))


def test_a_worker_whose_name_no_broker_takes_does_not_start() -> None:
    with pytest.raises(RefusedError, match="at most 64"):
        Worker(backend="tcp://127.0.0.1:1", models=[], name="x" * 65).run()


def test_a_bucket_is_refilled_by_time_up_to_its_burst() -> None:
    bucket = Bucket(2.0, 3.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(10.5), bucket.take(10.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(99.0)  # a clock that goes back gives nothing


# --- bytes on the sockets --------------------------------------------------------------------------------------------


def is_cut_off(endpoint: str, kind: bytes, size: int = 1 << 30) -> bool:
    """Whether a peer that announces a segment of `size` bytes loses its connection."""
    with zmtp.connect(endpoint, 3.0) as connection:
        connection.sendall(zmtp.GREETING + zmtp.ready(kind) + b"\x02" + size.to_bytes(8) + b"begin")
        try:
            while connection.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


def tcp(_: str) -> str:
    return f"tcp://127.0.0.1:{free_port()}"


def test_no_port_of_the_broker_takes_a_segment_of_any_size(context: Context) -> None:
    line = make_line(tcp)
    with broker(line, context), contextlib.closing(Peer(context, zmq.DEALER, line.endpoints.backend)) as worker:
        worker.send(ready())
        data = wire.data_endpoint(line.endpoints.backend, worker.expect(wire.Endpoint).port)
        ends = line.endpoints
        for endpoint in (ends.frontend, ends.backend, ends.egress, ends.control):
            assert is_cut_off(endpoint, b"DEALER"), endpoint
        for endpoint in (ends.copies, data):
            assert is_cut_off(endpoint, b"PULL"), endpoint


def test_no_port_of_the_join_takes_a_segment_of_any_size(context: Context, tmp_path: Path) -> None:
    live, catchup = tcp("live"), tcp("catchup")
    join = JoinServer(egress=tcp("egress"), live=live, catchup=catchup, ledger=tmp_path / "l", context=context)
    with running(join):
        assert join.ready.wait(5)
        assert is_cut_off(live, b"SUB")
        assert is_cut_off(catchup, b"DEALER")


def test_no_port_of_the_recorder_takes_a_segment_of_any_size(context: Context, tmp_path: Path) -> None:
    ends: dict[str, Any] = {name: tcp(name) for name in ("copies", "live", "catchup", "pictures")}
    server = RecorderServer(**ends, folder=tmp_path, memory=8, disk=8, keep=["ng"], context=context)
    with running(server):
        assert server.ready.wait(5)
        assert is_cut_off(ends["pictures"], b"DEALER")


def test_half_a_greeting_is_cut_off(context: Context) -> None:
    line = make_line(tcp)
    with broker(line, context), zmtp.connect(line.endpoints.frontend, 10.0) as connection:
        connection.sendall(zmtp.GREETING[:20])
        with contextlib.suppress(ConnectionError):
            while connection.recv(4096):  # HANDSHAKE_IVL: 2 s
                pass


def test_a_message_of_many_segments_is_refused_and_the_next_one_taken(endpoint: Endpoint, context: Context) -> None:
    line = make_line(endpoint)
    with (
        broker(line, context) as server,
        contextlib.closing(Peer(context, zmq.DEALER, line.endpoints.frontend)) as peer,
    ):
        peer.send(hello())
        peer.expect(wire.Welcome)
        peer.raw(*wire.encode(frame()), *[b""] * 20_000)
        assert peer.expect(wire.Reject).reason == "segments"
        peer.send(hello())
        peer.expect(wire.Welcome)
        assert server.router.counts["rejected_total", "segments"] == 1


def test_a_flood_of_bad_messages_is_counted_and_the_log_is_not_flooded(endpoint: Endpoint, context: Context) -> None:
    line = make_line(endpoint)
    with broker(line, context) as server, contextlib.closing(Peer(context, zmq.DEALER, line.endpoints.backend)) as peer:
        for _ in range(500):
            peer.raw(b"\x99", b"x")
        peer.send(ready())
        peer.expect(wire.Endpoint)
        counts = server.router.counts
        assert counts["refused_total", "unknown_type"] == 500
        assert counts["unlogged_total",] >= 500 - 2 * LINES_AT_ONCE


# --- operator --------------------------------------------------------------------------------------------------------


def test_line_files_that_a_running_broker_reads_have_a_size_and_a_rate(endpoint: Endpoint, context: Context) -> None:
    line = make_line(endpoint)
    with broker(line, context), contextlib.closing(Peer(context, zmq.DEALER, line.endpoints.control)) as operator:
        operator.send(wire.Reload(text="#" * (RELOAD_LIMIT + 1)))
        assert "restart it" in operator.expect(wire.Reloaded).errors[0]
        answers = []
        for _ in range(int(RELOADS_AT_ONCE) + 1):
            operator.send(wire.Reload(text="x"))
            answers.append(operator.expect(wire.Reloaded).errors[0])
        assert "is not TOML" in answers[0]
        assert "try again in 5 s" in answers[-1]


def test_many_problems_of_a_line_file_are_told_in_few_words() -> None:
    text = "[stations.s]\n" + "".join(f"[cameras.c{n}]\nstation = 't'\n[models.model{n}]\n" for n in range(300))
    text += "".join(f"[routes.c{n}]\nmodels = ['modle{n}']\n" for n in range(300))
    with pytest.raises(LineError) as caught:
        line_file.parse(text)
    assert len(caught.value.problems) == document.PROBLEMS + 1
    assert caught.value.problems[-1] == "line file: and more"
    assert sum(map(len, caught.value.problems)) < 64 << 10
    assert max(map(len, line_problems(f"[stations.s]\n[cameras.{'x' * 5000}]\n"))) <= document.LONGEST


@pytest.mark.parametrize("text", ["a" + ".a" * 20_000 + " = 1", "\n[" + "a." * 100 + "a]"])
def test_keys_of_many_parts_are_refused_before_the_parser(text: str) -> None:
    # tomllib takes 5 s for a key of 20,000 parts: the broker would stand still.
    assert "dots" in line_problems(text)[0]


def test_dots_in_comments_are_no_key() -> None:
    assert document.too_deep("# " + "." * 200 + "\nname = 'x'  # " + "." * 200) == 0


def line_problems(text: str) -> list[str]:
    with pytest.raises(LineError) as caught:
        line_file.parse(text)
    return caught.value.problems


# --- join and recorder -----------------------------------------------------------------------------------------------


class NoPast:
    ledger_id = "ledger"

    def last_seq(self) -> int:
        return 0

    def oldest_seq(self) -> int:
        return 0

    def topics(self, prefixes: list[str]) -> dict[int, str]:
        return {}

    def page(self, after: int, topics: dict[int, str], limit: int, size: int) -> tuple[list[Any], int]:
        return [], after


def test_consumers_that_wait_for_a_page_have_a_number() -> None:
    catchup = CatchUp(NoPast())
    asked = [catchup.ask(b"%d" % number, Since(ledger_id="", seq=0)) for number in range(WAITING + 5)]
    assert asked == [True] * WAITING + [False] * 5
    assert catchup.ask(b"0", Since(ledger_id="", seq=0))  # who waits already may ask anew
    assert len(catchup) == WAITING


def test_strays_have_a_number() -> None:
    strays = Strays()
    for ticket in range(LIMIT + 100):
        assert not strays.given_up(ticket, 1.0)
    assert strays.given_up(0, 1.0 + PATIENCE)
    assert not strays.given_up(LIMIT + 50, 1.0 + PATIENCE)  # it was not remembered: its patience begins now


def test_verdicts_that_wait_for_their_picture_have_a_number(tmp_path: Path) -> None:
    one = recorder.Recorder(tmp_path, 1 << 20, 1 << 20, ("ng",), Counter())
    for seq in range(recorder.VERDICTS + 10):
        one.verdict(wire.Key("cam1", "9f3a61c07b2e", seq), "ng")
    for seq in (0, recorder.VERDICTS + 9):
        one.copy(wire.Copy(key=wire.Key("cam1", "9f3a61c07b2e", seq), encoding="jpeg", shape=[1, 1]), JPEG, 4)
    assert one.gauges()["recorder_waiting_frames",] == 1  # the first: its verdict was forgotten
    assert one.counts["pictures_kept_total", "ng"] == 1


def test_pictures_on_disk_have_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "FILES", 3)
    one = recorder.Recorder(tmp_path, 1 << 20, 1 << 20, ("ng",), Counter())
    for seq in range(5):
        key = wire.Key("cam1", "9f3a61c07b2e", seq)
        one.verdict(key, "ng")
        one.copy(wire.Copy(key=key, encoding="jpeg", shape=[1, 1]), JPEG, 4)
    assert len(list(tmp_path.rglob("*.jpg"))) == 3
    assert one.counts["pictures_deleted_total",] == 2


def test_quarantine_keeps_so_many(tmp_path: Path) -> None:
    keeper = quarantine.Quarantine(tmp_path)
    for seq in range(quarantine.KEPT + 10):
        keeper.keep("det", frame(seq), JPEG)
    keeper.close()
    assert len(list(tmp_path.glob("*.jpg"))) == quarantine.KEPT


def test_names_in_a_models_metadata_have_a_length() -> None:
    names = "[" + "'a'," * (metadata.NAMES_LIMIT // 4) + "]"
    with pytest.raises(ModelError, match="names cannot be read"):
        model.describe(Signature((1, 3, 8, 8), ((1, None, 7),), "", {"names": names}), model.Hints(), "file")


# --- the process -----------------------------------------------------------------------------------------------------


def test_memory_beyond_what_frames_may_take_is_told() -> None:
    memory = Memory(first=50 << 20, frames=1 << 30)
    most = (50 << 20) + (1 << 30) + SLACK
    assert list(memory.troubles(most)) == []
    (trouble,) = memory.troubles(most + 1)
    assert "queue_bytes" in trouble.what
    assert trouble == next(iter(memory.troubles(2 * most)))  # one trouble, told now and then, not one for each size


def test_metrics_are_for_this_machine_alone() -> None:
    port = free_port()
    with metrics.served(port, dict):
        socket.create_connection(("127.0.0.1", port), 5).close()
        listening = [one.laddr for one in psutil.Process().net_connections() if one.status == psutil.CONN_LISTEN]
        assert [one.ip for one in listening if one.port == port] == ["127.0.0.1"]


def test_bytes_of_a_stranger_are_not_taken_for_messages(
    endpoint: Endpoint, transport: str, context: Context, tmp_path: Path
) -> None:
    """ZMTP 1 greets without a mark: to libzmq anything could be its messages, many from each connection."""
    if transport == "inproc":
        pytest.skip("nobody connects from outside")
    v1 = b"\x01\x00" + b"\x03\x00hi" * 200  # an anonymous peer, and messages of one segment
    with whole_line(endpoint, context, tmp_path, {"det": Fake()}) as line:
        ends = line.line.endpoints
        for door in (ends.frontend, ends.backend, ends.control, ends.catchup):
            for data in (v1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 20):
                with zmtp.connect(door) as connection, contextlib.suppress(OSError):
                    connection.sendall(data)
                    while connection.recv(4096):  # until it is thrown out; libzmq greets back
                        pass
        with Camera("cam1", endpoint=ends.frontend, context=context, deadline=60.0) as camera:
            camera.send(spots(1), timeout=10.0)
            assert camera.flush(30.0)
        counts = line.broker.router.counts + line.join.counts
        assert not [name for name, *_ in counts if name in ("rejected_total", "refused_total")], counts
