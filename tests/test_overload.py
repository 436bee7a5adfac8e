"""Cameras at three times what the workers can do: deadlines kept, pictures fresh, nobody starved, memory bounded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.backlog import Backlog
from broker.line import CameraEntry
from broker.publisher import Publisher
from broker.task import LEASED, OpenFrame, Task
from ops.bench.overload import fairness
from tests.crowd import WINDOW, Crowd
from tests.peers import frame

#: Times of what the workers can do that the cameras offer together.
OVERLOAD = 3.0


def rates(cameras: int, service: float, greedy: bool = False) -> list[float]:
    """Frames/s of each camera; a greedy first one offers ten times its share."""
    share = OVERLOAD / service / cameras
    return [share * (10 if greedy else 1), *[share] * (cameras - 1)]


# --- who is next -----------------------------------------------------------------------------------------------------


def task(camera: str, policy: Any = "inspect") -> Task:
    publisher = Publisher(camera, CameraEntry(station="station", policy=policy), b"", "b", 0.0)
    return Task(OpenFrame(publisher, frame(camera=camera, policy=policy), b"", 4, 5.0), "det", 0.0)


@given(
    arrivals=st.lists(st.one_of(st.sampled_from(["a", "b", "c", "d"]), st.none()), max_size=120),
    policy=st.sampled_from(["inspect", "monitor"]),
)
def test_no_camera_is_served_twice_while_another_waits(arrivals: Sequence[str | None], policy: str) -> None:
    """Whatever the order of arrivals (None: a session takes the next frame)."""
    backlog, clock = Backlog("det"), count(1)
    waiting: dict[str, int] = {}  # how many frames of a camera wait
    since: dict[str, int] = {}  # since when it has been waiting
    served: dict[str, int] = {}
    for camera in [*arrivals, *[None] * len(arrivals)]:
        if camera is not None:
            if not waiting.get(camera):
                since[camera] = next(clock)
            waiting[camera] = waiting.get(camera, 0) + 1 if policy == "inspect" else 1
            (backlog.push if policy == "inspect" else backlog.replace)(task(camera, policy))
            continue
        popped = backlog.pop()
        assert (popped is None) == (not any(waiting.values()))
        if popped is None:
            continue
        popped.state = LEASED
        name = popped.frame.key.camera
        before = served.get(name, 0)
        for other in [one for one, frames in waiting.items() if frames and one != name]:
            assert not (since[other] < before and served.get(other, 0) < before), f"{name} twice, {other} waits"
        served[name] = next(clock)
        waiting[name] -= 1


# --- inspect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cameras", [1, 4, 16])
@pytest.mark.parametrize("kind", ["file", "paced", "live", "greedy"])
@pytest.mark.parametrize(("service", "deadline"), [(0.1, 5.0), (0.01, 0.5)])
def test_inspect_frames_that_were_accepted_keep_their_deadline(
    cameras: int, kind: str, service: float, deadline: float
) -> None:
    wanted = [0.0] * cameras if kind == "file" else rates(cameras, service, kind == "greedy")
    crowd = Crowd(wanted, service=service, deadline=deadline, live=kind in ("live", "greedy"), step=service / 10)
    crowd.run(300 * service)
    complete = [seconds for camera in crowd.cameras.values() for seconds in camera.complete.values()]
    incomplete = sum(len(camera.incomplete) for camera in crowd.cameras.values())
    assert len(complete) >= 0.97 * 300, "workers were idle"
    assert incomplete <= 0.01 * len(complete)
    assert sorted(complete)[int(0.99 * len(complete))] < deadline
    assert fairness(crowd.shares()) >= 0.95
    assert crowd.most_open <= deadline / service, "more was taken in than can be done in time"
    if kind in ("live", "greedy"):
        offered = sum(camera.next_seq for camera in crowd.cameras.values())
        assert offered == pytest.approx(300 * service * sum(wanted), rel=0.02), "a trigger is neither sent nor counted"


@pytest.mark.parametrize("cameras", [4, 16])
@pytest.mark.parametrize("rate", [50.0, 400.0, 2000.0])
def test_cameras_whose_triggers_come_quicker_than_the_brokers_word_are_served(cameras: int, rate: float) -> None:
    """Each skip uses up a seq; the credit must not be used up with it."""
    crowd = Crowd([rate] * cameras, service=0.1, deadline=5.0, live=True, delay=0.03)
    crowd.run(30.0)
    assert sum(crowd.shares()) >= 0.97 * 300
    assert fairness(crowd.shares()) >= 0.95
    assert sum(len(camera.incomplete) for camera in crowd.cameras.values()) <= 3
    assert not crowd.router.counts["rejected_total", "over_credit"]


def test_a_camera_of_slow_models_does_not_begin_with_more_than_can_be_done() -> None:
    crowd = Crowd([0.0], service=1.0, deadline=5.0, step=0.02)
    crowd.run(60.0)
    (camera,) = crowd.cameras.values()
    assert not camera.incomplete
    assert len(camera.complete) >= 57


def test_cameras_that_greet_before_any_worker_does_begin_with_little() -> None:
    crowd = Crowd([0.0] * 16, service=0.1, deadline=5.0, early=True)
    crowd.run(30.0)
    assert sum(len(camera.incomplete) for camera in crowd.cameras.values()) == 0
    assert sum(crowd.shares()) >= 290


def test_with_time_to_spare_the_window_opens_wide() -> None:
    """One camera, quick workers: what it may have unsettled is soon bounded by the line file alone."""
    crowd = Crowd([0.0], service=0.002, deadline=5.0, workers=4, step=0.001)
    crowd.run(1.0)
    assert crowd.most_open == crowd.line.limits.window
    (camera,) = crowd.cameras.values()
    assert len(camera.complete) >= 0.9 * 4 / 0.002


# --- monitor ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cameras", [4, 16])
@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("service", [0.1, 0.01])
def test_monitor_frames_that_are_joined_are_fresh_and_everybodys(cameras: int, greedy: bool, service: float) -> None:
    wanted = rates(cameras, service, greedy)
    crowd = Crowd(wanted, policy="monitor", service=service, step=service / 10)
    crowd.run(300 * service)
    # In the slot a picture is replaced by the next one; then one job is before it, and its own.
    oldest = WINDOW * service + 1 / min(wanted) + 2 * crowd.step
    assert max(age for camera in crowd.cameras.values() for age in camera.joined) <= oldest
    assert sum(crowd.shares()) >= 0.97 * 300, "workers were idle"
    assert fairness(crowd.shares()) >= 0.95
    assert crowd.most_open <= cameras + WINDOW + 1


def test_slow_and_quick_cameras_share_what_is_left() -> None:
    """Two cameras that ask for less than their share get all of it; the others share the rest evenly."""
    crowd = Crowd([1.0, 1.0, 20.0, 20.0, 20.0], policy="monitor", service=0.1)
    crowd.run(60.0)
    shares = crowd.shares()
    assert min(shares[:2]) >= 57
    assert fairness(shares[2:]) >= 0.99
