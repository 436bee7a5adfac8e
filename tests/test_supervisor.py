"""The supervisor's decisions (pure), the loop on real processes, and children that end with their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import parent
from ops.fleet import Fleet, describe
from ops.process import Process
from ops.supervisor import (
    ABANDON,
    FIRST_DELAY,
    LAST_DELAY,
    PATIENCE,
    RECOVERED,
    STOP_ORDER,
    Do,
    Restart,
    Spec,
    Stage,
    State,
    Supervisor,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def spec(name: str, stage: Stage = Stage.WORKER, restart: Restart = Restart.ALWAYS, grace: float = 10.0) -> Spec:
    return Spec(name=name, stage=stage, argv=(name,), restart=restart, grace=grace)


LINE = [spec("camera", Stage.CAMERA), spec("worker"), spec("broker", Stage.BROKER), spec("join", Stage.JOIN)]


def running(*specs: Spec) -> Supervisor:
    supervisor = Supervisor(specs)
    for _, name in supervisor.turn(0.0):
        supervisor.started(name, 0.0)
    return supervisor


# --- decisions -------------------------------------------------------------------------------------------------------


def test_starts_everything_at_once_in_the_order_of_stages() -> None:
    assert Supervisor(LINE).turn(0.0) == [(Do.START, name) for name in ("join", "broker", "worker", "camera")]


def test_two_processes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        Supervisor([spec("a"), spec("a")])


def test_a_process_that_keeps_dying_waits_longer_each_time_and_is_never_given_up() -> None:
    supervisor = running(spec("worker"))
    now, delays = 0.0, []
    for _ in range(12):
        delay = supervisor.exited("worker", 1, now)
        assert delay is not None
        delays.append(delay)
        assert supervisor.turn(now + delay - 0.001) == []
        now += delay
        assert supervisor.restarts == len(delays) - 1
        assert supervisor.turn(now) == [(Do.START, "worker")]
        supervisor.started("worker", now)
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert delays[-1] == LAST_DELAY
    assert supervisor.restarts == 12


def test_the_back_off_begins_again_after_a_healthy_life() -> None:
    supervisor = running(spec("worker"))
    for now in (0.0, 1.0, 2.0):
        supervisor.exited("worker", 1, now)
        supervisor.turn(now + 1.0)
        supervisor.started("worker", now + 1.0)
    assert supervisor.exited("worker", 1, 3.0 + RECOVERED) == FIRST_DELAY


@pytest.mark.parametrize(
    ("restart", "code", "again"),
    [
        (Restart.ALWAYS, 0, True),
        (Restart.ALWAYS, 1, True),
        (Restart.FAILURE, 0, False),
        (Restart.FAILURE, -9, True),
        (Restart.NEVER, 1, False),
    ],
)
def test_what_is_started_again(restart: Restart, code: int, again: bool) -> None:
    supervisor = running(spec("camera", Stage.CAMERA, restart))
    assert (supervisor.exited("camera", code, 1.0) is not None) is again
    assert supervisor.done is not again


def test_an_ordered_end_asks_one_stage_after_the_other() -> None:
    supervisor = running(*LINE)
    supervisor.stop()
    for name in ("camera", "worker", "broker", "join"):
        assert supervisor.turn(1.0) == [(Do.ASK, name)]
        assert supervisor.turn(1.0) == []
        assert supervisor.exited(name, 0, 1.0) is None
    assert supervisor.done
    assert supervisor.restarts == 0


def test_a_process_that_does_not_end_is_terminated_then_killed_then_given_up() -> None:
    supervisor = running(spec("worker", grace=3.0), spec("join", Stage.JOIN))
    supervisor.stop()
    assert supervisor.turn(0.0) == [(Do.ASK, "worker")]
    assert supervisor.turn(2.9) == []
    assert supervisor.turn(3.0) == [(Do.TERMINATE, "worker")]
    assert supervisor.turn(3.0 + PATIENCE) == [(Do.KILL, "worker")]
    assert supervisor.turn(3.0 + PATIENCE + ABANDON) == [(Do.ASK, "join")]


def test_a_worker_that_dies_while_the_cameras_settle_is_started_again() -> None:
    supervisor = running(*LINE)
    supervisor.stop()
    supervisor.turn(1.0)
    assert supervisor.exited("worker", -9, 1.1) == FIRST_DELAY
    assert supervisor.turn(1.1 + FIRST_DELAY) == [(Do.START, "worker")]


def test_a_process_whose_stage_has_ended_is_not_started_again() -> None:
    supervisor = running(*LINE)
    supervisor.stop([Stage.CAMERA])
    supervisor.turn(1.0)
    supervisor.exited("camera", 1, 1.1)
    assert supervisor.over(Stage.CAMERA)
    assert supervisor.turn(100.0) == []
    assert not supervisor.done


def test_the_second_request_ends_all_at_once() -> None:
    supervisor = running(*LINE)
    supervisor.stop()
    assert supervisor.turn(1.0) == [(Do.ASK, "camera")]
    supervisor.hurry()
    assert sorted(name for what, name in supervisor.turn(1.1) if what is Do.TERMINATE) == sorted(
        spec.name for spec in LINE
    )
    assert {what for what, _ in supervisor.turn(1.1 + PATIENCE)} == {Do.KILL}


def test_a_stage_that_is_held_back_starts_when_it_is_released_and_not_at_all_once_it_is_stopped() -> None:
    supervisor = Supervisor(LINE, held=[Stage.CAMERA])
    assert (Do.START, "camera") not in supervisor.turn(0.0)
    assert not supervisor.over(Stage.CAMERA)
    supervisor.release()
    assert supervisor.turn(1.0) == [(Do.START, "camera")]
    other = Supervisor(LINE, held=[Stage.CAMERA])
    other.turn(0.0)
    other.stop([Stage.CAMERA])
    assert other.turn(1.0) == []
    assert other.over(Stage.CAMERA)


@given(st.lists(st.tuples(st.sampled_from(LINE), st.integers(0, 1), st.floats(0, 20)), max_size=40), st.integers(0, 40))
def test_whatever_dies_when_the_end_comes_in_order(events: list[tuple[Spec, int, float]], stop_at: int) -> None:
    """Deaths in any order: an end always comes, each stage is asked only once all before it are over."""
    supervisor, now, said = running(*LINE), 0.0, []
    for index, (victim, code, passed) in enumerate(events):
        if index == stop_at:
            supervisor.stop()
        now += passed
        said += obey(supervisor, now)
        if supervisor.children[victim.name].state is State.RUNNING:
            supervisor.exited(victim.name, code, now)
    supervisor.stop()
    for _ in range(1000):
        now += 0.5
        said += obey(supervisor, now)
        if supervisor.done:
            break
    assert supervisor.done
    asked = [supervisor.children[name].spec.stage for what, name in said if what is Do.ASK]
    assert [STOP_ORDER.index(stage) for stage in asked] == sorted(STOP_ORDER.index(stage) for stage in asked)
    assert len(asked) == len(set(asked))


def obey(supervisor: Supervisor, now: float) -> list[tuple[Do, str]]:
    """Carry out a turn; only KILL makes a process end here."""
    actions = supervisor.turn(now)
    for what, name in actions:
        if what is Do.START:
            supervisor.started(name, now)
        if what is Do.KILL:
            supervisor.exited(name, -9, now)
    return actions


# --- real processes --------------------------------------------------------------------------------------------------

#: A child that says `up`, ends in order at SIGTERM or CTRL_BREAK, and says `settled`.
ORDERLY = """
import signal, sys, threading
from broker import parent
end = threading.Event()
for name in ("SIGTERM", "SIGBREAK"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), lambda *_: end.set())
parent.watch(end.set)
print("up", file=sys.stderr, flush=True)
while not end.wait(0.05):
    pass
