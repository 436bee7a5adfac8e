"""What operators ask of a running broker besides a reload: who is registered, and to let sessions go. Pure."""

from __future__ import annotations

from broker.roster import Session
from broker.routing import Router
from broker.wire import List, Listed, SessionState, Stop, Stopped


def listed(router: Router, message: List) -> Listed:
    """Every session, or those of some models, in the order of their registration."""
    dispatcher = router.dispatcher
    sessions = [
        state_of(session)
        for session in dispatcher.roster.sessions.values()
        if not message.models or session.model in message.models
    ]
    wanted = {model: dispatcher.backlog(model).wanted for model in router.line.models}
    return Listed(epoch=router.epoch, digest=router.admission.digest, sessions=sessions, wanted=wanted)


def stop(router: Router, now: float, message: Stop) -> Stopped:
    """Let the sessions that are meant finish, and end; of a name that nobody has, nothing is stopped at all."""
    sessions = router.dispatcher.roster.sessions.values()
    workers = {session.worker.name for session in sessions}
    models = {session.model for session in sessions}
    unknown = [name for name in message.workers if name not in workers]
    unknown += [name for name in message.models if name not in models]
    if unknown:
        return Stopped(unknown=list(dict.fromkeys(unknown)))
    meant = [session for session in sessions if _is_meant(session, message)]
    for session in meant:
        router.dispatcher.dismiss(now, session, "stopped")
    return Stopped(sessions=[state_of(session) for session in meant])


def state_of(session: Session) -> SessionState:
    """The session as operators are told of it."""
    return SessionState(
        worker=session.worker.name,
        session=session.id,
        model=session.model,
        sha256=session.sha256,
        in_flight=len(session.in_flight),
        dispatched=session.dispatched,
        grant=session.grant,
        open=session.ready,
        draining=session.draining,
        random=session.random,
        precision=session.precision,
    )


def _is_meant(session: Session, message: Stop) -> bool:
    return message.everything or session.worker.name in message.workers or session.model in message.models
