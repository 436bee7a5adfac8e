"""Results drawn on a copy of their picture: masks, boxes, labels with scores, and the verdict above it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from clients import lettering
from clients.banner import banner, results
from clients.lettering import Colour, Image

#: Colours of the classes, BGR: the palette of Okabe and Ito, which colour-blind people can tell apart.
PALETTE: Final[tuple[Colour, ...]] = (
    (0, 159, 230),  # orange
    (233, 180, 86),  # sky blue
    (115, 158, 0),  # bluish green
    (66, 228, 240),  # yellow
    (178, 114, 0),  # blue
    (0, 94, 213),  # vermilion
    (167, 121, 204),  # reddish purple
)
#: Narrower pictures are enlarged (in whole steps) until text on them can be read, in pixels.
LEAST_WIDTH: Final = 480
_MASK_SHARE: Final = 0.4
_BLACK: Final[Colour] = (0, 0, 0)
_SHIFT: Final = 4


#: Pixels between a box and its label: the rim of the box, which is dark.
RIM: Final = 2
#: x1, y1, x2, y2; the edges belong to it.
Box: TypeAlias = tuple[int, int, int, int]


class _Found(NamedTuple):
    """One detection, in pixels of the drawn picture."""

    name: str
    score: float
    colour: Colour
    box: Box
    polygons: list[NDArray[np.float64]]


def class_colour(number: int) -> Colour:
    """The colour of a class, by its number: the same in every picture."""
    return PALETTE[number % len(PALETTE)]


def annotate(image: NDArray[Any], body: Mapping[str, Any]) -> Image:
    """Draw a published frame on a copy of its picture.

    `image`: uint8, height x width x 3 (BGR) or height x width. `body`: the published frame body (`results`, `verdict`,
    `missing`, ...); what it lacks is not drawn. The answer is BGR: the picture, enlarged if it is small, under a banner
    with the verdict, the models that are missing and the classes of classifiers.
    """
    grey = image.ndim == 2 or image.shape[2] == 1
    picture = np.array(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if grey else image, np.uint8)
    factor = max(1, math.ceil(LEAST_WIDTH / picture.shape[1]))
    if factor > 1:
        picture = np.repeat(np.repeat(picture, factor, 0), factor, 1)
    found = sorted(_detections(body, factor, picture.shape), key=lambda one: one.score)
    size = _font_size(picture.shape)
    for one in found:
        _draw_mask(picture, one)
    for one in found:
        _draw_box(picture, one, _line_width(picture.shape))
    _draw_labels(picture, found[::-1], size)
    return np.concatenate([banner(picture.shape[1], size, body), picture])


def _detections(body: Mapping[str, Any], factor: int, shape: Sequence[int]) -> Iterator[_Found]:
    for _, result in results(body):
        for one in result.get("detections") or ():
            box = np.asarray(one.get("box") or (), np.float64) * factor
            if box.shape != (4,) or not np.isfinite(box).all():
                continue
            limits = np.array([shape[1], shape[0], shape[1], shape[0]]) - 1
            x1, y1, x2, y2 = (int(edge) for edge in np.clip(np.round(box), 0, limits))
            score = float(one.get("score", 0.0))
            name = str(one.get("name", one.get("class", "?")))
            polygons = [_points(polygon, factor) for polygon in one.get("polygons") or ()]
            yield _Found(name, score, class_colour(int(one.get("class", 0))), (x1, y1, x2, y2), polygons)


def _points(polygon: Sequence[float], factor: int) -> NDArray[np.float64]:
    """[x, y, x, y, ...] as points; none of it if it is no polygon."""
    flat = np.asarray(polygon, np.float64) * factor
    usable = flat.size >= 6 and flat.size % 2 == 0 and bool(np.isfinite(flat).all())
    return np.clip(flat.reshape(-1, 2), -1e4, 1e5) if usable else np.empty((0, 2))


# --- shapes ----------------------------------------------------------------------------------------------------------


def _draw_mask(picture: Image, one: _Found) -> None:
    """A translucent mask with its contour; a contour inside another is a hole (even-odd)."""
    polygons = [np.round(points * (1 << _SHIFT)).astype(np.int32) for points in one.polygons if len(points)]
    if not polygons:
        return
    inside = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(inside, polygons, 255, cv2.LINE_8, _SHIFT)
    x, y, width, height = cv2.boundingRect(inside)
    area = np.s_[y : y + height, x : x + width]
    tinted = cv2.addWeighted(picture[area], 1 - _MASK_SHARE, np.full_like(picture[area], one.colour), _MASK_SHARE, 0)
    cv2.copyTo(tinted, inside[area], picture[area])
    cv2.polylines(picture, polygons, True, one.colour, 1, cv2.LINE_AA, _SHIFT)


def _draw_box(picture: Image, one: _Found, thickness: int) -> None:
    """A box in its class's colour on a dark rim, so that it shows on any ground."""
    x1, y1, x2, y2 = one.box
    cv2.rectangle(picture, (x1, y1), (x2, y2), _BLACK, thickness + 2)
    cv2.rectangle(picture, (x1, y1), (x2, y2), one.colour, thickness)


