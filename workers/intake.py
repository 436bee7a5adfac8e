"""The intake thread of a session: pulls jobs, decodes their pictures and writes them into the model's input."""

from __future__ import annotations

import time
from typing import Any, Final

import zmq

from broker import curve, log
from broker.curve import Credentials
from broker.redial import keep_trying
from broker.wire import HEADER_LIMIT, Job, WireError, decode
from workers import image
from workers.batch import Batches, Tally, Work
from workers.errors import ImageError
from workers.image import Buffer
from workers.metrics import Metrics
from workers.placement import Array, Placement
from workers.runner import Runner

logger = log.get(__name__)

#: Messages that may wait in the PULL; credit is the flow control, this only bounds a broker gone wrong.
RECEIVE_LIMIT: Final = 4
#: Seconds between two looks at the commands while there is no room for jobs.
GLANCE: Final = 0.02
#: Commands of the control thread: [OPEN, session, endpoint], [CLOSE], [STOP].
OPEN: Final = b"open"
CLOSE: Final = b"close"
STOP: Final = b"stop"


class Intake:
    """Owns the PULL of a session. `run` is the thread; `since` and `tally` are read by others."""

    def __init__(
        self,
        runner: Runner,
        batches: Batches,
        metrics: Metrics,
        label: str,
        credentials: Credentials | None = None,
    ) -> None:
        self._credentials = credentials
        #: Monotonic instant at which the present job was received; None: none.
        self.since: float | None = None
        #: Progress of the registration whose jobs are pulled.
        self.tally = Tally("")
        self._runner = runner
        self._batches = batches
        self._metrics = metrics
        self._logger = logger.bind(session=label)

    def run(self, context: zmq.Context[Any], address: str) -> None:
        """Pull until the command STOP; commands come over the PAIR at `address`."""
        pull: zmq.Socket[bytes] | None = None
        with context.socket(zmq.PAIR) as commands:
            commands.linger = 0
            commands.connect(address)
            try:
                while True:
                    room = self._batches.wait_for_room(GLANCE)
                    readable = _wait(commands, pull if room else None, forever=room)
                    if commands in readable:
                        match commands.recv_multipart():
                            case [command, session, endpoint] if command == OPEN:
                                pull = self._open(context, pull, session.decode(), endpoint.decode())
                            case [command] if command == CLOSE:
                                _close(pull)
                                pull = None
                            case _:
                                return
                    elif pull is not None and pull in readable:
                        self._receive(pull)
            finally:
                _close(pull)

    def _open(
        self, context: zmq.Context[Any], old: zmq.Socket[bytes] | None, session: str, endpoint: str
    ) -> zmq.Socket[bytes] | None:
        _close(old)
        self.tally = Tally(session)
        pull: zmq.Socket[bytes] = context.socket(zmq.PULL)
        pull.linger = 0
        pull.rcvhwm = RECEIVE_LIMIT
        pull.maxmsgsize = 4 * image.pixel_limit() + HEADER_LIMIT
        keep_trying(pull)
        curve.call(pull, endpoint, self._credentials)
        try:
            pull.connect(endpoint)
        except zmq.ZMQError as error:  # without its peer the broker never sends; it gives the session up
            self._logger.error("data socket cannot be connected", endpoint=endpoint, error=str(error))
            pull.close(0)
            return None
        return pull

    def _receive(self, pull: zmq.Socket[bytes]) -> None:
        segments = pull.recv_multipart(zmq.NOBLOCK, copy=False)
        self.since = received = time.monotonic()
        try:
            job = _job(segments, self.tally)
            if job.session == self.tally.session:
                self.tally.started = job.dseq
                work = Work(job, self.tally, received)
            else:
                # A socket that reconnects may meet its port's next owner: that one's job is given back at once.
                work = Work(job, Tally(job.session), received)
                work.end("returned", "other_session")
            self._batches.add(work, lambda out: self._prepare(work, segments[2].buffer, out))
        except WireError as error:
            self._metrics.refused.labels(error.reason).inc()
            self._logger.warning("job refused", reason=error.reason, detail=str(error))
        finally:
            self.since = None

    def _prepare(self, work: Work, payload: Buffer, out: Array) -> Placement | None:
        """Decode the payload and write the model's input; None: the job has ended instead."""
        if work.status != "ok":
            return None
        if work.overdue(time.monotonic()):
            work.end("expired", "worker_queue")
            return None
        job, began = work.job, time.perf_counter()
        try:
            picture = image.decode(payload, job.encoding, job.shape, job.stride)
            decoded = time.perf_counter()
            placement = self._runner.prepare(picture, out)
        except ImageError as error:
            self._logger.warning("frame cannot be decoded", frame=str(job.key), detail=str(error))
            work.end("failed", error.reason)
            return None
        except Exception:  # a picture that we or OpenCV trip over must not end the session; it is counted as failed
            self._logger.exception("frame cannot be prepared", frame=str(job.key))
            work.end("failed", "prepare_error")
            return None
        work.timings = {"decode": decoded - began, "preprocess": time.perf_counter() - decoded}
        return placement


def _job(segments: list[zmq.Frame], current: Tally) -> Job:
    """The job of a message. Raises WireError for everything that cannot even be given back."""
    if len(segments) != 3:
        raise WireError("segments", f"{len(segments)} segments, a job has 3")
    message = decode(segments[0].bytes, segments[1].buffer)
    if not isinstance(message, Job):
        raise WireError("unexpected_type", f"{type(message).__name__} on a data socket")
    if message.session == current.session and message.dseq <= current.started:
        raise WireError("repeated", f"dseq {message.dseq} after {current.started}")
    return message


def _wait(
    commands: zmq.Socket[bytes], pull: zmq.Socket[bytes] | None, *, forever: bool
) -> dict[zmq.Socket[bytes], int]:
    """Which of the sockets can be read; waits for one if `forever`, else only looks."""
    poller = zmq.Poller()
    poller.register(commands, zmq.POLLIN)
    if pull is not None:
        poller.register(pull, zmq.POLLIN)
    return dict(poller.poll(None if forever else 0))


def _close(socket: zmq.Socket[bytes] | None) -> None:
    if socket is not None:
        socket.close(0)
