"""The classes of a line's rules, against those of its models."""

from __future__ import annotations

import pytest

from broker import classes
from broker.line import CameraEntry, Line, Model, Route, Rules, Station


def line(rules: Rules, **routes: list[str]) -> Line:
    models = dict.fromkeys(model for seeing in routes.values() for model in seeing)
    return Line(
        stations={"press": Station(rules=rules), "belt": Station()},
        cameras={name: CameraEntry(station="belt" if name == "far" else "press") for name in routes},
        models={name: Model(file=f"{name}.onnx") for name in models},
        routes={name: Route(models=seeing) for name, seeing in routes.items()},
    )


def found(described: Line, **names: list[str]) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(one.key, one.name, one.closest, one.doubtful) for one in classes.unknown(described, names)]


def test_a_slip_is_found_in_either_rule_and_the_closest_name_is_told() -> None:
    described = line(Rules(ng=["scrtch", "dent"], required={"Screw": 4, "label": 1}), top=["surface"])
    assert found(described, surface=["scratch", "dent", "screw", "label"]) == [
        ("ng", "scrtch", "scratch", ()),
        ("required", "Screw", "screw", ()),
    ]


def test_a_class_of_any_camera_of_the_station_is_known_and_of_another_station_is_not() -> None:
    described = line(Rules(ng=["scratch", "bolt", "person"]), top=["surface"], side=["parts"], far=["people"])
    assert found(described, surface=["scratch"], parts=["bolt"], people=["person"]) == [("ng", "person", "", ())]


def test_a_model_whose_classes_are_not_known_may_know_it() -> None:
    described = line(Rules(ng=["scrtch"]), top=["surface", "elsewhere"])
    assert found(described, surface=["scratch"]) == [("ng", "scrtch", "scratch", ("elsewhere",))]


def test_nothing_is_said_where_no_model_tells_its_classes() -> None:
    assert found(line(Rules(ng=["scratch"]), top=["surface"])) == []


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("PERSON", ["person"], "did you mean person?"),
        ("person", ["PERSON"], "did you mean PERSON?"),
        ("xyz", ["person", "car"], "known are person, car"),
        ("xyz", [f"{n}" for n in range(12)], "known are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."),
    ],
)
def test_the_hint(name: str, known: list[str], hint: str) -> None:
    (one,) = classes.unknown(line(Rules(ng=[name]), top=["m"]), {"m": known})
    assert one.hint == hint


def test_the_text_names_station_rule_and_class() -> None:
    (one,) = classes.unknown(line(Rules(ng=["scrtch"]), top=["m"]), {"m": ["scratch"]})
    assert one.text == (
        'stations.press.rules.ng: no model of its cameras knows the class "scrtch"; did you mean scratch?'
    )
