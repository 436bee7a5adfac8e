from __future__ import annotations

from broker.line import Rules, Station, from_flags
from broker.troubles import AFTER, EVERY, LATELY, Trouble, Troubles, idle_rules, present
from broker.wire import PROTOCOL, Hello
from tests.world import World

GONE = Trouble("gone")


def test_a_trouble_is_told_when_it_lasts_and_then_now_and_then() -> None:
    troubles = Troubles()
    told = [now for now in range(100) if troubles.due(float(now), [GONE])]
    assert told == [AFTER, AFTER + EVERY, AFTER + 2 * EVERY, AFTER + 3 * EVERY]


def test_a_trouble_that_passes_is_not_told_and_begins_anew() -> None:
    troubles = Troubles()
    assert not troubles.due(0.0, [GONE])
    assert not troubles.due(AFTER - 0.1, [])
    assert not troubles.due(AFTER + 0.1, [GONE])
    assert troubles.due(2 * AFTER + 0.2, [GONE]) == [GONE]


def test_a_line_that_runs_has_no_trouble() -> None:
    world = World()
    world.calm(0.3)
    assert list(present(world.router, world.now)) == []


def test_a_camera_that_greets_on_two_connections_is_a_trouble_while_it_does() -> None:
    world = World()
    world.calm(0.3)
    greeting = Hello(camera="cam0", boot=world.cameras["cam0"].boot, protocol=PROTOCOL)
    for identity in (b"\0\0\0\0\2", b"\0\0\0\0\1"):
        world.router.from_camera(world.now, identity, greeting)
    (trouble,) = present(world.router, world.now)
    assert trouble.about == (("camera", "cam0"),) and "two connections" in trouble.what
    assert list(present(world.router, world.now + LATELY)) == []


def test_models_without_workers_and_a_join_that_is_gone_are_troubles() -> None:
    world = World()
    world.calm(0.3)
    world.kill_worker("w2")
    world.calm(1.0)
    world.router.join_unreachable()
    found = list(present(world.router, world.now))
    assert [trouble.about for trouble in found] == [(), (("model", "seg"),)]
    assert "no join" in found[0].what and "no worker" in found[1].what


def test_without_cameras_nobody_suffers() -> None:
    world = World(cameras=0)
    world.calm(0.3)
    world.kill_worker("w1")
    world.calm(1.0)
    world.router.join_unreachable()
    assert list(present(world.router, world.now)) == []


def test_a_rule_about_a_class_that_no_model_knows_is_a_trouble() -> None:
    line = from_flags(cameras=["cam1"], models=["det", "seg"], deadline=1.0)
    line.stations["station"] = Station(rules=Rules(ng=["scratch", "dnet"], required={"bolt": 4}))
    classes = {"det": frozenset(["scratch", "dent"]), "seg": frozenset(["bolt"])}
    (trouble,) = idle_rules(line, classes)
    assert trouble.about == (("station", "station"), ("rule", "ng"), ("class", "dnet"), ("models", "det seg"))
    assert trouble.what.endswith("it can never fire")
    (other,) = idle_rules(line, {"det": frozenset(["dnet", "scratch"]), "seg": frozenset(["x"])})
    assert other.about[1:3] == (("rule", "required"), ("class", "bolt")) and other.what.endswith("no frame is ever ok")
    assert list(idle_rules(line, {"det": classes["det"]})) == [], "what seg knows is not known"
    assert list(idle_rules(line, {"det": frozenset(["dnet", "bolt", "scratch"]), "seg": frozenset(["x"])})) == []