print("settled", file=sys.stderr, flush=True)
"""
#: A child that ignores every polite request.
STUBBORN = """
import signal, sys, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", file=sys.stderr, flush=True)
threading.Event().wait()
"""


class Recorded:
    """A Voice that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.said: list[str] = []

    def line(self, name: str, text: str) -> None:
        self.lines.append((name, text))

    def say(self, text: str, *, level: str = "info") -> None:
        self.said.append(text)


def python(code: str, name: str = "child", stage: Stage = Stage.WORKER, grace: float = 20.0) -> Spec:
    return Spec(name=name, stage=stage, argv=(sys.executable, "-c", code), grace=grace)


def eventually(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)


def test_the_line_ends_in_order_and_says_its_last_words() -> None:
    voice = Recorded()
    fleet = Fleet([python(ORDERLY, "a", Stage.CAMERA), python(ORDERLY, "b", Stage.WORKER)], voice)

    def stop_when_up() -> None:
        if [text for _, text in voice.lines].count("up") == 2 and not fleet.interrupted:
            fleet.interrupt()

    fleet.run(stop_when_up)
    assert [line for line in voice.lines if line[1] == "settled"] == [("a", "settled"), ("b", "settled")]
    assert [fleet.supervisor.children[name].code for name in "ab"] == [0, 0]
    assert fleet.supervisor.restarts == 0


