"""Prometheus metrics of the broker's processes: one registry and port each, filled when somebody scrapes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker import log

logger = log.get(__name__)

Samples = Mapping[tuple[str, ...], float]

#: name without prefix -> (help, label names). What is not listed here is not exposed: a test compares.
CATALOGUE: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    # all
    "log_lines_lost_total": ("Log lines that could not be written.", ()),
    # broker
    "accepted_total": ("Frames that were accepted.", ("camera",)),
    "settled_total": ("Frames whose every model has a terminal status.", ("camera",)),
    "skipped_total": ("Triggers that a camera reported as missed.", ("camera",)),
    "rejected_total": ("Messages of cameras that were refused.", ("reason",)),
    "refused_total": ("Other messages that were refused.", ("reason",)),
    "repeated_frames_total": ("Frames that were sent again although they were known.", ("camera",)),
    "tasks_total": ("Terminal statuses by model.", ("model", "status")),
    "requeued_total": ("Jobs given to another session because theirs was lost.", ("model",)),
    "suspects_total": ("Frames that were under way when a session died.", ("model",)),
    "poison_total": ("Frames that are taken to kill workers.", ("model",)),
    "late_total": ("Answers that came after their deadline.", ("model",)),
    "repeated_answers_total": ("Answers to what had been answered.", ("model",)),
    "unasked_total": ("Answers to what nobody asked.", ("kind",)),
    "unanswered_total": ("What peers asked too often to be answered each time.", ("kind",)),
    "stale_total": ("Messages that were meant for an earlier broker, or came on an earlier connection.", ("kind",)),
    "sessions_lost_total": ("Sessions that ended, by reason.", ("model", "reason")),
    "undelivered_total": ("Messages whose receiver was gone or full.", ("message", "reason")),
    "unpublished_total": ("Monitor frames that no join heard of.", ("camera",)),
    "copies_dropped_total": ("Copies for the recorder that were dropped.", ("camera",)),
    "boots_total": ("Boots of cameras that ended, by how.", ("camera", "state")),
    "unlogged_total": ("Log lines left out because there were too many.", ()),
    "standstills_total": ("Times that the broker itself stood still.", ()),
    "repeated_items_total": ("Items sent to the join again.", ()),
    "given_up_items_total": ("Late answers and notes that no join took for a minute.", ()),
    "sessions": ("Registered sessions.", ("model",)),
    "queue_frames": ("Tasks that wait for a session.", ("model",)),
    "queue_oldest_age_seconds": ("How long the oldest of them has waited.", ("model",)),
    "in_flight_frames": ("Jobs that sessions have.", ("model",)),
    "open_frames": ("Frames accepted and not settled.", ("camera",)),
    "open_bytes": ("Payload bytes of all open frames.", ()),
    "unacked_items": ("Items that the join has not committed.", ()),
    "join_up": ("1 while a join is known.", ()),
    # broker, join, recorder: with [security]
    "denied_total": ("Connections and messages of peers that may not come in.", ("reason",)),
    # join
    "joined_total": ("Frames published, by outcome.", ("camera", "outcome")),
    "verdicts_total": ("Verdicts of frames by station.", ("station", "verdict")),
    "results_total": ("Terminal statuses that were committed.", ("model", "status")),
    "late_results_total": ("Answers after the deadline that were put on record.", ("model",)),
    "repeated_results_total": ("Results that the ledger had already.", ("model",)),
    "published_total": ("Messages of the live stream.", ()),
    "parts_total": ("Parts closed, by outcome.", ("station", "outcome")),
    "part_verdicts_total": ("Verdicts of parts by station.", ("station", "verdict")),
    "part_frames_refused_total": ("Frames that their part did not take.", ("station", "reason")),
    "dropped_whole_total": ("Monitor frames that no model looked at.", ("camera",)),
    "deferred_total": ("Messages left to be repeated while the ledger failed.", ()),
    "commits_total": ("Transactions of the ledger.", ()),
    "commit_seconds_total": ("Seconds spent in them.", ()),
    "ledger_failures_total": ("Transactions that failed.", ()),
    "boots_cut_total": ("Boots of cameras that ended without BYE.", ("camera",)),
    "unknown_lines_total": ("Frames judged by another line file than theirs.", ()),
    "joined_within_total": ("Frames published within so many seconds of their expectation.", ("le",)),
    "ledger_bytes": ("Size of the ledger.", ()),
    "ledger_commit_seconds": ("Seconds of the last transaction.", ()),
    "ledger_deleted_total": ("Rows that were deleted because of their age or number.", ("what",)),
    "ledger_oldest_seq": ("The oldest publication that is kept, as of the last deletion.", ()),
    "ledger_step_seconds_longest": ("The longest that deletion has held the join up at once.", ()),
    "ledger_step_seconds_total": ("Seconds spent on deletion.", ()),
    "join_open_frames": ("Frames that wait for answers.", ()),
    "join_open_monitor_frames": ("Monitor frames that wait for answers.", ()),
    "join_open_parts": ("Parts that wait for frames.", ()),
    "join_unclaimed_frames": ("Frames of before the join's start that no broker spoke of yet.", ()),
    "join_catchups_waiting": ("Consumers whose catch-up is under way.", ()),
    "catchup_failures_total": ("Catch-up pages that the ledger could not give.", ()),
    # recorder
    "recorder_memory_bytes": ("Bytes of pictures that wait for a verdict or an asker.", ()),
    "recorder_disk_bytes": ("Bytes of stored pictures.", ()),
    "recorder_waiting_frames": ("Pictures that wait for their verdict.", ()),
    "recorder_disk_pictures": ("Stored pictures.", ()),
    "verdicts_caught_up_total": ("Verdicts that the recorder asked the join for again.", ()),
    "verdicts_gone_total": ("Times that the join did not have the verdicts any more that the recorder asked for.", ()),
    "copies_refused_total": ("Copies of frames that can not be kept.", ("reason",)),
    "pictures_kept_total": ("Pictures stored, by verdict.", ("verdict",)),
    "pictures_not_kept_total": ("Pictures whose verdict is not kept.", ("verdict",)),
    "pictures_deleted_total": ("Stored pictures deleted to stay within the disk's share.", ()),
    "disk_errors_total": ("Pictures that could not be read, written or deleted.", ("kind",)),
}


class Samplers(Collector):
    """Turns dicts keyed (name, label value, ...) into metrics at scrape time: the hot loop counts in plain dicts."""

    def __init__(self, sample: Callable[[], Samples], catalogue: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
        self._sample = sample
        self._catalogue = catalogue

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for (name, *labels), value in self._sample().items():
            if name not in self._catalogue:
                continue
            family = families.get(name) or families.setdefault(name, self._family(name))
            family.add_sample(f"gongwei_{name}", dict(zip(self._catalogue[name][1], labels, strict=True)), value)
        return families.values()

    def _family(self, name: str) -> Metric:
        text, labels = self._catalogue[name]
        if name.endswith("_total"):
            return CounterMetricFamily(f"gongwei_{name.removesuffix('_total')}", text, labels=labels)
        return GaugeMetricFamily(f"gongwei_{name}", text, labels=labels)


@contextlib.contextmanager
def served(
    port: int, sample: Callable[[], Samples], catalogue: Mapping[str, tuple[str, tuple[str, ...]]] = CATALOGUE
) -> Iterator[None]:
    """Serve `sample()` as /metrics on the loopback interface while the context is open; port 0 serves nothing."""
    if not port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(Samplers(lambda: {**sample(), **log.samples()}, catalogue))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise OSError(f"metrics port {port} of 127.0.0.1: {error.strerror}; choose another --metrics-port") from None
    logger.info("metrics served", url=f"http://127.0.0.1:{port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
