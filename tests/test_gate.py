"""Doors with a gate: who gets in, who does not, what is counted, and that a dead gate lets nobody in."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from broker import curve, wire
from broker import line as line_file
from broker.answers import Answers
from broker.callers import Callers
from broker.denials import Denials
from broker.gate import Gate, GateError
from broker.join_server import JoinServer
from broker.line import Line, Role
from broker.recorder_server import RecorderServer
from broker.reopening import Reopening
from broker.security import Denial, Guard
from broker.server import BrokerServer
from tests.peers import JPEG, Context, frame, hello, ready, running
from tests.secured import PATIENCE, Keys, guarded, knocking, wait_until, without

#: Door, who may come in, the kind of socket that calls there.
DOORS: list[tuple[str, Role, int]] = [
    ("frontend", "camera", zmq.DEALER),
    ("backend", "worker", zmq.DEALER),
    ("egress", "join", zmq.DEALER),
    ("control", "operator", zmq.DEALER),
    ("copies", "recorder", zmq.PULL),
]


@pytest.fixture(autouse=True)
def _not_within_a_process(transport: str) -> None:
    if transport == "inproc":
        pytest.skip("inproc has no CURVE")


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def line(keys: Keys, endpoint: Callable[[str], str]) -> Line:
    return keys.line(endpoint)


@pytest.fixture
def server(line: Line, keys: Keys) -> Iterator[BrokerServer]:
    with guarded(line, keys.gate()) as instance:
        yield instance


def denied(server: Any, reason: Denial) -> float:
    return float(server.samples().get(("denied_total", reason), 0))


@pytest.mark.parametrize(("door", "role", "kind"), DOORS)
def test_a_door_opens_to_its_role_alone(
    server: BrokerServer, keys: Keys, context: Context, door: str, role: Role, kind: int
) -> None:
    at = getattr(server.line.endpoints, door)
    with knocking(context, kind, at, keys.to("broker", keys.own[role])) as peer:
        assert peer.is_let_in()
    assert not denied(server, "wrong_role")
    others = [own for name, own in keys.own.items() if name != role]
    with ExitStack() as stack:
        peers = [stack.enter_context(knocking(context, kind, at, keys.to("broker", own))) for own in others]
        wait_until(lambda: denied(server, "wrong_role") >= len(others), "each was refused")
        assert not any(peer.has_been_let_in() for peer in peers)


@pytest.mark.parametrize(("door", "role", "kind"), DOORS)
def test_strangers_and_who_has_no_key_stay_out(
    server: BrokerServer, keys: Keys, context: Context, door: str, role: Role, kind: int
) -> None:
    at = getattr(server.line.endpoints, door)
    with knocking(context, kind, at, keys.to("broker", keys.stranger)) as peer:
        wait_until(lambda: denied(server, "unknown_key") >= 1, "the stranger was refused")
        assert not peer.has_been_let_in()
    with knocking(context, kind, at, None) as peer:
        assert not peer.is_let_in()
        wait_until(lambda: denied(server, "handshake") >= 1, "the missing key is counted")


def test_a_camera_that_trusts_another_broker_does_not_talk(server: BrokerServer, keys: Keys, context: Context) -> None:
    credentials = curve.Credentials(keys.own["camera"], keys.own["join"].public)
    with knocking(context, zmq.DEALER, server.line.endpoints.frontend, credentials) as peer:
        peer.send(hello())
        assert not peer.is_let_in()
        wait_until(lambda: denied(server, "handshake") >= 1, "the failed handshake is counted")
        assert not peer.socket.poll(0)


def test_a_camera_speaks_under_its_own_name_alone(server: BrokerServer, keys: Keys, context: Context) -> None:
    credentials = keys.to("broker", keys.own["camera"])
    with knocking(context, zmq.DEALER, server.line.endpoints.frontend, credentials) as peer:
        peer.send(hello())
        peer.expect(wire.Welcome)
        forbidden = [
            (hello(camera="cam2", policy="monitor"), ()),
            (frame(camera="cam2"), (JPEG,)),
            (wire.Skip(key=wire.Key("cam2", "b1", 0), reason="x"), ()),
            (wire.Bye(camera="cam2", boot="b1", last_seq=0), ()),
        ]
        for number, (message, payload) in enumerate(forbidden, start=1):
            peer.send(message, *payload)
            assert peer.expect(wire.Reject).reason == "forbidden"
            assert denied(server, "wrong_camera") == number
    assert list(server.router.admission.publishers) == ["cam1"]


def test_a_data_socket_opens_to_its_own_worker_alone(line: Line, keys: Keys, context: Context) -> None:
    other = keys.own["consumer"]
    listed = keys.security("consumer").keys | {
        "worker-2": line_file.KeyEntry(role="worker", public=other.public),
    }
    with guarded(line, Gate(keys.own["broker"], listed)) as server:
        backend = server.line.endpoints.backend
        with knocking(context, zmq.DEALER, backend, keys.to("broker", keys.own["worker"])) as worker:
            worker.send(ready())
            data = wire.data_endpoint(backend, worker.expect(wire.Endpoint).port)
            with (
                knocking(context, zmq.PULL, data, keys.to("broker", other)) as thief,
                knocking(context, zmq.PULL, data, None) as nobody,
                knocking(context, zmq.PULL, data, keys.to("broker", keys.own["worker"])) as pull,
            ):
                assert pull.is_let_in()
                wait_until(lambda: denied(server, "wrong_role") >= 1, "the other worker was refused")
                assert not thief.has_been_let_in()
                assert not nobody.is_let_in()


# --- a dead gate -----------------------------------------------------------------------------------------------------


class Broken(Guard):
    """Fails while it looks up the key of a stranger, as a fault of ours would."""

    def denial(self, door: str, public: str) -> Denial | None:
        found = super().denial(door, public)
        if found == "unknown_key":
            raise RuntimeError("broken")
        return found


class Uncounted(Denials):
    """Fails while it counts, so that the thread has nothing left to answer and ends."""

    def count(self, *_: Any, **__: Any) -> None:
        raise OSError("no room")


class BrokenGate(Gate):
    """`denials`: what its thread counts with; its own by default."""

    def __init__(self, keys: Keys, role: Role, denials: Denials | None = None) -> None:
        super().__init__(keys.own[role], keys.security().keys)
        self._answers = Answers(Broken(keys.security().keys), denials or self._denials)


def test_a_gate_that_trips_over_a_peer_goes_on(
    line: Line, keys: Keys, context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    with guarded(line, BrokenGate(keys, "broker")) as server:
        at = server.line.endpoints.frontend
        with knocking(context, zmq.DEALER, at, keys.to("broker", keys.stranger)) as stranger:
            wait_until(lambda: denied(server, "fault") >= 1, "the fault is counted")
            with knocking(context, zmq.DEALER, at, keys.to("broker", keys.own["camera"])) as camera:
                assert camera.is_let_in()
            assert not stranger.has_been_let_in()
    said = capsys.readouterr()
    (line_of_it, *_) = [one for one in (said.out + said.err).splitlines() if "refused at the door" in one]
    assert "fault" in line_of_it and "frontend" in line_of_it and "RuntimeError('broken')" in line_of_it


def test_a_dead_gate_lets_nobody_in_and_says_so(endpoint: Callable[[str], str], keys: Keys, context: Context) -> None:
    gate, at = BrokenGate(keys, "broker", Uncounted()), endpoint("frontend")
    with context.socket(zmq.ROUTER) as door, contextlib.closing(gate):
        door.linger = 0
        door.handshake_ivl = 200
        gate.open(context)
        gate.door(door, at, "frontend")
        door.bind(at)
        gate.tend()
        for own in (keys.stranger, keys.own["camera"], None):  # the one that kills it, and others that come after
            credentials = own and keys.to("broker", own)
            with knocking(context, zmq.DEALER, at, credentials) as peer:
                assert not peer.is_let_in()
        with pytest.raises(GateError, match=r"start this process again: OSError\('no room'\)"):
            gate.tend()
        assert not door.poll(0)
        door.close()


def made(role: Role, line: Line, gate: Gate, folder: Path) -> tuple[Any, str]:
    """A server of that role behind this gate, and one of its doors."""
    ends = line.endpoints
    match role:
        case "broker":
            return BrokerServer(line, gate=gate), ends.frontend
        case "join":
            ledger = folder / "ledger.sqlite"
            return JoinServer(
                egress=ends.egress, live=ends.live, catchup=ends.catchup, ledger=ledger, gate=gate
            ), ends.live
        case _:
            ways: dict[str, Any] = {
                "copies": ends.copies,
                "live": ends.live,
                "catchup": ends.catchup,
                "pictures": ends.pictures,
            }
            keep: dict[str, Any] = {"folder": folder, "memory": 1, "disk": 1, "keep": ()}
            return RecorderServer(**ways, **keep, gate=gate), ends.pictures


@pytest.mark.parametrize("role", ["broker", "join", "recorder"])
def test_a_server_whose_gate_has_died_ends(
    role: Role, line: Line, keys: Keys, context: Context, tmp_path: Path
) -> None:
    server, at = made(role, line, BrokenGate(keys, role, Uncounted()), tmp_path)
    too_late = threading.Timer(PATIENCE, server.stop)
    too_late.start()
    try:
        with (
            knocking(context, zmq.DEALER, at, keys.to(role, keys.stranger)),
            pytest.raises(GateError, match="nobody is let in"),
        ):
            server.run()
    finally:
        too_late.cancel()


def test_a_process_whose_gate_has_died_ends_with_1_and_the_reason() -> None:
    script = """
