"""Which predictions answer for which defect, as YOLOv5 does it, with shapes that never change (and so no waiting)."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import torch
from torch import Tensor

from workers.zoo.yolov5 import ANCHORS

#: An anchor answers for a box whose sides are up to so many times its own, or as many times shorter; a decoded box can
#: have up to 4 times its anchor's sides. The closest anchor of all answers in any case.
_RATIO: Final = 4.0
#: A cell, and its neighbours left, above, right and below: those on whose side the centre lies answer, too.
_NEIGHBOURS: Final = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))


class Assigned(NamedTuple):
    """The predictions of one level that answer for a defect, all [n, targets, anchors, 5]: `valid`, the picture's and
    the anchor's numbers, `row` and `column` of the cell; `boxes` [..., 4], centre and sides in pixels; `classes`."""

    valid: Tensor
    picture: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    boxes: Tensor
    classes: Tensor


def assign(truth: Tensor, shapes: list[tuple[int, int]]) -> list[Assigned]:
    """For each level of (rows, columns): `truth` [n, targets, 6] is that of a Batch."""
    centres = (truth[..., 2:4] + truth[..., 4:6]) / 2
    sides = (truth[..., 4:6] - truth[..., 2:4]).clamp(min=1)
    anchors = all_anchors(truth.device)
    ratios = sides[:, :, None, None] / anchors
    worst = torch.maximum(ratios, 1 / ratios).amax(-1)
    closest = worst == worst.flatten(2).amin(-1)[..., None, None]
    fits = ((worst < _RATIO) | closest) & (truth[..., 0, None, None] > 0)
    boxes = torch.cat((centres, sides), -1)
    return [_level(fits[:, :, level], boxes, truth[..., 1], 8 << level, shape) for level, shape in enumerate(shapes)]


@cache
def all_anchors(device: torch.device) -> Tensor:
    """Sides of the anchors, [levels, anchors, 2], kept on the device: bringing them there waits for it."""
    return torch.tensor(ANCHORS, device=device, dtype=torch.float32)


@cache
def _neighbours(device: torch.device) -> Tensor:
    return torch.tensor(_NEIGHBOURS, device=device, dtype=torch.float32)


def _level(fits: Tensor, boxes: Tensor, classes: Tensor, stride: int, shape: tuple[int, int]) -> Assigned:
    count, targets, anchors = fits.shape
    device = fits.device
    place = boxes[..., :2] / stride
    cell = place.floor()
    part = place - cell
    left, above = part[..., 0] < 0.5, part[..., 1] < 0.5
    near = torch.stack((torch.ones_like(left), left, above, ~left, ~above), -1)
    cells = cell[:, :, None] + _neighbours(device)
    rows, columns = shape
    inside = (cells >= 0).all(-1) & (cells[..., 0] < columns) & (cells[..., 1] < rows)
    valid = fits[..., None] & (near & inside)[:, :, None]
    size = (count, targets, anchors, len(_NEIGHBOURS))
    cells = cells.long()[:, :, None].expand(*size, 2)
    return Assigned(
        valid=valid,
        picture=torch.arange(count, device=device)[:, None, None, None].expand(size),
        anchor=torch.arange(anchors, device=device)[None, None, :, None].expand(size),
        row=cells[..., 1].clamp(0, rows - 1),
        column=cells[..., 0].clamp(0, columns - 1),
        boxes=boxes[:, :, None, None].expand(*size, 4),
        classes=classes.long()[:, :, None, None].expand(size),
    )
