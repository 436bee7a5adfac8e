"""A session of a worker process and its present registration: what is said of it to the broker, and to the log."""

from __future__ import annotations

from dataclasses import dataclass

from broker import log
from broker.wire import UNKNOWN, Ready, Void
from workers.registration import Registration, class_names
from workers.session import Session

logger = log.get(__name__)


@dataclass(slots=True)
class Member:
    """`reason`: why the broker closed it last; the same again is not logged again."""

    session: Session
    registration: Registration
    reason: str = ""

    def ready(self, worker: str) -> Ready:
        """Its READY, as a session of `worker`."""
        session, registration = self.session, self.registration
        return Ready(
            worker=worker,
            session=registration.session,
            model=registration.model,
            sha256=session.runner.engine.signature.sha256,
            max_batch=session.runner.max_batch,
            exec_timeout=session.exec_timeout,
            grant=session.window,
            depth=session.window,
            classes=class_names(session.runner.model.names),
            random=session.runner.model.random,
            precision=session.runner.model.precision or UNKNOWN,
        )

    def tell(self, message: Void) -> None:
        """Log why the broker closed it, and what to do."""
        said = {"session": self.session.label, "id": message.session, "reason": message.reason}
        match message.reason:
            case "unknown_model":
                logger.warning("the broker's line does not name this model: add it and reload; asking again", **said)
            case "too_many_sessions":
                logger.warning("the broker takes no more sessions: raise limits.sessions; asking again", **said)
            case "other_version":
                logger.warning("the line wants another version of this model; asking again", **said)
            case _:
                logger.info("session closed", **said)