import typer
from broker.__main__ import _serve
from broker.gate import GateError

class Server:
    def run(self): raise GateError("the reason")
    def stop(self): pass

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(lambda: _serve("broker", Server(), 0, dict))
app()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "broker cannot go on" in ended.stderr + ended.stdout
    assert "the reason" in ended.stderr + ended.stdout and "Traceback" not in ended.stderr


def test_a_gate_leaves_doors_without_keys_open(endpoint: Callable[[str], str], keys: Keys, context: Context) -> None:
    """Another server in the same context may have none; those that have stay shut to who shows none."""
    gate, shut, without_keys = keys.gate(), endpoint("frontend"), endpoint("control")
    with context.socket(zmq.ROUTER) as open_door, context.socket(zmq.ROUTER) as door, contextlib.closing(gate):
        open_door.linger = door.linger = 0
        gate.open(context)
        gate.door(door, shut, "frontend")
        door.bind(shut)
        curve.plain(open_door, without_keys)
        open_door.bind(without_keys)
        with knocking(context, zmq.DEALER, without_keys, None) as peer:
            assert peer.is_let_in()
            peer.send(hello())
            assert open_door.poll(5000)
        with knocking(context, zmq.DEALER, shut, None) as peer:
            assert not peer.is_let_in()
        door.close()


