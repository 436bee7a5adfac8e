"""The inference thread of a session: runs batches, reads the outputs and says what became of every job, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import zmq

from broker import log
from broker.wire import RESULT_LIMIT, Answer, Done, Nack, Status, encode
from workers.batch import BUFFERS, Batch, Batches, Work
from workers.errors import OutputError
from workers.metrics import Metrics
from workers.placement import Array
from workers.runner import Runner

logger = log.get(__name__)

#: Seconds between two looks at the order to stop while nothing is to be done.
GLANCE: Final = 0.05
#: Tries after which a job that raises in the engine has failed; before, another session may do better.
TRIES: Final = 2
#: Hex digits of the model's sha256 that an answer carries.
VERSION: Final = 12


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the engine; `outputs` None: it raised. `began` is a monotonic instant, `seconds` its duration."""

    outputs: list[Array] | None
    count: int
    began: float
    seconds: float


class Inference:
    """Owns the engine of a session. `run` is the thread; `since` is read by others."""

    def __init__(self, runner: Runner, batches: Batches, metrics: Metrics, label: str) -> None:
        #: Monotonic instant at which the present batch was taken; None: none.
        self.since: float | None = None
        #: How far the grant is ahead of the last job done: all that fits into the buffers.
        self.window = BUFFERS * runner.max_batch
        self._runner = runner
        self._model = runner.options.name
        self._version = runner.engine.signature.sha256[:VERSION]
        self._batches = batches
        self._metrics = metrics
        self._logger = logger.bind(session=label)

    def run(self, context: zmq.Context[Any], address: str, stopping: threading.Event) -> None:
        """Answer batches until `stopping`; answers leave over the PAIR at `address`, encoded DONE and NACK."""
        with context.socket(zmq.PAIR) as answers:
            answers.linger = 0
            answers.connect(address)
            while not stopping.is_set():
                batch = self._batches.take(GLANCE)
                if batch is None:
                    continue
                self.since = time.monotonic()
                for message in self.answer(batch):
                    answers.send_multipart(encode(message))
                self.since = None

    def answer(self, batch: Batch) -> Iterator[Done | Nack]:
        """One message for every job, in order; the engine is called when the first one needs it."""
        _expire(batch, time.monotonic())
        calls = self._calls(batch)
        for work in batch.works:
            body = b""
            if work.status == "ok":
                call, row = next(calls)
                body = self._read(work, call, row)
            yield self._message(work, body)

    def _calls(self, batch: Batch) -> Iterator[tuple[Call, int]]:
        """For every input of the batch the call that saw it, and its row there."""
        call = self._call(batch.inputs)
        if call.outputs is not None or batch.filled == 1:
            yield from ((call, row) for row in range(batch.filled))
            return
        for row in range(batch.filled):  # one by one, so that one bad picture does not fail the others
            yield self._call(batch.inputs[row : row + 1]), 0

    def _call(self, inputs: Array) -> Call:
        self._metrics.batches.labels(self._model).observe(len(inputs))
        began, started = time.monotonic(), time.perf_counter()
        self.since = began
        outputs = None
        try:
            outputs = self._runner.engine.infer(inputs)
        except Exception as error:  # an engine may raise anything; its jobs are given back or failed, and counted
            self._logger.error("inference failed", batch=len(inputs), error=str(error))
        return Call(outputs, len(inputs), began, time.perf_counter() - started)

    def _read(self, work: Work, call: Call, row: int) -> bytes:
        """The encoded result body; empty, and the job ended otherwise, when there is none."""
        if call.outputs is None:
            work.end("failed" if work.job.tries >= TRIES else "returned", "engine_error")
            return b""
        body = b""
        try:
            body = self._body(work, call.outputs, call, row)
        except OutputError as error:
            self._logger.error("result is no answer", frame=str(work.job.key), error=str(error))
            work.end("failed", "not_finite")
        except Exception:  # an output that we trip over must not end the session; it is counted as failed
            self._logger.exception("result cannot be read", frame=str(work.job.key))
            work.end("failed", "interpret_error")
        if len(body) > RESULT_LIMIT:
            work.end("failed", "result_too_large")
            return b""
        return body

    def _body(self, work: Work, outputs: list[Array], call: Call, row: int) -> bytes:
        assert work.placement is not None
        started = time.perf_counter()
        result = self._runner.interpret(outputs, row, work.placement)
        ready = time.perf_counter()
        waited = call.began - work.received - sum(work.timings.values())
        timings = work.timings | {
            "wait": max(0.0, waited),
            "inference": call.seconds,
            "postprocess": ready - started,
        }
        for stage, seconds in timings.items():
            self._metrics.stages.labels(self._model, stage).observe(seconds)
        rounded = {stage: round(seconds, 6) for stage, seconds in timings.items()}
        told = {"version": self._version, "timings": rounded | {"batch": call.count}}
        return msgspec.msgpack.encode(result | told)

    def _message(self, work: Work, body: bytes) -> Done | Nack:
        job, tally = work.job, work.tally
        if work.status == "returned":
            return self._nack(work)
        tally.completed = job.dseq
        self._count(work, work.status)
        answer = Answer(dseq=job.dseq, key=job.key, status=work.status, reason=work.reason, body=body)
        return Done(session=tally.session, grant=job.dseq + self.window, model=self._model, items=[answer])

    def _nack(self, work: Work) -> Nack:
        job, tally = work.job, work.tally
        ours = work.reason != "other_session"
        tally.completed = job.dseq
        self._metrics.given_back.labels(self._model, work.reason).inc()
        return Nack(
            session=tally.session,
            dseq=job.dseq,
            key=job.key,
            retryable=True,
            reason=work.reason,
            grant=job.dseq + self.window if ours else 0,
        )

    def _count(self, work: Work, status: Status) -> None:
        self._metrics.frames.labels(self._model, status, work.reason).inc()


def _expire(batch: Batch, now: float) -> None:
    """Nobody waits for a batch that is overdue as a whole; one that runs anyway is answered as a whole."""
    runnable = [work for work in batch.works if work.status == "ok"]
    if all(work.overdue(now) for work in runnable):
        for work in runnable:
            work.end("expired", "worker_queue")
