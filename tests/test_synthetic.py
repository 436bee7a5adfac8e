"""The synthetic camera: repeatable pictures, and a truth that lies where the defect is seen."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from clients.synthetic import SyntheticCamera
from clients.workpiece import CLASSES, Defect, Field


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


@pytest.mark.parametrize("name", CLASSES)
def test_a_defect_changes_the_picture_where_its_truth_says(name: str) -> None:
    """The same part drawn with and without its defect differs inside the outline more than elsewhere."""
    sound, damaged = SyntheticCamera(4, defect_rate=0.0), SyntheticCamera(4, defect_rate=1.0)
    only = (number for number in itertools.count() if [d.name for d in damaged.part(number).truth] == [name])
    for number in itertools.islice(only, 3):
        part = damaged.part(number)
        inside = np.zeros(part.image.shape[:2], np.uint8)
        cv2.fillPoly(inside, [part.truth[0].polygon.astype(np.int32)], 255)
        wide, narrow = (cv2.dilate(inside, np.ones((size, size), np.uint8)) > 0 for size in (41, 21))
        beside = wide & ~narrow
        grey = cv2.cvtColor(part.image, cv2.COLOR_BGR2GRAY).astype(np.float32)
        assert grey[inside > 0].std() > 4, "a defect that nobody can see is no truth"
        assert beside.any()
        # the random draws after the defect differ, so the whole exposure does: compare structure, not brightness
        other = cv2.cvtColor(sound.part(number).image, cv2.COLOR_BGR2GRAY).astype(np.float32)
        change = np.abs(_relief(grey) - _relief(other))
        assert change[inside > 0].mean() > 1.2 * change[beside].mean()


def _relief(grey: Field) -> Field:
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.5)
    slopes = (cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return np.asarray(np.abs(slopes[0]) + np.abs(slopes[1]), np.float32)


def test_settings_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 64 pixels"):
        SyntheticCamera(size=(10, 640))
    with pytest.raises(ValueError, match="between 0 and 1"):
        SyntheticCamera(defect_rate=2)