def test_a_context_has_one_gate(keys: Keys, context: Context) -> None:
    first, second = keys.gate(), keys.gate()
    first.open(context)
    with pytest.raises(zmq.ZMQError, match="a gate already"):
        second.open(context)
    first.close()


# --- keys that come and go -------------------------------------------------------------------------------------------


def reload(server: BrokerServer, keys: Keys, context: Context, line: Line) -> None:
    with knocking(context, zmq.DEALER, line.endpoints.control, keys.to("broker", keys.own["operator"])) as operator:
        operator.send(wire.Reload(text=line_file.to_toml(line)))
        assert operator.expect(wire.Reloaded).errors == []


def test_a_removed_key_is_refused_at_once_and_may_come_back(
    server: BrokerServer, line: Line, keys: Keys, context: Context
) -> None:
    credentials = keys.to("broker", keys.own["camera"])
    with knocking(context, zmq.DEALER, line.endpoints.frontend, credentials) as peer:
        peer.send(hello())
        peer.expect(wire.Welcome)
        reload(server, keys, context, without(line, keys, "camera"))
        peer.send(hello())
        wait_until(lambda: denied(server, "removed_key") == 1, "the message was refused")
        assert not peer.socket.poll(0)
        with knocking(context, zmq.DEALER, line.endpoints.frontend, credentials) as second:
            assert not second.is_let_in()
        reload(server, keys, context, line)
        peer.send(hello())
        peer.expect(wire.Welcome)