# --- labels ----------------------------------------------------------------------------------------------------------


def _draw_labels(picture: Image, found: Sequence[_Found], size: int) -> None:
    """Labels, the best scores first: each where it covers no earlier one and no box, if there is such a place.

    What several models found at one place has one label, that of the highest score.
    """
    taken: list[Box] = []
    labelled: list[_Found] = []
    boxes = [one.box for one in found]
    height = lettering.line_height(size)
    pad = max(2, size // 5)
    for one in found:
        text = lettering.fit(f"{one.name} {one.score:.2f}", size, picture.shape[1] - 2 * pad)
        if not text or height > picture.shape[0] or any(_same(one, other) for other in labelled):
            continue
        labelled.append(one)
        width = lettering.width(text, size) + 2 * pad
        places = list(_places(one.box, width, height, picture.shape))
        x, y = min(
            places,
            key=lambda place: (_overlaps(place, width, height, taken), _overlaps(place, width, height, boxes)),
        )
        taken.append((x, y, x + width, y + height))
        picture[y : y + height, x : x + width] = one.colour
        lettering.write(picture, text, x + pad, y, size, lettering.ink(one.colour))


def _places(box: Box, width: int, height: int, shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Upper left corners for a label, best first: above the box, below it, beside it, inside it; never outside of the
    picture."""
    x1, y1, x2, y2 = box
    corners = [(x, y) for y in (y1 - height - RIM, y2 + RIM + 1) for x in (x1, x2 - width)]
    corners += [(x, y) for x in (x2 + RIM + 1, x1 - width - RIM) for y in (y1, y2 - height)]
    corners += [(x, y) for y in (y1, y2 - height) for x in (x1, x2 - width)]
    for x, y in corners:
        yield min(max(x, 0), shape[1] - width), min(max(y, 0), shape[0] - height)


def _overlaps(place: tuple[int, int], width: int, height: int, taken: Sequence[Box]) -> bool:
    x, y = place
    return any(x <= right and left < x + width and y <= low and top < y + height for left, top, right, low in taken)


def _same(one: _Found, other: _Found) -> bool:
    """Whether both are of one class and share more than half of what they cover together."""
    if (one.name, one.colour) != (other.name, other.colour):
        return False
    (left, top, right, low), (x1, y1, x2, y2) = one.box, other.box
    shared = max(0, min(right, x2) - max(left, x1) + 1) * max(0, min(low, y2) - max(top, y1) + 1)
    both = (right - left + 1) * (low - top + 1) + (x2 - x1 + 1) * (y2 - y1 + 1)
    return shared > (both - shared) / 2


def _font_size(shape: Sequence[int]) -> int:
    return round(min(max(min(shape[0] * 4 / 3, shape[1]) / 34, 14), 64))


def _line_width(shape: Sequence[int]) -> int:
    return max(1, round(min(shape[:2]) / 320))
