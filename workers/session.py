"""One session: an intake thread and an inference thread around a loaded model, as the control thread sees them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from broker import log
from broker.curve import Credentials
from broker.wire import SessionBeat
from workers.batch import Batches
from workers.inference import Inference
from workers.intake import CLOSE, OPEN, STOP, Intake
from workers.metrics import Metrics
from workers.runner import Runner

logger = log.get(__name__)

#: exec_timeout is so many times the slowest warm-up call, and no less than the second number, in seconds.
SLACK: Final = 10
LEAST_TIMEOUT: Final = 0.5


class Session:
    """Made, started and stopped by the control thread, which alone may call what is public here."""

    def __init__(
        self, runner: Runner, metrics: Metrics, label: str, warm_up: float, credentials: Credentials | None = None
    ) -> None:
        self.runner = runner
        self.label = label
        self.exec_timeout = max(LEAST_TIMEOUT, SLACK * warm_up)
        batches = Batches(runner.max_batch, runner.model.size, runner.options.max_delay)
        self._batches = batches
        self._intake = Intake(runner, batches, metrics, label, credentials)
        self._inference = Inference(runner, batches, metrics, label)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def window(self) -> int:
        """Jobs that may be under way at once: one batch in the engine, one being prepared."""
        return self._inference.window

    def start(self, context: zmq.Context[Any]) -> None:
        """Open the control thread's ends of the PAIRs (`commands`, `answers`) and start the threads."""
        address = f"inproc://{self.label}-{id(self):x}"
        self.commands = _pair(context, f"{address}-commands")
        self.answers = _pair(context, f"{address}-answers")
        targets: list[tuple[Callable[..., None], tuple[Any, ...], str]] = [
            (self._intake.run, (context, f"{address}-commands"), "intake"),
            (self._inference.run, (context, f"{address}-answers", self._stopping), "inference"),
        ]
        for target, arguments, name in targets:
            thread = threading.Thread(target=target, args=arguments, name=f"{self.label} {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def open(self, session: str, endpoint: str) -> None:
        """Pull the jobs of registration `session` from `endpoint` from now on."""
        self._command(OPEN, session.encode(), endpoint.encode())

    def close(self) -> None:
        """Pull no more; what was taken is still answered."""
        self._command(CLOSE)

    def idle(self) -> bool:
        """Every job that was taken has been answered (its answer may still be in the PAIR)."""
        return self._intake.since is None and self._inference.since is None and self._batches.idle()

    def exec_age(self, now: float) -> float:
        """Seconds that the slower of the two threads has been at its present job or batch; 0 for none."""
        since = [start for start in (self._intake.since, self._inference.since) if start is not None]
        return max(0.0, now - min(since)) if since else 0.0

    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def beat(self, session: str, now: float) -> SessionBeat:
        """Progress of registration `session`."""
        tally = self._intake.tally
        started, completed = (tally.started, tally.completed) if tally.session == session else (0, 0)
        return SessionBeat(
            session=session,
            started=started,
            completed=completed,
            exec_age=self.exec_age(now),
            grant=completed + self.window,
        )

    def stop(self, timeout: float) -> bool:
        """End the threads, waiting at most `timeout` seconds; False: one is stuck and was left behind."""
        if not self._threads:
            return True
        self._stopping.set()
        self._command(STOP)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.commands.close(0)
        self.answers.close(0)
        stuck = any(thread.is_alive() for thread in self._threads)
        if not stuck:
            self.runner.engine.close()
        return not stuck

    def _command(self, *segments: bytes) -> None:
        try:
            self.commands.send_multipart(segments, zmq.NOBLOCK)
        except zmq.Again:  # a thousand unread commands: the intake is stuck, and exec_age has long said so
            logger.error("the intake reads no commands", session=self.label)


def _pair(context: zmq.Context[Any], address: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    socket.linger = 0
    socket.bind(address)
    return socket