def swapped(line: Line, keys: Keys) -> Line:
    """The line with another key for the recorder: a line has one at least."""
    security = keys.security()
    security.keys["recorder"] = line_file.KeyEntry(role="recorder", public=keys.stranger.public)
    return msgspec.structs.replace(line, security=security)


def test_a_removed_recorder_gets_no_more_copies(server: BrokerServer, line: Line, keys: Keys, context: Context) -> None:
    with knocking(context, zmq.PULL, line.endpoints.copies, keys.to("broker", keys.own["recorder"])) as peer:
        assert peer.is_let_in()
        reload(server, keys, context, swapped(line, keys))
        peer.wait_for(zmq.EVENT_DISCONNECTED)
        assert not peer.is_let_in()


def test_the_join_learns_of_keys_from_the_broker(line: Line, keys: Keys, context: Context, tmp_path: Path) -> None:
    ends = line.endpoints
    join = JoinServer(
        egress=ends.egress, live=ends.live, catchup=ends.catchup, ledger=tmp_path / "ledger.sqlite", line=line,
        gate=keys.gate("join"), credentials=keys.to("broker", keys.own["join"]),
    )  # fmt: skip
    with guarded(line, keys.gate()) as server, running(join):
        assert join.ready.wait(PATIENCE)
        wait_until(lambda: server.router.egress.join_epoch == join.epoch, "the join is known")
        trusted = keys.to("join", keys.own["consumer"])
        with (
            knocking(context, zmq.SUB, ends.live, trusted) as live,
            knocking(context, zmq.DEALER, ends.catchup, trusted) as asking,
        ):
            assert live.is_let_in()
            asking.send(wire.Since(ledger_id="", seq=0))
            asking.expect(wire.End)
            with knocking(context, zmq.DEALER, ends.catchup, keys.to("join", keys.own["recorder"])) as recorder:
                recorder.send(wire.Since(ledger_id="", seq=0))
                recorder.expect(wire.End)
            for role in ("camera", "worker"):
                with knocking(context, zmq.SUB, ends.live, keys.to("join", keys.own[role])) as other:
                    assert not other.is_let_in()
            reload(server, keys, context, without(line, keys, "consumer"))
            live.wait_for(zmq.EVENT_DISCONNECTED)
            assert not live.is_let_in()
            asking.send(wire.Since(ledger_id="", seq=0))
            wait_until(lambda: denied(join, "removed_key") == 1, "the question was refused")
            reload(server, keys, context, line)
            live.wait_for(zmq.EVENT_HANDSHAKE_SUCCEEDED)


# --- what the log says -----------------------------------------------------------------------------------------------


def test_the_log_names_who_was_refused_and_not_our_own_address(
    transport: str, server: BrokerServer, keys: Keys, context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    at = server.line.endpoints.frontend
    port = at.rpartition(":")[2]
    with knocking(context, zmq.DEALER, at, keys.to("broker", keys.stranger)):
        wait_until(lambda: denied(server, "unknown_key") >= 1, "the stranger was refused")
    with knocking(context, zmq.DEALER, at, keys.to("broker", keys.own["worker"])):
        wait_until(lambda: denied(server, "wrong_role") >= 1, "the worker was refused")
    with knocking(context, zmq.DEALER, at, keys.to("broker", keys.own["camera"])) as camera:
        camera.send(hello(camera="cam2", policy="monitor"))
        wait_until(lambda: denied(server, "wrong_camera") >= 1, "the other name was refused")
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "refused at the door" in line]
    for reason, key in (
        ("unknown_key", f"not listed: {keys.stranger.public[:12]}..."),
        ("wrong_role", "worker"),
        ("wrong_camera", "camera"),
    ):
        line = next(line for line in lines if reason in line)
        assert key in line and "frontend" in line
        assert transport != "tcp" or ("127.0.0.1" in line and port not in line)


