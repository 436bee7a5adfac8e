"""The synthetic camera: repeatable pictures, and a truth that lies where the defect is seen."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from clients.lamp import light
from clients.shapes import FASTENERS, SHAPES, World
from clients.synthetic import LEAST_CONTRAST, SyntheticCamera
from clients.texture import BELTS, FINISHES
from clients.workpiece import CLASSES, Defect

WORLDS: tuple[World, ...] = ("train", "held-out")


def test_a_seed_draws_the_same_parts_in_any_order() -> None:
    first, second = SyntheticCamera(5, defect_rate=0.5), SyntheticCamera(5, defect_rate=0.5)
    forward = list(itertools.islice(first, 6))
    for number in (4, 0, 5):
        again = second.part(number)
        assert again.part_id == forward[number].part_id
        assert np.array_equal(again.image, forward[number].image)
        assert [defect.name for defect in again.truth] == [defect.name for defect in forward[number].truth]


def test_another_seed_draws_other_parts() -> None:
    assert not np.array_equal(SyntheticCamera(1).part(0).image, SyntheticCamera(2).part(0).image)
    assert SyntheticCamera(1).part(0).part_id != SyntheticCamera(2).part(0).part_id


@pytest.mark.parametrize("size", [(64, 64), (97, 301), (480, 640), (768, 512)])
def test_pictures_have_the_size_asked_for(size: tuple[int, int]) -> None:
    part = SyntheticCamera(3, size=size, defect_rate=1.0).part(1)
    assert part.image.shape == (*size, 3)
    assert part.image.dtype == np.uint8
    assert part.image.flags.c_contiguous


def test_the_defect_rate_is_a_share_of_the_parts() -> None:
    parts = list(itertools.islice(SyntheticCamera(11, size=(96, 96), defect_rate=0.3), 200))
    assert 35 <= sum(bool(part.truth) for part in parts) <= 85
    assert all(part.truth for part in itertools.islice(SyntheticCamera(11, size=(96, 96), defect_rate=1.0), 30))
    assert not any(part.truth for part in itertools.islice(SyntheticCamera(11, size=(96, 96), defect_rate=0.0), 30))


def test_every_class_is_drawn_and_lies_inside_the_picture() -> None:
    seen: list[Defect] = []
    for part in itertools.islice(SyntheticCamera(2, size=(240, 320), defect_rate=1.0), 60):
        for defect in part.truth:
            x1, y1, x2, y2 = defect.box
            assert 0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 240
            assert defect.polygon.shape[1] == 2
            assert (defect.polygon >= [x1, y1]).all() and (defect.polygon <= [x2, y2]).all()
            seen.append(defect)
    assert {defect.name for defect in seen} == set(CLASSES)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_defect_changes_the_picture_where_its_truth_says(name: str, world: World) -> None:
    """The same part drawn with and without its defect differs inside the outline by its contrast, and not elsewhere."""
    sound = SyntheticCamera(4, defect_rate=0.0, world=world)
    damaged = SyntheticCamera(4, defect_rate=1.0, world=world)
    only = (number for number in itertools.count() if [d.name for d in damaged.part(number).truth] == [name])
    for number in itertools.islice(only, 3):
        part = damaged.part(number)
        inside = np.zeros(part.image.shape[:2], np.uint8)
        cv2.fillPoly(inside, [part.truth[0].polygon.astype(np.int32)], 255)
        far = cv2.dilate(inside, np.ones((61, 61), np.uint8)) == 0
        change = part.image.astype(np.float32) - sound.part(number).image.astype(np.float32)
        contrast = float(np.sqrt(np.square(change[inside > 0]).mean()))
        assert contrast == pytest.approx(part.truth[0].contrast, rel=0.25)
        assert contrast > 0.75 * LEAST_CONTRAST, "a defect that nobody can see is no truth"
        assert np.abs(change[far]).max() <= 8  # what the shadow of a piece broken out was


def test_the_worlds_share_no_shape_texture_or_lamp() -> None:
    for kinds in (SHAPES, FASTENERS, FINISHES, BELTS):
        assert not set(kinds["train"]) & set(kinds["held-out"])
    lamps = {world: [light(np.random.default_rng(n), (64, 64), world).heading for n in range(99)] for world in WORLDS}
    # The angle to the nearest side of the picture is what mirroring and quarter turns leave as it is.
    aside = {
        world: [abs((heading + np.pi / 4) % (np.pi / 2) - np.pi / 4) for heading in lamps[world]] for world in WORLDS
    }
    assert max(aside["held-out"]) < min(aside["train"])


def test_whether_a_part_has_a_defect_is_known_without_drawing_it() -> None:
    camera = SyntheticCamera(8, size=(96, 96), defect_rate=0.5)
    assert all(bool(camera.part(number).truth) == camera.has_defect(number) for number in range(60))


def test_truth_has_sizes_and_contrasts_for_a_table() -> None:
    camera = SyntheticCamera(6, defect_rate=1.0)
    truth = [defect for number in range(20) for defect in camera.part(number).truth]
    for defect in truth:
        x1, y1, x2, y2 = defect.box
        assert 0 < defect.area <= (x2 - x1) * (y2 - y1)
    assert min(defect.contrast for defect in truth) >= LEAST_CONTRAST


def test_settings_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 64 pixels"):
        SyntheticCamera(size=(10, 640))
    with pytest.raises(ValueError, match="between 0 and 1"):
        SyntheticCamera(defect_rate=2)
    with pytest.raises(ValueError, match="train, held-out"):
        SyntheticCamera(world="moon")  # type: ignore[arg-type]
