"""A worker process: loads its models, warms them up, and serves the broker until it is told to stop."""

from __future__ import annotations

import os
import platform
import re
import threading
from typing import Any, Final

import zmq

from broker import log, silence, wire
from broker.curve import Credentials
from broker.notifier import Notifier
from workers.control import Control
from workers.errors import RefusedError
from workers.metrics import Metrics
from workers.options import ModelOptions
from workers.runner import Runner
from workers.session import Session
from workers.watchdog import Watchdog

logger = log.get(__name__)

#: Seconds that an orderly end may take.
DRAIN_TIMEOUT: Final = 5.0
#: Seconds that loading one model and warming it up may take under a service manager; an engine may build it first.
LOADING: Final = 600.0


class Worker:
    """The life of the process. `run` blocks in the thread that calls it; `stop` may be called from any other.

    `context`: None makes one of its own; inproc lines share one; a ZAP handler in it has no say over the worker, which
    binds nothing outside the process. `watchdog`: end the process when a model thread hangs; only for a process of its
    own. `patience`: seconds without a broker after which the log says so.
    `credentials`: for a broker that asks for keys. `notifier`: who is told that it serves.
    """

    def __init__(
        self,
        *,
        backend: str,
        models: list[ModelOptions],
        name: str = "",
        context: zmq.Context[Any] | None = None,
        watchdog: bool = False,
        patience: float = silence.LIMIT,
        credentials: Credentials | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.name = name or default_name()
        self.metrics = Metrics()
        self._backend = backend
        self._models = models
        self._context = context
        self._watched = watchdog
        self._patience = patience
        self._credentials = credentials
        self._notifier = notifier or Notifier()
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._stops = 0

    def run(self) -> bool:
        """Load, warm up, serve, drain. False: a thread was stuck at the end. Raises WorkersError."""
        if len(self.name) > wire.LABEL_LIMIT:
            raise RefusedError(
                f"a worker's name has at most {wire.LABEL_LIMIT} characters, not {len(self.name)}: --name"
            )
        sessions = self._load()
        if not sessions:
            return True
        control = self._prepared(sessions)
        context: zmq.Context[Any] = self._context or zmq.Context()
        try:
            control.run(context, DRAIN_TIMEOUT)
        finally:
            # A stuck thread never closes its socket, and the context would wait for it for ever.
            if context is not self._context and not control.stuck:
                context.term()
        return not control.stuck

    def stop(self) -> None:
        """End in order: finish what is in flight. Called twice: at once."""
        with self._lock:
            self._stops += 1
            if self._control is not None:
                self._control.stopping.set()
                if self._stops > 1:
                    self._control.hurry.set()

    def _prepared(self, sessions: list[Session]) -> Control:
        watchdog = Watchdog(max(session.exec_timeout for session in sessions)) if self._watched else None
        control = Control(
            self.name,
            self._backend,
            sessions,
            self.metrics,
            watchdog,
            self._patience,
            self._credentials,
            self._notifier,
        )
        with self._lock:
            self._control = control
            if self._stops:
                control.stopping.set()
        return control

    def _load(self) -> list[Session]:
        """All sessions, warmed up; they open nothing yet. None when `stop` came meanwhile."""
        share = max(1, cores() // max(1, sum(options.threads for options in self._models)))
        sessions = []
        for options in self._models:
            for number in range(options.threads):
                self._notifier.extend(LOADING)
                sessions.append(self._session(options, number, options.engine_threads or share))
                if self._stops:
                    return []
        return sessions

    def _session(self, options: ModelOptions, number: int, engine_threads: int) -> Session:
        label = options.name if options.threads == 1 else f"{options.name}-{number}"
        runner = Runner.load(options, engine_threads)
        seconds = runner.warm_up()
        model = runner.model
        logger.info(
            "model ready",
            session=label,
            task=model.task,
            classes=len(model.names),
            input="x".join(map(str, model.size)),
            max_batch=runner.max_batch,
            precision=model.precision or wire.UNKNOWN,
            engine=runner.engine.name,
            warm_up_ms=round(1000 * seconds, 1),
        )
        if model.random:
            logger.warning("its weights are random: no verdict that rests on it is ok", session=label)
        if number == 0 and (advice := runner.advice()):
            logger.warning(advice, model=options.name)
        _tell_limit(runner, label)
        return Session(runner, self.metrics, label, seconds, self._credentials)


def _tell_limit(runner: Runner, label: str) -> None:
    """Say why calls are smaller than they could be."""
    said, asked = runner.model.settings, runner.options.max_batch
    if said.max_batch is not None and said.max_batch <= runner.max_batch:
        told = logger.info if asked <= runner.max_batch else logger.warning
        told("its file limits the batch", session=label, asked=asked, max_batch=runner.max_batch, reason=said.reason)
    elif runner.max_batch < asked:
        logger.warning(
            "the file has a fixed batch, so max_batch is lower than asked for; workers import FILE.onnx frees it",
            session=label,
            asked=asked,
            max_batch=runner.max_batch,
        )


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_name() -> str:
    """Host name and process id, in the letters that names of a line have."""
    host = re.sub(r"[^a-z0-9_.-]", "-", platform.node().lower())[:48].lstrip("-_.")
    return f"{host or 'worker'}-{os.getpid()}"
