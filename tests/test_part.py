"""Parts: one frame per camera, closed once, bounded."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.part import ClosedPart, Completeness, MissingCamera, PartFrame, PartGate, Parts
from broker.wire import Key


def key(camera: str, seq: int = 0) -> Key:
    return Key(camera, "0123456789ab", seq)


def frame(camera: str, seq: int = 0, outcome: Completeness = "complete") -> PartFrame:
    return PartFrame(key=key(camera, seq), outcome=outcome, answers={}, required=[])


def opened(parts: Parts, camera: str, *, now: float = 0.0, part: str = "p1", seq: int = 0) -> str:
    return parts.open(now, "top", part, key(camera, seq), ["left", "right"], 5.0)


def test_gate_admits_one_frame_per_camera_and_its_repeats() -> None:
    gate = PartGate()
    assert gate.admit(0.0, "top", "p1", "left", key("left", 0))
    assert gate.admit(1.0, "top", "p1", "left", key("left", 0))
    assert gate.admit(1.0, "top", "p1", "right", key("right", 0))
    assert not gate.admit(2.0, "top", "p1", "left", key("left", 1))
    assert gate.admit(2.0, "bottom", "p1", "left", key("left", 1))
    assert gate.admit(2.0, "top", "p2", "left", key("left", 1))


def test_gate_forgets_the_oldest_part_and_old_names() -> None:
    gate = PartGate(limit=2, forget_after=10.0)
    for part in ("p1", "p2", "p1", "p3"):
        assert gate.admit(0.0, "top", part, "left", key("left"))
    assert len(gate) == 2
    assert not gate.admit(0.0, "top", "p1", "left", key("left", 7))
    assert gate.admit(0.0, "top", "p2", "left", key("left", 7))
    assert not gate.admit(9.9, "top", "p2", "left", key("left", 8))
    assert gate.admit(10.0, "top", "p2", "left", key("left", 8))


def test_part_closes_when_all_cameras_joined() -> None:
    parts = Parts()
    assert opened(parts, "left") == "open"
    assert opened(parts, "right", seq=4) == "open"
    assert parts.add(1.0, "top", "p1", frame("right", 4))
    assert parts.due(1.0) == []
    assert parts.add(1.0, "top", "p1", frame("left"))
    (closed,) = parts.due(1.0)
    assert closed == ClosedPart(
        station="top", part="p1", reason="joined", frames=[frame("right", 4), frame("left")], missing=[]
    )
    assert closed.outcome == "complete"
    assert parts.due(99.0) == []
    assert len(parts) == 0


def test_incomplete_frame_makes_the_part_incomplete() -> None:
    parts = Parts()
    parts.open(0.0, "top", "p1", key("left"), ["left"], 5.0)
    parts.add(0.0, "top", "p1", frame("left", outcome="incomplete"))
    (closed,) = parts.due(0.0)
    assert (closed.reason, closed.outcome) == ("joined", "incomplete")


def test_deadline_names_the_missing_cameras() -> None:
    parts = Parts()
    cameras = ["left", "middle", "right"]
    parts.open(10.0, "top", "p1", key("left"), cameras, 5.0)
    parts.open(14.0, "top", "p1", key("middle"), cameras, 5.0)
    parts.add(14.0, "top", "p1", frame("left"))
    assert parts.next_due() == 15.0
    assert parts.due(14.99) == []
    (closed,) = parts.due(15.0)
    assert (closed.reason, closed.outcome) == ("deadline", "incomplete")
    assert closed.missing == [
        MissingCamera(camera="middle", reason="not_joined"),
        MissingCamera(camera="right", reason="no_frame"),
    ]
    assert not parts.add(15.0, "top", "p1", frame("middle"))
    assert parts.next_due() is None


def test_second_frame_of_a_camera_takes_no_place() -> None:
    parts = Parts()
    assert [opened(parts, "left", seq=seq) for seq in (0, 1, 0)] == ["open", "duplicate", "open"]
    assert not parts.add(0.0, "top", "p1", frame("left", 1))
    assert parts.add(0.0, "top", "p1", frame("left", 0))
    assert not parts.add(0.0, "top", "p1", frame("left", 0))


def test_closed_part_does_not_open_again_until_it_is_forgotten() -> None:
    parts = Parts(forget_after=100.0)
    opened(parts, "left")
    assert len(parts.due(5.0)) == 1
    assert opened(parts, "left", now=6.0) == "open"  # a repeat of what was in it
    assert opened(parts, "left", now=6.0, seq=1) == "duplicate"
    assert [opened(parts, "right", now=6.0, seq=seq) for seq in (3, 4, 3)] == ["late", "duplicate", "late"]
    assert not parts.add(6.0, "top", "p1", frame("right", 3))
    assert len(parts) == 0
    assert opened(parts, "left", now=105.0, seq=9) == "open"
    assert len(parts) == 1


def test_only_so_many_closed_parts_are_remembered() -> None:
    parts = Parts(remembered=1)
    for part in ("p1", "p2"):
        opened(parts, "left", part=part)
    assert len(parts.due(5.0)) == 2
    assert opened(parts, "right", now=6.0, part="p2") == "late"
    assert opened(parts, "right", now=6.0, part="p1") == "open"


def test_surplus_closes_the_oldest_part() -> None:
    parts = Parts(limit=2)
    for part in ("p1", "p2", "p3"):
        opened(parts, "left", part=part)
    assert parts.next_due() == 0.0
    (closed,) = parts.due(0.0)
    assert (closed.part, closed.reason, closed.outcome) == ("p1", "surplus", "incomplete")
    assert len(parts) == 2


def test_camera_that_the_first_frame_did_not_know_joins() -> None:
    parts = Parts()
    parts.open(0.0, "top", "p1", key("left"), ["left"], 5.0)
    parts.open(0.0, "top", "p1", key("new"), ["left", "new"], 5.0)
    parts.add(0.0, "top", "p1", frame("left"))
    assert parts.due(0.0) == []
    parts.add(0.0, "top", "p1", frame("new"))
    assert len(parts.due(0.0)) == 1


STEPS = st.tuples(
    st.sampled_from(["open", "add", "due"]),
    st.sampled_from(["left", "right", "other"]),
    st.sampled_from(["p1", "p2", "p3"]),
    st.integers(0, 2),
    st.floats(0, 3),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine must not fail a test
@given(st.lists(STEPS, max_size=60))
def test_every_part_closes_once_and_no_frame_is_in_two(steps: list[tuple[str, str, str, int, float]]) -> None:
    parts = Parts(limit=2, forget_after=1e9)
    now = 0.0
    named: set[str] = set()
    added: list[tuple[str, Key]] = []
    closed: list[ClosedPart] = []
    for step, camera, part, seq, wait in steps:
        now += wait
        if step == "open":
            opened(parts, camera, now=now, part=part, seq=seq)
            named.add(part)
        elif step == "add":
            if parts.add(now, "top", part, frame(camera, seq)):
                added.append((part, key(camera, seq)))
        else:
            closed += parts.due(now)
        assert len(parts) <= 2
    closed += parts.due(now + 5.0)
    assert sorted(entry.part for entry in closed) == sorted(named)
    assert sorted(added) == sorted((entry.part, one.key) for entry in closed for one in entry.frames)
    for entry in closed:
        cameras = [one.key.camera for one in entry.frames] + [one.camera for one in entry.missing]
        assert len(cameras) == len(set(cameras)) and {"left", "right"} <= set(cameras)
