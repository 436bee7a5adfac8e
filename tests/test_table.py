"""What `gongwei up` shows: metrics read and put into a table, log lines of children, and the screen's own thread."""

from __future__ import annotations

import io
import json
import math
import queue
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from broker import metrics
from ops import columns, logline, scrape, table
from ops.logline import LogLine
from ops.scrape import Reading
from ops.screen import Screen
from ops.snapshot import ChildState, Snapshot
from ops.supervisor import Stage, State

EXPOSITION = """\
# TYPE gongwei_accepted_total counter
gongwei_accepted_total{camera="cam1"} 120.0
gongwei_accepted_total{camera="cam2"} 30.0
# TYPE gongwei_sessions gauge
gongwei_sessions{model="yolo"} 2.0
# TYPE gongwei_open_frames gauge
gongwei_open_frames{camera="cam1"} 3.0
# TYPE gongwei_joined_within_total counter
gongwei_joined_within_total{le="0.05"} 0.0
gongwei_joined_within_total{le="0.1"} 100.0
gongwei_joined_within_total{le="+Inf"} 100.0
# TYPE gongwei_tasks_total counter
gongwei_tasks_total{model="yolo",status="ok"} 140.0
gongwei_tasks_total{model="yolo",status="failed"} 7.0
# TYPE gongwei_worker_stage_seconds histogram
gongwei_worker_stage_seconds_bucket{model="yolo",stage="inference",le="0.1"} 50.0
gongwei_worker_stage_seconds_bucket{model="yolo",stage="inference",le="0.2"} 100.0
gongwei_worker_stage_seconds_bucket{model="yolo",stage="inference",le="+Inf"} 100.0
gongwei_worker_stage_seconds_count{model="yolo",stage="inference"} 100.0
gongwei_worker_stage_seconds_sum{model="yolo",stage="inference"} 10.0
"""


def drawn(renderable: RenderableType, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# --- readings --------------------------------------------------------------------------------------------------------


def test_samples_are_summed_over_the_labels_that_are_not_asked_for() -> None:
    reading = scrape.parse(EXPOSITION)
    assert reading.total("gongwei_accepted_total") == 150
    assert reading.total("gongwei_accepted_total", camera="cam2") == 30
    assert reading.total("gongwei_accepted_total", camera="nobody") == 0
    assert reading.by("gongwei_tasks_total", "status") == {"ok": 140, "failed": 7}


def test_an_endpoint_that_does_not_answer_is_an_empty_reading(free_port: int) -> None:
    assert not scrape.fetch(free_port)


def test_the_brokers_own_endpoint_is_read(free_port: int) -> None:
    with metrics.served(free_port, lambda: {("sessions", "yolo"): 3.0, ("joined_total", "cam1", "complete"): 5.0}):
        reading = scrape.fetch(free_port)
    assert reading.by("gongwei_sessions", "model") == {"yolo": 3}
    assert reading.total("gongwei_joined_total", outcome="complete") == 5


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_counter_that_fell_began_again() -> None:
    assert scrape.rate(30, 10, 2) == 10
    assert scrape.rate(6, 1000, 2) == 3
    assert scrape.rate(6, 1, 0) == 0


def test_quantiles_lie_inside_their_bucket() -> None:
    buckets = scrape.parse(EXPOSITION).buckets("gongwei_worker_stage_seconds_bucket", model="yolo")
    assert scrape.quantile(0.5, buckets) == pytest.approx(0.1)
    assert scrape.quantile(0.75, buckets) == pytest.approx(0.15)
    assert math.isnan(scrape.quantile(0.5, {}))
    assert math.isnan(scrape.quantile(0.5, {0.1: 0.0, math.inf: 0.0}))
    assert scrape.quantile(0.99, {0.1: 1.0, math.inf: 100.0}) == 0.1


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_never_in_the_wrong_bucket(values: list[float], share: float) -> None:
    bounds = [0.5, 1.0, 2.0, 5.0, 10.0, math.inf]
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in bounds}
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    found = scrape.quantile(share, buckets)
    upper = next(bound for bound in bounds if exact <= bound)
    lower = max([0.0, *(bound for bound in bounds if bound < upper)])
    assert lower - 1e-9 <= found <= upper + 1e-9


def test_a_histogram_of_a_process_that_began_again_counts_whole() -> None:
    assert scrape.increase({0.1: 5, 1.0: 9}, {0.1: 2, 1.0: 4}) == {0.1: 3, 1.0: 5}
    assert scrape.increase({0.1: 1, 1.0: 2}, {0.1: 20, 1.0: 40}) == {0.1: 1, 1.0: 2}


# --- the table -------------------------------------------------------------------------------------------------------


def snapshot(at: float, text: str) -> Snapshot:
    reading = scrape.parse(text)
    child = ChildState(
        name="worker/yolo-1", stage=Stage.WORKER, state=State.WAITING, pid=None, uptime=0, restarts=4, code=-9
    )
    return Snapshot(at=at, broker=reading, join=reading, workers=reading, children=(child,))


