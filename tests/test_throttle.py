"""READYs and BEATs beyond their rate: who is not listened to, for how long, and that workers never notice."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import zmq

from broker import wire
from broker.line import Limits
from broker.registrar import REGISTRATIONS, REGISTRATIONS_AT_ONCE
from broker.routing import Router
from broker.throttle import BURST, PAUSE, PEERS, PENALTY, PENALTY_AT_MOST, RATE, Throttle
from tests.peers import Context, Peer, beat, broker, hello, make_line, ready
from workers.control import BEAT
from workers.registration import REPEAT

Endpoint = Callable[[str], str]


def router(sessions: int = 256, now: float = 0.0) -> Router:
    line = make_line(lambda name: f"inproc://{name}", limits=Limits(sessions=sessions))
    return Router(line, "digest", "epoch", now)


# --- the throttle ----------------------------------------------------------------------------------------------------


def test_so_many_at_once_and_so_many_a_second() -> None:
    throttle = Throttle()
    assert sum(throttle.take(10.0, b"a") for _ in range(1000)) == BURST
    assert sum(throttle.take(10.0 + tick / 1000, b"a") for tick in range(1, 4001)) == 4 * RATE
    assert throttle.take(14.0, b"b"), "each peer has its own"


def test_voids_have_the_same_rate_and_take_nothing_from_readys() -> None:
    throttle = Throttle()
    assert throttle.has_void(10.0, b"a") and len(throttle) == 0, "asking remembers nobody"
    assert sum(throttle.take_void(10.0, b"a") for _ in range(1000)) == BURST
    assert not throttle.has_void(10.0, b"a") and throttle.take(10.0, b"a")
    assert throttle.has_void(10.0, b"b") and throttle.has_void(10.0 + 1 / RATE, b"a")
    assert sum(throttle.take_void(10.0 + tick / 1000, b"a") for tick in range(1, 4001)) == 4 * RATE


def test_who_is_shut_is_listened_to_again_after_a_while() -> None:
    throttle = Throttle()
    assert not throttle.is_shut(10.0, b"a")
    throttle.shut(10.0, b"a")
    assert throttle.is_shut(10.0 + PAUSE * 0.99, b"a") and not throttle.is_shut(10.0, b"b")
    assert not throttle.is_shut(10.0 + PAUSE, b"a")


def test_whose_sessions_cost_a_port_for_nothing_waits_ever_longer() -> None:
    throttle, now = Throttle(), 100.0
    for expected in (PENALTY, PENALTY_AT_MOST, PENALTY_AT_MOST):
        throttle.punish(now, b"a")
        throttle.punish(now + 0.1, b"a")  # another session of the same moment
        assert not throttle.take(now + expected * 0.99, b"a")
        throttle.shut(now, b"a")
        assert throttle.is_shut(now + expected * 0.99, b"a")
        now += expected
        assert throttle.take(now, b"a") and not throttle.is_shut(now, b"a")


def test_who_connects_after_all_is_forgiven() -> None:
    throttle = Throttle()
    for now in (0.0, 100.0):
        throttle.punish(now, b"a")
    throttle.shut(100.0, b"a")
    throttle.forgive(b"a")
    throttle.forgive(b"never seen")
    assert throttle.take(100.0, b"a") and not throttle.is_shut(100.0, b"a")
    throttle.punish(200.0, b"a")
    assert throttle.take(200.0 + PENALTY, b"a")


def test_a_peer_that_never_connected_has_one_session_at_a_time_when_they_are_scarce() -> None:
    throttle = Throttle()
    assert not throttle.one_at_a_time(b"a", scarce=False) and throttle.one_at_a_time(b"a", scarce=True)
    throttle.punish(1.0, b"a")
    assert throttle.one_at_a_time(b"a", scarce=False)
    throttle.forgive(b"a")
    assert not throttle.one_at_a_time(b"a", scarce=True)


def test_who_connected_is_forgotten_last() -> None:
    throttle = Throttle()
    throttle.take(0.0, b"worker")
    throttle.forgive(b"worker")
    for number in range(PEERS + 100):
        throttle.take(1.0, b"%d" % number)
    assert not throttle.one_at_a_time(b"worker", scarce=True) and len(throttle) == PEERS


def test_what_it_remembers_is_bounded() -> None:
    throttle = Throttle()
    for number in range(PEERS + 100):
        throttle.take(1.0, b"%d" % number)
    assert len(throttle) == PEERS


# --- the router ------------------------------------------------------------------------------------------------------


def said(one: Router, now: float, identity: bytes, message: wire.Ready) -> bool:
    """READY as the server passes it on; whether it was listened to."""
    registrar = one.dispatcher.registrar
    if registrar.ignores(now, identity) or not registrar.hears(now, identity):
        return False
    one.from_worker(now, identity, message)
    return True


@pytest.mark.parametrize("reason", ["no_beat", "not_connected"])
def test_a_session_that_nobody_came_to_shuts_its_peer_out(reason: str) -> None:
    one = router()
    assert said(one, 1.0, b"h", ready("s1"))
    one.lose(2.0, one.dispatcher.roster.sessions["s1"], reason)
    assert not said(one, 2.0, b"h", ready("s2")) and one.dispatcher.registrar.throttle.is_shut(2.1, b"h")
    assert said(one, 2.0 + PENALTY, b"h", ready("s2"))


@pytest.mark.parametrize(("reason", "last"), [("no_beat", PENALTY), ("not_connected", PENALTY_AT_MOST)])
def test_a_worker_that_its_machine_starves_never_waits_longer(reason: str, last: float) -> None:
    one, now = router(), 1.0
    for number in range(4):
        assert said(one, now, b"w", ready(f"s{number}"))
        one.lose(now, one.dispatcher.roster.sessions[f"s{number}"], reason)
        now += PENALTY_AT_MOST
    now -= PENALTY_AT_MOST
    assert not said(one, now + last - 2 * PAUSE, b"w", ready("s9"))
    assert said(one, now + last, b"w", ready("s9"))


@pytest.mark.parametrize("reason", ["no_beat", "disconnected", "exec_timeout", "lease"])
def test_a_worker_that_had_connected_comes_back_at_once(reason: str) -> None:
    one = router()
    assert said(one, 1.0, b"w", ready("s1"))
    session = one.dispatcher.roster.sessions["s1"]
    one.connected(session)
    one.lose(2.0, session, reason)
    assert said(one, 2.0, b"w", ready("s2")) and "s2" in one.dispatcher.roster.sessions


@pytest.mark.parametrize("reason", ["no_port", "drained", "stopped", "left_out"])
def test_what_is_no_fault_of_the_peer_does_not_count(reason: str) -> None:
    one = router()
    assert said(one, 1.0, b"w", ready("s1"))
    one.lose(2.0, one.dispatcher.roster.sessions["s1"], reason)
    assert said(one, 2.0, b"w", ready("s2"))


def test_a_peer_that_has_a_session_is_heard_but_for_its_readys() -> None:
    one = router()
    heard = [said(one, 1.0, b"w", ready("s1")) for _ in range(1000)]
    assert sum(heard) == BURST and one.counts["refused_total", "too_often"] == 1000 - BURST
    assert not one.dispatcher.registrar.throttle.is_shut(1.0, b"w"), "its answers and beats are needed"


def test_processes_with_many_sessions_register_as_fast_as_anybody_may() -> None:
    """Four of 64 threads start at once, as after a power cut: 64 sessions at once, then 50 a second."""
    one, now = router(), 100.0
    waiting = [(f"w{number % 4}", f"s{number}") for number in range(256)]
    begun = now
    while waiting:
        assert now - begun < (256 - REGISTRATIONS_AT_ONCE) / REGISTRATIONS + 4 * REPEAT
        for worker, session in waiting:
            said(one, now, worker.encode(), ready(session, worker=worker))
        for registered in list(one.dispatcher.roster.sessions.values()):
            one.connected(registered)
        waiting = [entry for entry in waiting if entry[1] not in one.dispatcher.roster.sessions]
        now += REPEAT


def test_a_worker_comes_in_through_a_flood() -> None:
    """50 peers ask for sessions that they never connect to, 1,000 times a second each."""
    one, now, number = router(now=100.0), 100.0, itertools.count()
    hostile = [b"h%d" % peer for peer in range(50)]
    joined = None
    for tick in range(10_000):
        now += 0.001
        for identity in hostile:
            name = f"x{next(number)}"
            said(one, now, identity, ready(name, worker=name))
        if tick % 250 == 249 and joined is None and said(one, now, b"w", ready("honest")):
            joined = now if "honest" in one.dispatcher.roster.sessions else None
        one.end_turn(now)
        one.outbox.clear()
    decoded = next(number) - one.counts["refused_total", "too_often"]
    assert joined is not None
    assert decoded < 50 * BURST + 50 * RATE * 10, "the rest is thrown away"
    assert one.counts["sessions_lost_total", "det", "no_beat"] < REGISTRATIONS_AT_ONCE + 50 * 10 / PENALTY, "few ports"


def beaten(one: Router, now: float, identity: bytes, *sessions: str) -> list[str]:
    """BEAT for these sessions as the server passes it on: the sessions that VOID came for."""
    registrar = one.dispatcher.registrar
    if registrar.ignores(now, identity) or not registrar.heeds(now, identity):
        return []
    beats = [entry for session in sessions for entry in beat("w", session).sessions]
    one.from_worker(now, identity, wire.Beat(worker=identity.decode(), sessions=beats))
    told = [message.session for to, message in one.outbox.to_workers if to == identity and type(message) is wire.Void]
    one.outbox.clear()
    return told


def test_who_beats_for_sessions_that_are_none_is_told_so_often_and_the_rest_is_counted() -> None:
    one = router()
    assert sum(len(beaten(one, 100.0, b"h", "x", "y", "z")) for _ in range(1000)) == BURST
    undecoded = one.counts["refused_total", "too_often"]
    assert undecoded == 1000 - (BURST + 2) // 3
    assert one.counts["unanswered_total", "beat"] == 3 * (1000 - undecoded) - BURST == 2
    assert len(beaten(one, 100.5, b"h", *(f"x{number}" for number in range(1000)))) == RATE / 2
    assert one.counts["unanswered_total", "beat"] == 2 + 1000 - RATE / 2
    assert len(one.dispatcher.registrar.throttle) == 1


def test_a_worker_that_lost_its_sessions_is_told_at_once_beside_a_flood() -> None:
    """Its broker was started again; 50 peers beat for what nobody has, 1,000 times a second each."""
    one, now = router(now=100.0), 100.0
    hostile = [b"h%d" % peer for peer in range(50)]
    lost = [f"s{number}" for number in range(64)]
    said = 0
    for _ in range(2000):
        now += 0.001
        said += sum(len(beaten(one, now, identity, "x")) for identity in hostile)
    assert 50 * BURST <= said <= 50 * BURST + 50 * RATE * 2
    assert beaten(one, now, b"w", *lost) == lost
    assert beaten(one, now + 0.1, b"w", *lost) == lost, "those that were lost on their way"


def test_who_was_told_too_often_is_heard_when_it_registers_and_then_its_beats_are() -> None:
    one = router()
    while beaten(one, 100.0, b"w", "x"):
        pass
    assert said(one, 100.0, b"w", ready("s1", worker="w"))
    one.outbox.clear()
    assert beaten(one, 100.3, b"w", "s1") == [] and beaten(one, 100.6, b"w", "s1") == []
    one.dispatcher.check(100.7)
    assert "s1" in one.dispatcher.roster.sessions, "it beats"


def test_who_is_no_camera_is_not_looked_at_when_it_sends_too_much() -> None:
    one = router()
    admission = one.admission
    heard = 0
    for _ in range(1000):
        if not admission.ignores(10.0, b"x"):
            heard += 1
            one.from_camera(10.0, b"x", hello(camera="ghost"))
    assert heard == BURST and one.counts["refused_total", "too_often"] == 1000 - BURST
    assert admission.ignores(10.0 + PAUSE * 0.99, b"x") and not admission.ignores(10.0 + PAUSE, b"x")
    assert not admission.ignores(10.0, b"other")
    one.from_camera(11.0, b"x", hello())
    assert not any(admission.ignores(11.0, b"x") for _ in range(5000)), "a camera sends as it likes"


# --- the server ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def flooded(context: Context, endpoint: str, messages: Iterable[Sequence[bytes]]) -> Iterator[list[list[bytes]]]:
    """Meanwhile a peer sends one message after the other, as fast as they go; what it is answered."""
    over, answers = threading.Event(), list[list[bytes]]()

    def flood() -> None:
        with context.socket(zmq.DEALER) as hostile:
            hostile.linger = 0
            hostile.connect(endpoint)
            for segments in messages:
                while not hostile.poll(20, zmq.POLLOUT) and not over.is_set():
                    pass
                if over.is_set():
                    return
                hostile.send_multipart(segments, zmq.NOBLOCK)
                while hostile.poll(0):
                    answers.append(hostile.recv_multipart())

    attack = threading.Thread(target=flood, daemon=True)
    attack.start()
    try:
        yield answers
    finally:
        over.set()
        attack.join(10)


def test_a_flood_of_readys_is_thrown_away_and_a_worker_serves_on(context: Context, endpoint: Endpoint) -> None:
    line = make_line(endpoint)
    backend = line.endpoints.backend
    # Beyond their rate they are not decoded: nobody notices that most are no READY at all.
    first = (wire.encode(ready(f"x{number}", worker="x")) for number in range(int(BURST)))
    flood = itertools.chain(first, itertools.repeat([wire.Ready.TYPE, b"no msgpack"]))
    with broker(line, context) as server, contextlib.closing(Peer(context, zmq.DEALER, backend)) as worker:
        counts = server.router.counts
        with flooded(context, backend, flood):
            end = time.monotonic() + 20
            while counts["refused_total", "too_often"] < 5000:
                assert time.monotonic() < end, "all of it is looked at"
                assert told(worker).reason == "unknown_session"
            answer = register(worker)
            assert answer.port
        decoded = counts["refused_total", "not_msgpack"] + counts["refused_total", "header_invalid"]
        assert decoded < counts["refused_total", "too_often"] / 5


def test_a_flood_of_hellos_is_thrown_away_and_a_camera_comes_in(context: Context, endpoint: Endpoint) -> None:
    line = make_line(endpoint)
    frontend, flood = line.endpoints.frontend, itertools.repeat(wire.encode(hello(camera="ghost")))
    with broker(line, context) as server, contextlib.closing(Peer(context, zmq.DEALER, frontend)) as cam:
        counts = server.router.counts
        with flooded(context, frontend, flood):
            end = time.monotonic() + 20
            while counts["refused_total", "too_often"] < 2000:
                assert time.monotonic() < end, "all of it is looked at"
                assert not cam.socket.poll(5), "nobody has greeted"  # meanwhile the other threads run
            cam.send(hello())
            assert cam.expect(wire.Welcome).credit > 0
        assert counts["rejected_total", "unknown_camera"] < counts["refused_total", "too_often"] / 5


def test_a_flood_of_beats_gets_few_answers_and_a_worker_its_own(context: Context, endpoint: Endpoint) -> None:
    line = make_line(endpoint)
    backend = line.endpoints.backend
    sessions = [entry for number in range(16) for entry in beat("x", f"x{number}").sessions]
    flood = itertools.repeat(wire.encode(wire.Beat(worker="x", sessions=sessions)))
    with broker(line, context) as server, contextlib.closing(Peer(context, zmq.DEALER, backend)) as worker:
        counts = server.router.counts
        with flooded(context, backend, flood) as answers:
            end = time.monotonic() + 20
            while counts["refused_total", "too_often"] < 5000:
                assert time.monotonic() < end, "all of it is answered"
                assert told(worker).reason == "unknown_session"
            assert register(worker).port
        assert counts["unanswered_total", "beat"] > 0
        assert 0 < len(answers) < counts["refused_total", "too_often"]


def told(worker: Peer) -> Any:
    """As a worker does whose session the broker has not: BEAT again until VOID comes."""
    for _ in range(100):
        worker.send(beat("w1", "none"))
        if worker.socket.poll(round(BEAT * 1000)):
            return worker.expect(wire.Void)
    raise AssertionError("no VOID in 10 s")


def register(worker: Peer) -> Any:
    """As a worker does: READY again until ENDPOINT comes."""
    for _ in range(40):
        worker.send(ready("honest", worker="w1"))
        if worker.socket.poll(round(REPEAT * 1000)):
            return worker.expect(wire.Endpoint)
    raise AssertionError("no ENDPOINT in 10 s")
