"""What a hostile peer does to a broker that it can reach: one function per attack, for so many connections and seconds.

`python -m tests.fuzz.attacks NAME FRONTEND BACKEND SECONDS` runs one; it writes how much it did as its last line.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import zmq

from broker import wire
from broker.wire import Beat, Hello, Ready, SessionBeat
from tests.fuzz import zmtp
from tests.fuzz.mutation import mutated
from tests.fuzz.wire import seeds

#: Connections that an attack holds, or makes, at once.
CONNECTIONS: Final = 1000
#: Sockets of ours that send whole messages.
DEALERS: Final = 50
#: Sessions that a BEAT of an attack names, as a worker process with so many model threads does.
SESSIONS: Final = 16
#: Bytes that the endless messages add up to: libzmq must hold them all.
PARTS_BYTES: Final = 64 << 20

Attack = Callable[[str, str, float], str]


def garbage(frontend: str, backend: str, seconds: float) -> str:
    """Raw connections that send bytes which are no ZMTP, until they are thrown out, and come again."""
    made = 0
    for end in _until(seconds):
        with contextlib.suppress(OSError), zmtp.connect(random.choice((frontend, backend))) as connection:
            made += 1
            connection.sendall(random.randbytes(random.randrange(1, 4096)))
            if time.monotonic() > end:
                break
    return f"{made} connections"


def half(frontend: str, backend: str, seconds: float) -> str:
    """Connections that stop in the middle of the greeting, held all the time, made again when they are cut."""
    held: list[socket.socket] = []
    made = 0
    for _ in _until(seconds):
        if len(held) < CONNECTIONS:
            with contextlib.suppress(OSError):
                held.append(zmtp.connect(random.choice((frontend, backend))))
                held[-1].sendall(zmtp.GREETING[: random.randrange(1, 64)])
                made += 1
            continue
        time.sleep(0.1)
        held = [connection for connection in held if not _is_cut(connection)]
    for connection in held:
        connection.close()
    return f"{made} connections"


def visits(frontend: str, backend: str, seconds: float) -> str:
    """Peers that shake hands and leave, as fast as they can."""
    made = 0
    for _ in _until(seconds):
        with contextlib.suppress(OSError), zmtp.connect(random.choice((frontend, backend))) as connection:
            connection.sendall(zmtp.GREETING + zmtp.ready())
            made += 1
    return f"{made} visits"


def parts(frontend: str, backend: str, seconds: float) -> str:
    """Messages that never end: small segments, each with MORE; up to `PARTS_BYTES` in all."""
    connections = [zmtp.connect(frontend) for _ in range(20)]
    for connection in connections:
        connection.sendall(zmtp.GREETING + zmtp.ready())
        connection.setblocking(False)
    chunk = zmtp.segment(b"\x02", True) * 1000
    left = dict.fromkeys(connections, b"")  # of a chunk that was not taken whole
    sent = 0
    for _ in _until(seconds):
        for connection in connections:
            if sent < PARTS_BYTES:
                left[connection] = left[connection] or chunk
            with contextlib.suppress(OSError):
                taken = connection.send(left[connection])
                left[connection] = left[connection][taken:]
                sent += taken
    for connection in connections:
        connection.close()
    return f"{sent >> 20} MB"


def hellos(frontend: str, _: str, seconds: float) -> str:
    """Cameras that the line does not know say HELLO."""
    return _flood(
        frontend, seconds, lambda: wire.encode(Hello(camera="x" + secrets.token_hex(4), boot="b", protocol=1))
    )


def readies(_: str, backend: str, seconds: float) -> str:
    """Workers register session after session for the line's model, and never connect."""
    model = "fake"

    def ready() -> list[bytes]:
        name = secrets.token_hex(6)
        return wire.encode(
            Ready(worker=name, session=name, model=model, sha256="", max_batch=1, exec_timeout=1.0, grant=2)
        )

    return _flood(backend, seconds, ready)


def beats(_: str, backend: str, seconds: float) -> str:
    """A worker that the broker does not know beats for sessions that it does not have, without end."""
    names = [secrets.token_hex(6) for _ in range(SESSIONS)]
    sessions = [SessionBeat(session=name, started=0, completed=0, exec_age=0.0, grant=2) for name in names]
    segments = wire.encode(Beat(worker="stranger", sessions=sessions))
    return _flood(backend, seconds, lambda: list(segments))


def mutants(frontend: str, backend: str, seconds: float) -> str:
    """Whole messages, mutated, to both sockets."""
    inputs, chance = seeds(), random.Random(1)

    def mutant() -> list[bytes]:
        data = mutated(chance, inputs)
        kind = wire.MESSAGES[data[0] % len(wire.MESSAGES)].TYPE if data else b""
        return [kind, *(data[1:4000][at : at + 1500] for at in range(0, chance.randrange(1, 4000), 1500))]

    half_of_it = seconds / 2
    return f"{_flood(frontend, half_of_it, mutant)}, {_flood(backend, half_of_it, mutant)}"


ATTACKS: Final[dict[str, Attack]] = {
    attack.__name__: attack for attack in (garbage, half, visits, parts, hellos, readies, beats, mutants)
}


def _flood(endpoint: str, seconds: float, make: Callable[[], list[bytes]]) -> str:
    """Messages from `DEALERS` sockets, as many as are taken; all answers are read."""
    sent = answers = 0
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(context.socket(zmq.DEALER)) for _ in range(DEALERS)]
        for one in sockets:
            one.linger = 0
            one.connect(endpoint)
        for _ in _until(seconds):
            for one in sockets:
                with contextlib.suppress(zmq.Again):
                    one.send_multipart(make(), zmq.NOBLOCK)
                    sent += 1
                with contextlib.suppress(zmq.Again):
                    while one.recv_multipart(zmq.NOBLOCK):
                        answers += 1
    return f"{sent} messages ({answers} answers)"


def _until(seconds: float) -> Iterator[float]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield end


def _is_cut(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    connection.close()
    return True


if __name__ == "__main__":
    print(ATTACKS[sys.argv[1]](sys.argv[2], sys.argv[3], float(sys.argv[4])), flush=True)