def test_who_fails_in_the_handshake_is_named_while_it_is_there(transport: str) -> None:
    """Only a peer that has left already is not known."""
    if transport != "tcp":
        pytest.skip("only tcp peers have an address")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as door:
        door.linger = 0
        door.handshake_ivl = 200
        callers = Callers(door, "tcp://127.0.0.1:*")
        callers.monitor.open()
        port = door.bind_to_random_port("tcp://127.0.0.1")
        found: list[str] = []

        def failed() -> bool:
            found.extend(callers.failed())
            return bool(found)

        with socket.create_connection(("127.0.0.1", port)):  # and says nothing
            wait_until(failed, "its time was over")
        assert found == ["127.0.0.1"]
        callers.monitor.close()


def test_a_descriptor_that_was_given_out_again_names_nobody(transport: str) -> None:
    if transport != "tcp":
        pytest.skip("only tcp peers have an address")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as door:
        door.linger = 0
        callers = Callers(door, "tcp://127.0.0.1:*")
        callers.monitor.open()
        port = door.bind_to_random_port("tcp://127.0.0.1")
        total, found = 20, []
        for _ in range(total):
            with socket.create_connection(("127.0.0.1", port)):
                pass

        def failed() -> bool:
            found.extend(callers.failed())
            return len(found) >= total

        wait_until(failed, "each is counted")
        assert len(found) == total and set(found) <= {"", "127.0.0.1"}
        callers.monitor.close()


# --- doors that are shut and opened ----------------------------------------------------------------------------------


def test_a_door_on_every_interface_is_shut_and_opened(transport: str) -> None:
    if transport != "tcp":
        pytest.skip("only tcp has interfaces")
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        door, visitor = (stack.enter_context(context.socket(kind)) for kind in (zmq.PUSH, zmq.PULL))
        door.linger = 0
        port = door.bind_to_random_port("tcp://*")
        reopening = Reopening(door, "copies")
        reopening.shut(0.0)
        wait_until(lambda: opened(reopening, 0.0), "it is open again")
        assert not reopening.over(0.5) and reopening.over(1.5)
        visitor.connect(f"tcp://127.0.0.1:{port}")
        door.send(b"in")
        assert visitor.poll(5000)


def test_a_door_whose_address_is_taken_is_tried_again_and_holds_nobody_up(
    transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if transport != "tcp":
        pytest.skip("another takes a port; files of ipc are taken away")
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        door, visitor = (stack.enter_context(context.socket(kind)) for kind in (zmq.PUSH, zmq.PULL))
        door.linger = 0
        port = door.bind_to_random_port("tcp://127.0.0.1")
        reopening = Reopening(door, "copies")
        reopening.shut(10.0)
        reopening.shut(10.0)  # twice in a moment
        with socket.socket() as thief:
            wait_until(lambda: taken(thief, port), "the old listener has gone")
            thief.listen()
            for now in (10.0, 10.5, 12.0, 15.0):
                reopening.turn(now)
            assert not reopening.is_open and not reopening.over(15.0)
        wait_until(lambda: opened(reopening, 16.0), "it is open again")
        visitor.connect(f"tcp://127.0.0.1:{port}")
        door.send(b"in")
        assert visitor.poll(5000)
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    assert len([line for line in lines if "cannot be opened again yet" in line and str(port) in line]) == 1
    assert len([line for line in lines if "is open again" in line]) == 1


def opened(reopening: Reopening, now: float) -> bool:
    reopening.turn(now)
    return reopening.is_open


def taken(thief: socket.socket, port: int) -> bool:
    try:
        thief.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
