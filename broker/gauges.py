"""What the router's state says at this moment, as samples; read by the metrics thread, which changes nothing."""

from __future__ import annotations

import time

from broker.routing import Router


def samples(router: Router) -> dict[tuple[str, ...], float]:
    """Counters and gauges of a running broker.

    Called from another thread: each dict is copied in one step before it is walked.
    """
    values: dict[tuple[str, ...], float] = dict(router.counts)
    now = time.monotonic()
    for publisher in list(router.admission.publishers.values()):
        values["open_frames", publisher.name] = publisher.open
    for name, backlog in list(router.dispatcher.backlogs.items()):
        waiting, since = backlog.waiting()
        sessions = list(backlog.sessions.values())
        values["queue_frames", name] = waiting
        values["queue_oldest_age_seconds", name] = 0.0 if since is None else now - since
        values["sessions", name] = sum(session.ready for session in sessions)
        values["in_flight_frames", name] = sum(len(session.in_flight) for session in sessions)
    values["open_bytes",] = router.frames.bytes
    values["unacked_items",] = len(router.egress.unacked)
    values["repeated_items_total",] = router.egress.repeated_total
    values["given_up_items_total",] = router.egress.given_up_total
    values["join_up",] = router.egress.join_epoch is not None
    return values