def test_the_table_shows_cameras_models_and_processes() -> None:
    text = drawn(table.draw(snapshot(12.0, EXPOSITION), snapshot(10.0, EXPOSITION.replace("120.0", "100.0"))))
    assert next(row for row in text.splitlines() if "cam1" in row).split()[:4] == ["cam1", "120", "10.0", "3"]
    assert next(row for row in text.splitlines() if row.startswith("yolo")).split()[:4] == ["yolo", "2", "140", "0.0"]
    assert next(row for row in text.splitlines() if row.startswith("yolo")).split()[-2:] == ["100.0", "198.0"]
    assert "p50 75.0 ms, p99 99.5 ms" in text
    assert next(row for row in text.splitlines() if "worker" in row).split() == ["worker/yolo-1", "restarts", "4"]


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_shows_fewer_columns_and_each_of_them_whole(width: int) -> None:
    now = snapshot(12.0, EXPOSITION.replace('"yolo"', '"yolov5s-seg"').replace(" 140.0", " 123456.0"))
    text = drawn(table.draw(now, now), width)
    wide = drawn(table.draw(now, now))
    assert "…" not in text
    assert set(text.split()) < set(wide.split())
    headings = next(row for row in text.splitlines() if row.startswith("model"))
    assert all(heading in headings for heading in ("sessions", "ok", "failed", "expired"))
    assert "requeued" not in headings
    row = next(row for row in text.splitlines() if row.startswith("yolov5s-seg"))
    assert row.split()[1:3] == ["2", "123456"]
    assert len(row.split()) == len(headings.replace(" ms", "").split())


def test_the_first_of_the_spare_columns_goes_first_and_no_more_than_must() -> None:
    widths = {"a": 10, "b": 10, "c": 10}
    assert columns.fitting(widths, 34, ["c", "b"]) == ["a", "b", "c"]
    assert columns.fitting(widths, 33, ["c", "b"]) == ["a", "b"]
    assert columns.fitting(widths, 21, ["c", "b"]) == ["a"]
    assert columns.fitting(widths, 1, ["c", "b"]) == ["a"]


def test_where_nothing_is_left_to_leave_out_the_name_is_cut() -> None:
    view = columns.Columns(["name", "count"])
    view.add_row("a-name-that-is-long", "123456")
    assert drawn(view, 14).splitlines() == ["name     count", "a-nam…  123456"]


def test_the_table_of_a_line_that_has_said_nothing() -> None:
    assert "process" in drawn(table.draw(Snapshot(), Snapshot()))


def test_the_plain_line_has_rate_and_sessions() -> None:
    line = table.plain(snapshot(12.0, EXPOSITION), snapshot(10.0, EXPOSITION.replace("120.0", "100.0")))
    assert line == "line: accepted 150 (10.0/s), joined 0, in flight 3, yolo: 2 sessions, restarts 4"


# --- log lines -------------------------------------------------------------------------------------------------------

RECORD = {
    "event": "session open",
    "level": "warning",
    "timestamp": "2026-01-02T03:04:05Z",
    "process": "x",
    "port": 7101,
}


def test_a_json_line_is_rendered_with_the_supervisors_name_for_the_process() -> None:
    line = logline.read("broker", json.dumps(RECORD))
    assert line == LogLine("broker", "session open", "warning", "2026-01-02T03:04:05Z", {"port": 7101})
    text = logline.render(line, colour="cyan", width=8).plain
    assert text.endswith("broker   warning session open port=7101")


@pytest.mark.parametrize("text", ["Traceback (most recent call last):", "{not json", '{"no": "event"}', "[1]", ""])
def test_any_other_line_is_shown_as_it_is(text: str) -> None:
    assert logline.read("join", text) == LogLine("join", text)


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = logline.render(logline.read("join", "a\x1b[2Jb"), colour="cyan").plain
    assert "\x1b" not in text
    assert r"a\x1b[2Jb" in text


def test_lines_for_machines_name_the_process_and_keep_every_field() -> None:
    record = json.loads(logline.to_json(logline.read("broker", json.dumps(RECORD)), now="now"))
    assert record == RECORD | {"process": "broker"}
    assert json.loads(logline.to_json(logline.read("join", "oops"), now="now"))["timestamp"] == "now"


# --- the screen ------------------------------------------------------------------------------------------------------


def screen(stream: io.StringIO, *, json: bool = False) -> Screen:
    return Screen(Console(file=stream, width=200), ["broker", "join"], Snapshot, json=json)


def test_every_line_that_was_put_is_drawn_before_the_end() -> None:
    stream = io.StringIO()
    shown = screen(stream)
    shown.start()
    for number in range(500):
        shown.line("broker", f"line {number}")
    shown.close(timeout=30)
    assert [f"line {number}" in stream.getvalue() for number in (0, 250, 499)] == [True, True, True]


def test_a_screen_for_machines_writes_one_object_a_line() -> None:
    stream = io.StringIO()
    shown = screen(stream, json=True)
    shown.start()
    shown.line("broker", json.dumps(RECORD))
    shown.say("the line is ready")
    shown.close(timeout=30)
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(record["process"], record["event"]) for record in records] == [
        ("broker", "session open"),
        ("gongwei", "the line is ready"),
    ]
    assert datetime.fromisoformat(records[1]["timestamp"]).tzinfo is UTC


def test_a_terminal_that_stands_still_costs_lines_that_are_counted_and_nothing_else() -> None:
    stream = io.StringIO()
    shown = screen(stream)  # not started: it draws nothing, as behind a frozen terminal
    for number in range(10_005):
        shown.line("broker", f"line {number}")
    shown.start()
    shown.close(timeout=30)
    assert "5 log lines were dropped" in stream.getvalue()


class Unread(io.StringIO):
    """The writing end of a pipe that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_log_that_nobody_reads_stops_no_reading_of_the_line() -> None:
    readings: queue.Queue[Snapshot] = queue.Queue()

    def read() -> Snapshot:
        readings.put(Snapshot())
        return Snapshot()

    shown = Screen(Console(file=Unread(), width=200), ["broker"], read)
    shown.start()
    shown.line("broker", "nobody sees this")
    for _ in range(3):
        readings.get(timeout=30)
    shown.close(timeout=30)


def test_an_empty_reading_is_false() -> None:
    assert not Reading()
