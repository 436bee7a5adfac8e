"""The cable of the chaos runs: which packets come out of it, and when; and a real one between two hosts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from ops.chaos.cable import SOUND, Condition, Lane, Way, combined
from ops.chaos.network import Network, addresses, condition
from ops.chaos.schedule import NET, Fault, Kind

# --- one direction ---------------------------------------------------------------------------------------------------

conditions = st.builds(
    Condition,
    delay=st.floats(0, 1),
    jitter=st.floats(0, 0.5),
    loss=st.floats(0, 1),
    rate=st.none() | st.floats(100, 1e6),
    buffer=st.integers(0, 5000),
    silent=st.booleans(),
)
#: Seconds since the packet before, and bytes.
traffic = st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 2000)), max_size=60)


def packet(number: int, size: int) -> bytes:
    return number.to_bytes(4, "big") + bytes(size)


def run(lane: Lane, packets: list[tuple[float, int]]) -> tuple[list[tuple[float, float | None]], list[bytes]]:
    """(put in, comes out) of each, and what came out; all is taken out as it comes."""
    now, times, out = 0.0, [], []
    for number, (pause, size) in enumerate(packets):
        now += pause
        out += lane.take(now)
        times.append((now, lane.put(packet(number, size), now)))
    return times, out + lane.take(1e9)


@given(condition=conditions, packets=traffic, seed=st.text(max_size=4))
def test_every_packet_comes_out_in_its_order_or_is_counted(
    condition: Condition, packets: list[tuple[float, int]], seed: str
) -> None:
    lane = Lane(seed)
    lane.become(condition)
    times, out = run(lane, packets)
    kept = [number for number, (_, due) in enumerate(times) if due is not None]
    assert [int.from_bytes(one[:4], "big") for one in out] == kept
    assert lane.fates["through"] == len(kept) and lane.fates.total() == len(packets)
    assert lane.waiting == 0 and lane.next is None
    dues = [due for _, due in times if due is not None]
    assert dues == sorted(dues)
    assert all(due >= at + max(0.0, condition.delay - condition.jitter) for at, due in times if due is not None)
    again = Lane(seed)
    again.become(condition)
    assert run(again, packets) == (times, out)


@given(packets=traffic)
def test_a_sound_cable_lets_everything_through_at_once(packets: list[tuple[float, int]]) -> None:
    times, out = run(Lane("seed"), packets)
    assert all(due == at for at, due in times) and len(out) == len(packets)


@given(packets=traffic, rate=st.floats(100, 1e5))
def test_no_more_comes_out_than_the_rate_allows(packets: list[tuple[float, int]], rate: float) -> None:
    lane = Lane("seed")
    lane.become(Condition(rate=rate))
    times, _ = run(lane, packets)
    if packets:
        seconds = sum(len(packet(0, size)) for _, size in packets) / rate
        assert max(due for _, due in times if due is not None) >= seconds + times[0][0] - 1e-6


@given(packets=traffic, buffer=st.integers(0, 5000))
def test_a_buffer_holds_what_it_may_and_the_surplus_is_counted(packets: list[tuple[float, int]], buffer: int) -> None:
    lane = Lane("seed")
    lane.become(Condition(delay=1e6, buffer=buffer))
    now, full = 0.0, 0
    for number, (pause, size) in enumerate(packets):
        now += pause
        before, one = lane.waiting, packet(number, size)
        fits = before + len(one) <= buffer
        assert (lane.put(one, now) is not None) == fits
        full += not fits
        assert lane.waiting <= buffer
    assert lane.fates["full"] == full


def test_what_is_under_way_is_gone_with_a_cut_and_outlives_everything_else() -> None:
    lane = Lane("seed")
    lane.become(Condition(delay=1.0))
    lane.put(b"one", 0.0)
    lane.become(SOUND)
    lane.put(b"two", 0.5)
    assert lane.take(0.9) == [] and lane.take(1.0) == [b"one", b"two"]  # in their order
    lane.become(Condition(delay=1.0))
    lane.put(b"three", 2.0)
    lane.become(Condition(silent=True))
    assert lane.put(b"four", 2.5) is None
    lane.become(SOUND)
    assert lane.take(9.0) == [] and lane.fates == {"through": 2, "silenced": 2}


def test_a_share_of_the_packets_is_lost() -> None:
    lane = Lane("seed")
    lane.become(Condition(loss=0.03))
    run(lane, [(0.0, 100)] * 10_000)
    assert 200 < lane.fates["lost"] < 400


@given(st.lists(conditions, max_size=4))
def test_several_faults_at_once_are_as_bad_as_the_worst_of_them(several: list[Condition]) -> None:
    one = combined(several)
    assert one.silent == any(each.silent for each in several)
    for each in several:
        assert one.delay >= each.delay and one.loss >= each.loss - 1e-9 and one.buffer <= each.buffer
        assert each.rate is None or (one.rate is not None and one.rate <= each.rate)
    assert combined([]) == SOUND


@pytest.mark.parametrize("kind", NET)
def test_every_fault_of_the_network_does_something_in_the_directions_that_it_is_meant_for(kind: Kind) -> None:
    for towards in ("", *Way):
        fault = Fault(at=0.0, kind=kind, towards=towards)
        bad = {way for way in Way if condition([fault], way) != SOUND}
        assert bad == ({Way(towards)} if towards else set(Way))


# --- a real one ------------------------------------------------------------------------------------------------------

#: Sends back what it gets, from the far host.
ECHO: Final = """
import sys, zmq
socket = zmq.Context().socket(zmq.REP)
socket.bind(sys.argv[1])
while True:
    socket.send(socket.recv())