def test_a_killed_process_is_started_again_and_it_is_said() -> None:
    voice = Recorded()
    fleet = Fleet([python(ORDERLY)], voice)
    killed: set[int] = set()

    def kill_once() -> None:
        pids = fleet.pids()
        if not killed and ("child", "up") in voice.lines:
            killed.add(pids["child"])
            psutil.Process(pids["child"]).kill()
        elif voice.lines.count(("child", "up")) == 2 and not fleet.interrupted:
            fleet.interrupt()

    fleet.run(kill_once)
    assert fleet.supervisor.restarts == 1
    assert any("restart 1 in 0.1 s" in text for text in voice.said)


@posix
def test_a_process_that_ignores_every_request_is_killed() -> None:
    voice = Recorded()
    fleet = Fleet([python(STUBBORN, grace=0.1)], voice)
    fleet.run(lambda: fleet.supervisor.stop() if ("child", "up") in voice.lines else None)
    assert fleet.supervisor.children["child"].code == -signal.SIGKILL
    assert any("killed" in text for text in voice.said)


def test_a_command_that_does_not_exist_is_tried_again_and_said() -> None:
    voice = Recorded()
    nobody = Spec(name="nobody", stage=Stage.WORKER, argv=(str(Path("no") / "such" / "program"),))
    fleet = Fleet([nobody], voice)
    fleet.run(lambda: fleet.supervisor.stop() if fleet.supervisor.restarts == 2 else None)
    assert sum("cannot be started" in text for text in voice.said) >= 2


def test_standard_output_goes_to_a_file_where_one_is_named(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys; print('data'); print('log', file=sys.stderr)"
    process = Process((sys.executable, "-c", code), lines.append, output=tmp_path / "out")
    process.start()
    eventually(lambda: process.poll() is not None, "the end of the child")
    process.close()
    assert (tmp_path / "out").read_text().split() == ["data"]
    assert lines == ["log"]


def test_children_are_not_in_the_group_that_gets_ctrl_c() -> None:
    process = Process((sys.executable, "-c", ORDERLY), lambda _: None)
    process.start()
    assert process.pid is not None
    if sys.platform != "win32":
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    process.kill()
    process.close()


def test_a_child_ends_in_order_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves the supervisor no time for anything: the closed pipe alone must end the child."""
    said = tmp_path / "said"
    child = ORDERLY.replace("sys.stderr", f"open({str(said)!r}, 'a')")
    code = (
        "import sys, time\nfrom ops.process import Process\n"
        f"process = Process((sys.executable, '-c', {child!r}), print)\n"
        "process.start()\nprint(process.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        eventually(lambda: said.exists() and "up" in said.read_text(), "the child is up")
        supervisor.kill()
    eventually(lambda: "settled" in said.read_text(), "the child noticed")
    eventually(lambda: not alive(pid), "the child is gone")


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_child_that_cannot_end_in_order_ends_the_hard_way() -> None:
    code = (
        "import threading\nfrom broker import parent\n"
        "parent.watch(lambda: None, grace=0.05)\nprint('up', flush=True)\nthreading.Event().wait()\n"
    )
    environment = {**os.environ, parent.VARIABLE: "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline().strip() == b"up"
        child.stdin.close()
        assert child.wait(timeout=20) == parent.ORPHANED


def test_a_process_without_a_supervisor_watches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(parent.VARIABLE, raising=False)
    assert parent.watch(lambda: None) is None


@pytest.mark.parametrize(
    ("code", "words"), [(1, "exit code 1"), (0xC000013A, "exit code 0xc000013a"), (-64000, "signal 64000")]
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert describe(code) == words
