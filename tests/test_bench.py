"""The benchmark harness: tiny runs for the shape of what it reports. No figure of a test machine is judged."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq
from typer.testing import CliRunner, Result

import workers  # noqa: F401  (before cv2, whose limits it sets)
from ops.bench import app, rivals, stages
from ops.bench.bare import BareLoop
from ops.bench.board import SAMPLES, Board, Slot
from ops.bench.broker import Plan
from ops.bench.child import command
from ops.bench.compare import Results, Row, make_rows, make_targets, spread
from ops.bench.crew import BenchError, open_crew, wait_until
from ops.bench.overload import Load, Overload, fairness
from ops.bench.plot import draw
from ops.bench.postprocess import misses
from ops.bench.report import worker_table
from ops.bench.soak import Record, Series, Soak, slope
from ops.bench.trial import LINES, Latency, Measurement, Settings, Subject, Trial, rectangle, run_trial
from ops.bench.worker import Workload, make_cases, run_case
from workers import tiny

TINY = Settings(seconds=0.2, warm_up=0.05)


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


# --- board and crew --------------------------------------------------------------------------------------------------


def test_board_is_seen_by_whoever_else_opens_it(tmp_path: Path) -> None:
    with Board.create(tmp_path / "board") as written, Board(tmp_path / "board") as read:
        written.counts[Slot.RECEIVED] = 3
        written.counts[Slot.RECEIVED + 1] = 4
        written.add_latency(0.5)
        assert read.received(2) == 7
        assert read.latencies_since(0) == [0.5]


def test_board_tells_sources_to_stop_before_the_rest(tmp_path: Path) -> None:
    with Board.create(tmp_path / "board") as board:
        assert not board.sources_stopped
        board.stop_sources()
        assert board.sources_stopped
        assert not board.stopped
        board.stop()
        board.stop_sources()
        assert board.stopped


def test_board_keeps_the_newest_latencies(tmp_path: Path) -> None:
    with Board.create(tmp_path / "board") as board:
        for number in range(SAMPLES + 3):
            board.add_latency(float(number))
        assert board.latencies_since(0) == [float(number) for number in range(3, SAMPLES + 3)]
        assert board.latencies_since(SAMPLES + 1) == [SAMPLES + 1.0, SAMPLES + 2.0]


def test_crew_says_which_process_ended_and_its_last_words(tmp_path: Path) -> None:
    with open_crew(tmp_path) as crew:
        crew.start("talker", [sys.executable, "-c", "print('last words'); raise SystemExit(3)"])
        with pytest.raises(BenchError, match=r"(?s)talker ended with exit code 3.*last words"):
            wait_until(lambda: False, crew, 30, "nothing")


def test_crew_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_crew(tmp_path) as crew:
        crew.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
        (child,) = psutil.Process().children()
        assert crew.sample()["sleeper"].rss > 0
        raise RuntimeError
    assert not child.is_running()


# --- trials ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "transport"),
    [
        ("raw", "tcp"),
        ("proxy", "ipc"),
        ("tight", "tcp"),
        ("broker", "tcp"),
        ("broker", "ipc"),
        ("curve", "tcp"),
        ("curve", "ipc"),
    ],
)
@pytest.mark.parametrize(("size", "rate"), [(1_000, 0.0), (200_000, 100.0)])
def test_trial_counts_what_arrives(subject: Subject, transport: str, size: int, rate: float) -> None:
    if transport == "ipc" and not zmq.has("ipc"):
        pytest.skip("libzmq was built without ipc")
    trial = Trial(subject=subject, transport=transport, size=size, models=2 if subject in LINES else 1, rate=rate)
    measurement = run_trial(trial, TINY)
    hops = {"raw": 1, "proxy": 2, "tight": 2, "broker": 3, "curve": 3}[subject]
    assert measurement.messages_per_s > 0
    assert measurement.tasks_per_s == pytest.approx(measurement.messages_per_s * trial.models)
    assert measurement.bytes_per_s == pytest.approx(measurement.messages_per_s * size * hops)
    assert measurement.troubles == {}
    assert set(measurement.cpu) == set(measurement.rss) >= {"consumer", "load"}
    if rate:
        assert measurement.latency is not None
        assert 0 < measurement.latency.p50 <= measurement.latency.p99
        assert measurement.latency.samples > 0


def test_a_trial_in_which_nothing_flows_fails() -> None:
    with pytest.raises(BenchError, match="still no message"):
        run_trial(Trial(subject="raw", transport="tcp", size=1_000), msgspec.structs.replace(TINY, patience=0.0))


@pytest.mark.parametrize(("size", "shape"), [(8, [1, 8]), (100_000, [2, 50_000]), (6_000_000, [96, 62_500])])
def test_rectangle_has_the_size(size: int, shape: list[int]) -> None:
    assert rectangle(size) == shape


def test_rectangle_refuses_a_large_prime() -> None:
    with pytest.raises(BenchError, match="rounder size"):
        rectangle(1_000_003)


def test_bare_loop_counts_the_pictures_of_each_thread(tmp_path: Path) -> None:
    tiny.make(tmp_path / "tiny.onnx")
    loop = BareLoop(model=str(tmp_path / "tiny.onnx"), threads=2, engine_threads=1, batch=4)
    with Board.create(tmp_path / "board") as board, open_crew(tmp_path) as crew:
        crew.start("bare", command(board, loop), heeds_board=True)
        counts = board.counts
        wait_until(lambda: counts[Slot.RECEIVED] and counts[Slot.RECEIVED + 1], crew, 30, "picture of both threads")
        board.stop()
        crew.wait(["bare"], 30)
        assert board.received(2) % 4 == 0


# --- what the trials say together ------------------------------------------------------------------------------------


def measured(subject: Subject, messages: float, *, size: int = 1_000, models: int = 1, p50: float = 0.0) -> Measurement:
    trial = Trial(subject=subject, transport="tcp", size=size, models=models, rate=100.0 if p50 else 0.0)
    hops = {"raw": 1, "proxy": 2, "tight": 2, "broker": 1 + models, "curve": 1 + models}[subject]
    return Measurement(
        trial=trial,
        seconds=2.0,
        messages_per_s=messages,
        tasks_per_s=messages * models,
        bytes_per_s=messages * size * hops,
        cpu={"broker": 1.0},
        rss={"broker": 50_000_000},
        latency=Latency(p50=p50, p99=2 * p50, samples=100) if p50 else None,
    )


def collect(*measurements: Measurement) -> Results:
    results: Results = {}
    for measurement in measurements:
        results.setdefault(measurement.trial, []).append(measurement)
    return results


def test_rows_take_ratios_pair_by_pair() -> None:
    # Medians apart would give 300 / 400; the pairs give 1.0, 0.75 and 0.5.
    results = collect(
        *(measured("proxy", value) for value in (100.0, 400.0, 1000.0)),
        *(measured("broker", value) for value in (100.0, 300.0, 500.0)),
    )
    (row,) = make_rows(results)
    assert row.ratio == (0.5, 0.75, 1.0)
    assert (row.messages, row.proxy_messages, row.raw_messages) == (300.0, 400.0, None)
    assert row.cpu == {"broker": pytest.approx(1.0 / 600.0)}


def test_rows_of_three_models_are_compared_with_the_same_proxy() -> None:
    results = collect(measured("proxy", 100.0), measured("broker", 100.0, models=1), measured("broker", 60.0, models=3))
    assert [row.ratio and row.ratio.median for row in make_rows(results)] == [1.0, pytest.approx(1.2)]


def test_rows_leave_out_a_pair_of_which_one_failed() -> None:
    results = collect(measured("proxy", 100.0), measured("proxy", 100.0), measured("broker", 50.0))
    results[measured("broker", 1.0).trial].insert(0, None)
    (row,) = make_rows(results)
    assert row.ratio == (0.5, 0.5, 0.5)


def test_rows_say_what_the_broker_adds_to_the_latency() -> None:
    results = collect(
        measured("broker", 1.0),
        measured("raw", 100.0, p50=0.0002),
        measured("proxy", 100.0, p50=0.0003),
        measured("broker", 100.0, p50=0.0005),
    )
    (row,) = make_rows(results)
    assert row.added_to_raw == pytest.approx(0.0003)
    assert row.added_to_proxy == pytest.approx(0.0002)


def test_targets_are_reached_or_missed_by_the_worst_row() -> None:
    good = measured("proxy", 100.0, size=1_000_000), measured("broker", 95.0, size=1_000_000)
    bad = measured("proxy", 100.0, size=6_000_000), measured("broker", 80.0, size=6_000_000)
    _, reached = make_targets(make_rows(collect(*good)))
    _, missed = make_targets(make_rows(collect(*good, *bad)))
    assert (reached.reached, reached.measured) == (True, 0.95)
    assert (missed.reached, missed.measured, missed.where) == (False, 0.8, "tcp 6 MB ×1")


def test_targets_are_held_against_a_proxy_with_tight_queues_as_well() -> None:
    results = collect(
        measured("proxy", 100.0, size=100_000),
        measured("tight", 50.0, size=100_000),
        measured("broker", 40.0, size=100_000),
    )
    (row,) = make_rows(results)
    assert (row.tight_messages, row.tight_ratio) == (50.0, (0.8, 0.8, 0.8))
    found = {target.name: target.reached for target in make_targets([row]) if "÷" in target.name}
    assert found == {"bytes/s ÷ proxy's, HWM 4, 100 KB": True, "bytes/s ÷ proxy's, 100 KB": False}


def test_a_target_without_a_figure_is_missed() -> None:
    results: Results = {measured("broker", 1.0).trial: [None]}
    assert {(target.measured, target.reached) for target in make_targets(make_rows(results))} == {(None, False)}


def test_an_upper_target_counts_the_largest_figure() -> None:
    results = collect(
        measured("broker", 20_000.0), measured("raw", 100.0, p50=0.0002), measured("broker", 100.0, p50=0.0007)
    )
    target = make_targets(make_rows(results))[-1]
    assert (target.name, target.reached) == ("added p50 in ms, to 300 KB", False)
    assert target.measured == pytest.approx(0.5)


def test_spread_of_nothing_is_none() -> None:
    assert spread([]) is None


def test_plan_alternates() -> None:
    plan = Plan(sizes=[1_000], transports=["tcp"], models=[1, 3], pairs=2, latency_rounds=1)
    subjects = [(trial.subject, trial.models, trial.rate) for trial in plan.trials()]
    turn = [("raw", 1), ("proxy", 1), ("tight", 1), ("broker", 1), ("broker", 3)]
    assert subjects == [(*one, 0.0) for one in 2 * turn] + [(*one, 100.0) for one in turn if one[0] != "tight"]


def test_plan_puts_curve_beside_plain() -> None:
    plan = Plan(sizes=[1_000], transports=["tcp"], models=[1], pairs=1, latency_rounds=1, curve=True)
    turn = ["raw", "proxy", "tight", "broker", "curve", "raw", "proxy", "broker", "curve"]
    assert [trial.subject for trial in plan.trials()] == turn


def test_rows_say_what_curve_takes() -> None:
    paced = measured("broker", 100.0, p50=0.001), measured("curve", 100.0, p50=0.004)
    (row,) = make_rows(collect(measured("broker", 100.0), measured("curve", 25.0), *paced))
    assert row.curve_messages == 25.0
    assert row.curve_ratio is not None
    assert row.curve_ratio.median == pytest.approx(0.25)
    assert (row.p50, row.curve_p50, row.curve_p99) == (0.001, 0.004, 0.008)
    (plain,) = make_rows(collect(measured("broker", 100.0)))
    assert (plain.curve_messages, plain.curve_ratio) == (None, None)


# --- soak ------------------------------------------------------------------------------------------------------------


def test_slope_is_of_the_second_half() -> None:
    times = [float(number) for number in range(10)]
    assert slope(times, [500, 100, 900, 3, 70, *(2 * number for number in range(5, 10))]) == pytest.approx(2.0)


def test_slope_of_too_little_is_unknown() -> None:
    assert math.isnan(slope([0.0], [1]))


def test_record_subtracts_what_the_broker_holds() -> None:
    soak = Soak(seconds=2, rate=1, cameras=1, side=10, models=1, transport="tcp")
    record = Record(soak=soak, times=[0.0, 1.0], processes={"broker": Series(rss=[100, 90])}, in_flight=[30, 0])
    assert record.broker_without_payloads() == [70, 90]


def test_plot_is_a_png(tmp_path: Path) -> None:
    soak = Soak(seconds=2, rate=1, cameras=1, side=10, models=1, transport="tcp")
    series = {name: Series(rss=[50_000_000, 60_000_000]) for name in "abcdefgh"}
    draw(Record(soak=soak, times=[0.0, 1.0], processes=series, in_flight=[0, 0]), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


# --- commands --------------------------------------------------------------------------------------------------------


def test_bench_broker_reports(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = bench(
        "broker", "--sizes", "1k", "--transports", "tcp", "--models", "1", "--pairs", "1", "--latency-rounds", "0",
        "--seconds-per-run", "0.2", "--warm-up", "0", "--report", str(report),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Targets" in result.stdout
    content = json.loads(report.read_text(encoding="utf-8"))
    assert {"machine", "plan", "settings", "rows", "targets", "measurements", "failures"} == set(content)
    (row,) = content["rows"]
    assert set(row) == set(Row.__struct_fields__)
    assert row["ratio"][0] > 0
    assert {"broker", "join", "consumer", "load"} == set(row["cpu"])
    assert len(content["measurements"]) == 4


def test_bench_broker_profiles(tmp_path: Path) -> None:
    result = bench(
        "broker", "--sizes", "1k", "--transports", "tcp", "--models", "1", "--seconds-per-run", "0.2",
        "--profile", str(tmp_path / "broker.prof"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "under cProfile" in result.stdout


def test_bench_soak_reconciles(tmp_path: Path) -> None:
    report, plot = tmp_path / "soak.md", tmp_path / "soak.png"
    result = bench(
        "soak", "--minutes", "0.05", "--rate", "20", "--size", "10k", "--models", "2",
        "--report", str(report), "--plot", str(plot),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "reconciles" in result.stdout
    assert "broker less in flight" in report.read_text(encoding="utf-8")
    assert plot.is_file()


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    tiny.make(tmp_path / "tiny.onnx")
    return Workload(model=str(tmp_path / "tiny.onnx"), frames=5, threads=1, engine_threads=1, max_batch=1)


def test_worker_is_measured_at_the_models_size_and_at_1080p(workload: Workload) -> None:
    names = ["jpeg 160x160", "jpeg 1920x1080", "bgr8 160x160", "bgr8 1920x1080"]
    assert [case.name for case in make_cases(workload)] == names


def test_worker_bench_refuses_what_is_no_model(tmp_path: Path, workload: Workload) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(BenchError, match=r"bad\.onnx"):
        make_cases(msgspec.structs.replace(workload, model=str(tmp_path / "bad.onnx")))


def test_worker_is_measured_beside_the_bare_loop(workload: Workload) -> None:
    steps: list[None] = []
    result = run_case(workload, make_cases(workload)[0], 1, lambda: steps.append(None))
    assert len(steps) == 2
    assert result.ratio is not None
    assert result.ratio.median == result.worker[0].frames_per_s / result.bare[0].frames_per_s
    assert {"broker", "join", "worker", "cameras"} == set(result.worker[0].cpu)
    assert worker_table([result]).row_count == 1


def test_worker_bench_says_why_a_worker_does_not_start(workload: Workload) -> None:
    failing = msgspec.structs.replace(workload, options=["--labels", "missing.txt"])
    with pytest.raises(BenchError, match=r"(?s)worker ended with exit code.*missing\.txt"):
        run_case(failing, make_cases(workload)[0], 1, lambda: None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("broker", "--sizes", "4"),
        ("broker", "--sizes", "1g"),
        ("broker", "--transports", "inproc"),
        ("broker", "--models", "0"),
        ("worker", "--model", "missing.onnx"),
        ("soak", "--size", "-1"),
        ("overload", "--policies", "inspekt"),
        ("overload", "--cameras", "0"),
        ("overload", "--kinds", "unequal"),
    ],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...]) -> None:
    assert bench(*arguments).exit_code == 2


# --- overload --------------------------------------------------------------------------------------------------------


def test_fairness_is_jains_index() -> None:
    assert fairness([5, 5, 5, 5]) == 1.0
    assert fairness([20, 0, 0, 0]) == 0.25
    assert math.isnan(fairness([0, 0]))


def test_a_load_names_the_targets_that_it_missed() -> None:
    case = Overload(policy="inspect", cameras=2, deadline=1.0)
    good = Load(
        overload=case, sent=100, skipped=200, complete=100, incomplete=0, joined={"camera-0": 50, "camera-1": 50},
        settle=[0.5] * 100,
    )  # fmt: skip
    assert list(good.misses()) == []
    bad = msgspec.structs.replace(
        good, complete=90, incomplete=10, joined={"camera-0": 90}, settle=[1.5] * 100, broker=61_000_000
    )
    assert [text.split(" ")[0] for text in bad.misses()] == ["fairness", "the", "90.0%", "p99"]
    monitor = msgspec.structs.replace(good, overload=Overload(policy="monitor", cameras=2), seconds=[9.0])
    assert [text.split(",")[0] for text in monitor.misses()] == ["p99 age 9.000 s"]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["inspect", "monitor"])
def test_bench_overload_reconciles_and_nobody_starves(tmp_path: Path, policy: str) -> None:
    """Real processes; the bounds are wide, for machines are shared. The close ones are in test_overload.py."""
    report = tmp_path / "overload.json"
    ended = bench(
        "overload", "--policies", policy, "--cameras", "6", "--kinds", "greedy", "--seconds", "4", "--size", "100k",
        "--deadline", "2", "--report", str(report),
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    (load,) = json.loads(report.read_text())["loads"]
    assert load["problems"] == []
    assert load["skipped"] > load["sent"] or policy == "monitor"
    assert len(load["joined"]) == 6
    assert fairness(list(load["joined"].values())) >= 0.8
    if policy == "inspect":
        assert load["incomplete"] <= 0.1 * load["complete"]
    else:
        assert max(load["seconds"]) < 2.0


# --- around the engine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 80])
def test_rivals_keep_the_same_boxes(classes: int) -> None:
    found = rivals.compete(classes, rounds=1)
    assert found.same
    assert 0 < found.kept <= 300
    assert all(len(times) == 1 for times in found.milliseconds.values())


def test_bench_postprocess_reports(tmp_path: Path) -> None:
    model, report = tmp_path / "tiny.onnx", tmp_path / "report.json"
    tiny.make(model)
    done = bench("postprocess", "--model", str(model), "--batches", "1,2", "--rounds", "2", "--report", str(report))
    assert done.exit_code == 0, done.output
    content = json.loads(report.read_text(encoding="utf-8"))
    assert [one["batch"] for one in content["stages"]] == [1, 2]
    assert [one["classes"] for one in content["suppression"]] == [80, 1]


def test_a_missed_target_is_named() -> None:
    slow = stages.Stages(
        model="m", task="detect", batch=1, found=0.0, decode=9.0, prepare=1.0, infer=10.0, interpret=1.0
    )
    times = {"workers": [1.0], "NMSBoxesBatched": [4.0], "loop over classes": [2.0]}
    near = rivals.Rivalry(classes=80, kept=3, same=True, milliseconds=times)
    assert misses([slow], [near]) == [
        "m at batch 1: 0.20 of the inference around it, not 0.1",
        "loop over classes takes 2.0, not 3 times as long as the workers, with 80 classes",
    ]