"""
WITHIN: Final = 20_000


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := Network.missing():
        pytest.skip(reason)
    made = Network(1)
    try:
        made.__enter__()
    except OSError as error:
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.__exit__()


@pytest.fixture
def asker(network: Network) -> Iterator[zmq.Socket[bytes]]:
    """A socket that is answered from the far host."""
    endpoint = f"tcp://{network.there}:7001"
    echo = subprocess.Popen(network.wrap((sys.executable, "-c", ECHO, endpoint)))
    try:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(endpoint)
            yield socket
    finally:
        echo.kill()
        echo.wait()


def ask(socket: zmq.Socket[bytes], text: bytes) -> None:
    socket.send_multipart([b"", text])


def answered(socket: zmq.Socket[bytes], text: bytes) -> bool:
    return bool(socket.poll(WITHIN)) and socket.recv_multipart() == [b"", text]


def test_a_large_message_goes_through_and_comes_back(asker: zmq.Socket[bytes]) -> None:
    text = bytes(range(256)) * 24_000
    ask(asker, text)
    assert answered(asker, text)


@pytest.mark.parametrize("kind", [Kind.NET_DELAY, Kind.NET_LOSS, Kind.NET_SLOW])
def test_a_bad_cable_still_brings_everything(network: Network, asker: zmq.Socket[bytes], kind: Kind) -> None:
    fault = Fault(at=0.0, kind=kind)
    network.begin(fault)
    for number in range(10):
        text = bytes([number]) * 20_000
        ask(asker, text)
        assert answered(asker, text)
    network.end(fault)
    assert network.fates[Way.FAR]["through"] > 10


@pytest.mark.parametrize("towards", ["", *Way])
def test_what_a_silent_cable_held_back_comes_when_it_is_whole_again(
    network: Network, asker: zmq.Socket[bytes], towards: str
) -> None:
    ask(asker, b"before")
    assert answered(asker, b"before")
    kind = Kind.NET_HALF if towards else Kind.NET_CUT
    fault = Fault(at=0.0, kind=kind, towards=Way(towards).value if towards else "")
    network.begin(fault)
    ask(asker, b"during")
    assert not asker.poll(300)
    network.end(fault)
    silenced = {way for way in Way if network.fates[way].get("silenced")}
    assert silenced == {Way(towards)} if towards else Way.FAR in silenced
    assert answered(asker, b"during")


@pytest.mark.parametrize("number", [0, 1, 32767, 32768, 0xFFFFFF])
def test_addresses_are_of_the_range_for_measuring_networks(number: int) -> None:
    near, far = (IPv4Interface(f"{address}/30") for address in addresses(number))
    assert near.network == far.network and near.network.subnet_of(IPv4Network("198.18.0.0/15"))
    assert {near.ip, far.ip} == set(near.network.hosts())


def test_a_cable_that_is_gone_is_told_of(network: Network) -> None:
    network.__exit__()
    with pytest.raises(OSError, match="the forwarder of packets has ended"):
        network.begin(Fault(at=0.0, kind=Kind.NET_CUT))
