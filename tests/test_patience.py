"""How long an answer is waited for, and that a page comes through a slow link to whoever asked for it."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec
import pytest
import zmq

from broker import wire
from broker.inquiry import Inquiry
from broker.patience import LEAST, MOST, Patience
from broker.wire import End, Entry, Page, Since
from clients.cursor import Cursor, Position
from clients.past import Past
from clients.results import Results
from tests.conftest import free_port
from tests.peers import Context

#: Bytes a second, and in a page: it takes 5 s, longer than a connection lives without a sign of life.
SLOW = 200_000
PAGE = 1_000_000
JOINED = {
    "camera": "cam1",
    "boot": "b",
    "seq": 0,
    "station": "s",
    "policy": "inspect",
    "outcome": "complete",
    "verdict": "none",
    "results": {},
    "seconds": 0.1,
    "published_at": 0.0,
}


def test_patience_doubles_up_to_its_most_with_each_answer_that_does_not_come() -> None:
    patience, now, waits = Patience(), 0.0, []
    for number in range(7):
        patience.asked(now, again=number > 0)
        waits.append(patience.answer_by - now)
        now = patience.answer_by
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, MOST, MOST]


@pytest.mark.parametrize(("took", "then"), [(0.01, LEAST), (2.5, 5.0), (29.0, MOST)])
def test_after_an_answer_patience_is_twice_what_it_took(took: float, then: float) -> None:
    patience = Patience()
    patience.asked(10.0, again=False)
    patience.answered(10.0 + took)
    patience.asked(50.0, again=False)
    assert patience.answer_by == 50.0 + then


def test_who_is_back_is_asked_soon() -> None:
    patience = Patience()
    for now in (0.0, 1.0, 3.0):
        patience.asked(now, again=now > 0)
    patience.renew()
    assert patience.answer_by == 3.0 + LEAST


def test_a_consumer_waits_longer_each_time_before_it_asks_again(context: Context) -> None:
    made = []

    def connect() -> zmq.Socket[bytes]:
        made.append(context.socket(zmq.DEALER))
        made[-1].linger = 0
        return made[-1]

    past = Past(Cursor([], Position("", 0)), connect, from_now=False)
    past.open()
    sockets = []
    for now in range(8):
        past.receive(float(now), float(now))
        sockets.append(len(made))
    past.close()
    assert sockets == [1, 2, 2, 3, 3, 3, 3, 4]


# --- a slow link -----------------------------------------------------------------------------------------------------


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(8192):
            sink.sendall(some)
            time.sleep(len(some) / SLOW)  # it is the link that takes so long
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def relay(near: socket.socket, port: int) -> None:
    with near, socket.create_connection(("127.0.0.1", port)) as far:
        back = threading.Thread(target=pump, args=(far, near))
        back.start()
        pump(near, far)
        back.join()


class SlowJoin:
    """A ledger of one large publication and a small one, at the other end of a slow link."""

    def __init__(self, context: Context) -> None:
        self._router = context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._over = threading.Event()
        self._relays: list[threading.Thread] = []
        self._threads = [threading.Thread(target=run) for run in (self._accept, self._answer)]
        for thread in self._threads:
            thread.start()

    def _accept(self) -> None:
        with self._listener:
            while not self._over.is_set():
                near, _ = self._listener.accept()
                self._relays.append(threading.Thread(target=relay, args=(near, self._port)))
                self._relays[-1].start()

    def _answer(self) -> None:
        page = Page(
            ledger_id="l",
            items=[
                Entry(topic="frame/large/", seq=1, previous=None, body=bytes(PAGE)),
                Entry(topic="frame/cam1/", seq=2, previous=None, body=msgspec.msgpack.encode(JOINED)),
            ],
        )
        while not self._over.is_set():
            if self._router.poll(50):
                identity, *question = self._router.recv_multipart()
                since = wire.decode_message(question)
                assert isinstance(since, Since)
                answer = End(ledger_id="l", seq=2) if since.seq >= 2 else page
                self._router.send_multipart([identity, *wire.encode(answer)])

    def close(self) -> None:
        self._over.set()
        socket.create_connection(("127.0.0.1", int(urlsplit(self.endpoint).port or 0))).close()  # wakes it
        for thread in self._threads:
            thread.join()
        self._router.close()
        for thread in self._relays:
            thread.join()


@pytest.fixture
def join(context: Context) -> Iterator[SlowJoin]:
    one = SlowJoin(context)
    yield one
    one.close()


@pytest.mark.slow
def test_a_page_comes_through_a_slow_link_to_a_consumer(join: SlowJoin, context: Context) -> None:
    live = f"tcp://127.0.0.1:{free_port()}"
    with Results(live, catchup=join.endpoint, since=Position("", 0), timeout=40.0, context=context) as results:
        assert next(results).seq == 2
        assert results.malformed == 1, "the large one is no result"


@pytest.mark.slow
def test_a_page_comes_through_a_slow_link_to_a_recorder(join: SlowJoin, context: Context) -> None:
    poller, inquiry = zmq.Poller(), Inquiry(join.endpoint, Counter(), None)
    inquiry.open(context, poller)
    inquiry.ask(Since(ledger_id="", seq=0, topics=["frame/"]))
    assert poller.poll(round(1000 * MOST))
    assert [type(answer) for answer in inquiry.answers()] == [Page]
    inquiry.close()
