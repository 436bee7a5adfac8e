"""The pure parts of a worker: registration, answers waiting for the broker, and batches between its threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire import BATCH_LIMIT, RESULT_LIMIT, Answer, Done, Job, Key, Nack, Ready, decode, encode
from workers.batch import Batch, Batches, Tally, Work
from workers.errors import RefusedError
from workers.outbox import Outbox
from workers.placement import Array, Placement, place
from workers.registration import REPEAT, TAKEN, UNWANTED, Registration, State, class_names


def counting() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"s{next(numbers)}"


@pytest.fixture
def registration() -> Registration:
    return Registration("m", counting())


def opened(registration: Registration) -> Registration:
    registration.ready_sent(0)
    assert registration.opened(registration.session, 7100)
    return registration


def ready(names: list[str]) -> Ready:
    classes = class_names(names)
    return Ready(worker="w", session="s", model="m", sha256="", max_batch=1, exec_timeout=1, grant=1, classes=classes)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["dent", "", "划痕"], ["dent", "", "划痕"]),
        ([str(number) for number in range(5000)], [str(number) for number in range(4096)]),
        (["x" * 65, "\U0001f600" * 70], ["x" * 64, "\U0001f600" * 64]),
        (["a\ud800b"], ["a?b"]),
    ],
    ids=["as they are", "too many", "too long", "no UTF-8"],
)
def test_class_names_are_cut_to_what_the_wire_takes(names: list[str], expected: list[str]) -> None:
    assert decode(*encode(ready(names))).classes == expected


# --- registration ----------------------------------------------------------------------------------------------------


def test_ready_is_due_until_it_is_sent_and_again_until_endpoint(registration: Registration) -> None:
    assert registration.ready_due(0)
    assert registration.ready_due(0.1), "an attempt that failed does not count"
    assert not registration.announced
    registration.ready_sent(0.1)
    assert registration.announced
    assert not registration.ready_due(0.1 + 0.9 * REPEAT)
    assert registration.ready_due(0.1 + REPEAT)
    assert registration.opened("s1", 7100)
    assert not registration.ready_due(100)


def test_endpoint_repeated_is_not_opened_twice_but_a_new_port_is(registration: Registration) -> None:
    opened(registration)
    assert not registration.opened("s1", 7100)
    assert registration.opened("s1", 7101)
    assert not registration.opened("other", 7102)


def test_void_of_an_open_session_registers_at_once_with_a_new_id(registration: Registration) -> None:
    opened(registration)
    assert registration.voided("s1", "no_beat", 10)
    assert (registration.session, registration.state, registration.announced) == ("s2", State.WAITING, False)
    assert registration.ready_due(10)
    assert not registration.voided("s1", "no_beat", 11), "an old id"


def test_void_before_endpoint_keeps_the_pace(registration: Registration) -> None:
    registration.ready_sent(0)
    assert registration.voided("s1", "unknown_session", 0.01)
    assert not registration.ready_due(0.1)
    assert registration.ready_due(REPEAT)


@pytest.mark.parametrize("reason", ["unknown_model", "too_many_sessions"])
def test_an_unwanted_session_asks_seldom(registration: Registration, reason: str) -> None:
    registration.ready_sent(0)
    registration.voided("s1", reason, 0.01)
    assert not registration.ready_due(1)
    assert registration.ready_due(0.01 + UNWANTED)


def test_a_name_may_be_taken_for_a_moment(registration: Registration) -> None:
    registration.voided("s1", "name_taken", 0)
    registration.voided("s2", "name_taken", TAKEN)
    assert registration.opened("s3", 7100)
    registration.voided("s3", "no_beat", 10)
    registration.voided("s4", "name_taken", 10)
    with pytest.raises(RefusedError, match="--name"):
        registration.voided("s5", "name_taken", 10 + TAKEN + 0.1)


@pytest.mark.parametrize("reason", ["protocol", "ready_invalid"])
def test_final_reasons_raise(registration: Registration, reason: str) -> None:
    with pytest.raises(RefusedError):
        registration.voided("s1", reason, 0)


def test_drain_ends_with_void_and_never_registers_again(registration: Registration) -> None:
    opened(registration).drain()
    states = [registration.state]
    assert registration.voided("s1", "drained", 1)
    states.append(registration.state)
    assert states == [State.DRAINING, State.ENDED]
    assert not registration.ready_due(100)
    assert not registration.voided("s1", "drained", 2)


def test_drain_of_a_session_that_never_opened_is_its_end(registration: Registration) -> None:
    registration.ready_sent(0)
    registration.drain()
    assert registration.state is State.ENDED
    assert not registration.opened("s1", 7100)


# --- outbox ----------------------------------------------------------------------------------------------------------


def done(session: str, dseq: int, size: int = 0) -> Done:
    answer = Answer(dseq=dseq, key=Key("c", "b", dseq), status="ok", body=bytes(size))
    return Done(session=session, grant=dseq + 2, model="m", items=[answer])


def nack(session: str, dseq: int) -> Nack:
    return Nack(session=session, dseq=dseq, key=Key("c", "b", dseq), retryable=True, reason="engine_error", grant=0)


def test_answers_of_a_session_are_merged_up_to_the_next_nack() -> None:
    outbox = Outbox()
    for message in (done("a", 1), done("a", 2), nack("a", 3), done("a", 4), done("b", 1)):
        assert outbox.put(message) == 0
    sent = []
    while (waiting := outbox.next()) is not None:
        sent.append(waiting[0])
        outbox.sent(waiting[1])
    summary = [(m.session, [i.dseq for i in m.items] if isinstance(m, Done) else m.dseq, m.grant) for m in sent]
    assert summary == [("a", [1, 2], 4), ("a", 3, 0), ("a", [4], 6), ("b", [1], 3)]
    assert len(outbox) == 0


def test_a_message_that_was_not_sent_stays() -> None:
    outbox = Outbox()
    outbox.put(done("a", 1))
    first = outbox.next()
    outbox.put(done("a", 2))
    second = outbox.next()
    assert first is not None
    assert second is not None
    assert (first[1], second[1]) == (1, 2)


def test_merged_messages_stay_below_the_limit() -> None:
    outbox = Outbox()
    for dseq in range(1, 11):
        outbox.put(done("a", dseq, RESULT_LIMIT))
    total = 0
    while (waiting := outbox.next()) is not None:
        assert len(encode(waiting[0])[1]) <= BATCH_LIMIT
        total += waiting[1]
        outbox.sent(waiting[1])
    assert total == 10


@given(st.lists(st.integers(0, 40), max_size=60))
def test_outbox_is_bounded_and_counts_what_it_discards(sizes: list[int]) -> None:
    outbox = Outbox(items=10, size=100)
    discarded = sum(outbox.put(done("a", dseq, size)) for dseq, size in enumerate(sizes, start=1))
    assert len(outbox) <= 10
    assert len(outbox) + discarded == len(sizes)
    waiting = outbox.next()
    if waiting is not None:
        assert isinstance(waiting[0], Done)
        assert [item.dseq for item in waiting[0].items] == list(range(discarded + 1, len(sizes) + 1))


# --- batches ---------------------------------------------------------------------------------------------------------

PLACEMENT = place((8, 8), (8, 8), "stretch")


def work(dseq: int, *, status: str = "ok") -> Work:
    job = Job(session="s", dseq=dseq, key=Key("c", "b", dseq), tries=1, encoding="mono8", shape=[8, 8], budget=9.0)
    item = Work(job, Tally("s"), 0.0)
    if status != "ok":
        item.end("failed", status)
    return item


def writes(value: int) -> Callable[[Array], Placement]:
    def prepare(out: Array) -> Placement:
        out[:] = value
        return PLACEMENT

    return prepare


def content(batch: Batch | None) -> tuple[list[int], list[float]]:
    assert batch is not None
    return [item.job.dseq for item in batch.works], [float(picture[0, 0, 0]) for picture in batch.inputs]


def test_ended_jobs_keep_their_place_and_take_no_input() -> None:
    batches = Batches(3, (8, 8), 0.0)
    batches.add(work(1), writes(1))
    batches.add(work(2, status="decode_failed"), lambda _: None)
    batches.add(work(3), writes(3))
    assert content(batches.take(0)) == ([1, 2, 3], [1.0, 3.0])


def test_room_for_one_batch_beside_the_one_taken() -> None:
    batches = Batches(2, (8, 8), 0.0)
    for dseq in (1, 2):
        assert batches.wait_for_room(0)
        batches.add(work(dseq), writes(dseq))
    assert not batches.wait_for_room(0)
    first = batches.take(0)
    for dseq in (3, 4):
        assert batches.wait_for_room(0)
        batches.add(work(dseq), writes(dseq))
    assert not batches.wait_for_room(0)
    assert content(first) == ([1, 2], [1.0, 2.0]), "what was taken is not written over"
    assert content(batches.take(0)) == ([3, 4], [3.0, 4.0])
    assert not batches.idle()
    assert batches.take(0) is None
    assert batches.idle()


def test_take_waits_for_more_until_it_is_full() -> None:
    batches = Batches(2, (8, 8), 60.0)
    batches.add(work(1), writes(1))
    taken: list[Batch | None] = []
    taker = threading.Thread(target=lambda: taken.append(batches.take(60)))
    taker.start()
    batches.add(work(2), writes(2))
    taker.join(10)
    assert content(taken[0]) == ([1, 2], [1.0, 2.0])


def test_take_waits_for_a_job_that_is_being_written() -> None:
    batches = Batches(4, (8, 8), 0.0)
    batches.add(work(1), writes(1))
    writing, go_on = threading.Event(), threading.Event()

    def slowly(out: Array) -> Placement:
        writing.set()
        assert go_on.wait(10)
        return writes(2)(out)

    adder = threading.Thread(target=lambda: batches.add(work(2), slowly))
    adder.start()
    assert writing.wait(10)
    taken: list[Any] = []
    taker = threading.Thread(target=lambda: taken.append(batches.take(10)))
    taker.start()
    go_on.set()
    adder.join(10)
    taker.join(10)
    assert content(taken[0]) == ([1, 2], [1.0, 2.0])


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 5))
def test_everything_comes_out_once_and_in_order(kinds: list[bool], max_batch: int) -> None:
    batches = Batches(max_batch, (2, 2), 0.0)
    seen: list[tuple[int, bool]] = []

    def consume() -> None:
        while len(seen) < len(kinds):
            batch = batches.take(10)
            assert batch is not None
            good = iter(batch.inputs)
            for item in batch.works:
                if item.placement is not None:
                    assert np.all(next(good) == item.job.dseq)
                seen.append((item.job.dseq, item.placement is not None))

    consumer = threading.Thread(target=consume)
    consumer.start()
    for dseq, good in enumerate(kinds, start=1):
        assert batches.wait_for_room(10)
        batches.add(work(dseq), writes(dseq) if good else lambda _: None)
    consumer.join(10)
    assert seen == list(enumerate(kinds, start=1))
