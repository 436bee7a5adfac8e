"""What the networks are trained to make small."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from ops.training.assign import Assigned, all_anchors, assign
from ops.training.stock import Batch
from workers.zoo.blocks import PROTOTYPES
from workers.zoo.yolov5 import ANCHORS

#: Weights of the parts of the loss, and of objectness by level: fine, middle, coarse.
_BOX, _OBJECT, _CLASS, _MASK = 0.1, 4.0, 0.15, 0.4
_BALANCE: Final = (4.0, 1.0, 0.4)
#: Predictions of a defect whose masks are looked at.
_MASKS: Final = 3
#: Weight of each of the auxiliary maps of the classifier.
_AUXILIARY: Final = 0.5


def detection(heads: list[Tensor], batch: Batch, side: tuple[int, int], prototypes: Tensor | None = None) -> Tensor:
    """The loss of a detector's raw heads, or with `prototypes` of a segmenter's; `side`: its input's height, width."""
    batch = _scaled(batch, side)
    classes = heads[0].shape[1] // len(ANCHORS[0]) - 5 - (0 if prototypes is None else PROTOTYPES)
    tables = [_table(head) for head in heads]
    found = assign(batch.truth, [(table.shape[2], table.shape[3]) for table in tables])
    total = tables[0].new_zeros(())
    overlaps, rows = [], []
    for level, (table, one) in enumerate(zip(tables, found, strict=True)):
        picked = table[one.picture, one.anchor, one.row, one.column]
        overlap = ciou(_boxes(picked, one, level), one.boxes)
        score = functional.binary_cross_entropy_with_logits(
            picked[..., 5 : 5 + classes], _one_hot(one.classes, classes), reduction="none"
        ).mean(-1)
        matched = one.valid.float()
        count = matched.sum().clamp(min=1)
        total = total + (matched * (_BOX * (1 - overlap) + _CLASS * score)).sum() / count
        total = total + _OBJECT * _BALANCE[level] * _objectness(table[..., 4], one, overlap)
        overlaps.append(torch.where(one.valid, overlap.detach(), -1.0).flatten(2))
        rows.append(picked[..., 5 + classes :].flatten(2, 3))
    if prototypes is None:
        return total
    return total + _MASK * _masks(torch.cat(rows, 2), torch.cat(overlaps, 2), prototypes.float(), batch)


def classification(logits: Tensor, maps: list[Tensor], batch: Batch) -> Tensor:
    """The loss of a classifier: ok or bad, and on its way the maps [n, 1, rows, columns] that say where the defect is,
    since one word for a whole picture teaches little about a scratch of a few pixels."""
    bad = batch.truth[..., 0].amax(1).long()
    total = functional.cross_entropy(logits.float(), bad, label_smoothing=0.01)
    marked = (batch.index > 0)[:, None].float()
    for one in maps:
        stride = marked.shape[-1] // one.shape[-1]
        there = functional.max_pool2d(marked, stride)
        total = total + _AUXILIARY * _focal(one.float(), there)
    return total


def ciou(boxes: Tensor, others: Tensor) -> Tensor:
    """Complete intersection over union of boxes [..., 4], centre x, centre y, width, height."""
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    other_low, other_high = others[..., :2] - others[..., 2:] / 2, others[..., :2] + others[..., 2:] / 2
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0)
    shared = _area(shared)
    union = _area(boxes[..., 2:]) + _area(others[..., 2:]) - shared + 1e-7
    overlap = shared / union
    hull = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).square().sum(-1) + 1e-7
    apart = (boxes[..., :2] - others[..., :2]).square().sum(-1) / hull
    lean = torch.atan(boxes[..., 2] / (boxes[..., 3] + 1e-7)) - torch.atan(others[..., 2] / (others[..., 3] + 1e-7))
    shape = 4 / math.pi**2 * lean.square()
    with torch.no_grad():
        weight = shape / (shape - overlap + 1 + 1e-7)
    return overlap - apart - weight * shape


def _area(sides: Tensor) -> Tensor:
    """`prod` would wait for the device on its way back, to look for zeros."""
    return sides[..., 0] * sides[..., 1]


def _scaled(batch: Batch, side: tuple[int, int]) -> Batch:
    """Truth and index in pixels of an input that is smaller than the picture."""
    truth = batch.truth.clone()
    truth[..., 2:] *= side[1] / batch.index.shape[2]
    return batch._replace(truth=truth)


def _table(head: Tensor) -> Tensor:
    """[n, anchors, rows, columns, values] in float32."""
    count, channels, rows, columns = head.shape
    anchors = len(ANCHORS[0])
    return head.reshape(count, anchors, channels // anchors, rows, columns).permute(0, 1, 3, 4, 2).float()


def _boxes(picked: Tensor, one: Assigned, level: int) -> Tensor:
    """Decoded as the graph decodes them: centre and sides in pixels of the input."""
    stride = 8 << level
    sides = all_anchors(picked.device)[level][one.anchor]
    corner = torch.stack((one.column, one.row), -1).float() - 0.5
    centres = (picked[..., :2].sigmoid() * 2 + corner) * stride
    return torch.cat((centres, (picked[..., 2:4].sigmoid() * 2).square() * sides), -1)


def _one_hot(classes: Tensor, count: int) -> Tensor:
    """PyTorch's own waits for the device to check its input."""
    return (classes[..., None] == torch.arange(count, device=classes.device)).float()


def _objectness(logits: Tensor, one: Assigned, overlap: Tensor) -> Tensor:
    """A prediction that answers for a defect should say how well its box fits, all others 0."""
    target = torch.zeros_like(logits).flatten()
    rows, columns = logits.shape[2:]
    place = ((one.picture * logits.shape[1] + one.anchor) * rows + one.row) * columns + one.column
    wanted = torch.where(one.valid, overlap.detach().clamp(0, 1), 0.0)
    target.scatter_reduce_(0, place.flatten(), wanted.flatten(), "amax")
    return functional.binary_cross_entropy_with_logits(logits, target.view_as(logits))


def _masks(rows: Tensor, overlaps: Tensor, prototypes: Tensor, batch: Batch) -> Tensor:
    """Of each defect the masks of the predictions that fit best: cross entropy inside its box, and overlap (dice).

    `rows` [n, targets, predictions, coefficients], `overlaps` [n, targets, predictions], -1 for those that do not
    answer. Compared at half of the input's size, as fine as thin scratches need it.
    """
    best = overlaps.topk(_MASKS, 2)
    chosen = rows.gather(2, best.indices[..., None].expand(*best.indices.shape, rows.shape[-1]))
    logits = torch.einsum("ntkc,nchw->ntkhw", chosen, prototypes)
    logits = functional.interpolate(logits.flatten(1, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    logits = logits.view(*chosen.shape[:3], *logits.shape[-2:])
    target, inside = _targets(batch, logits.shape[-2:])
    error = functional.binary_cross_entropy_with_logits(logits, target[:, :, None].expand_as(logits), reduction="none")
    area = inside.sum((-2, -1)).clamp(min=1)[:, :, None]
    entropy = (error * inside[:, :, None]).sum((-2, -1)) / area
    shown = logits.sigmoid() * inside[:, :, None]
    both = (shown * target[:, :, None]).sum((-2, -1))
    dice = 1 - (2 * both + 1) / (shown.sum((-2, -1)) + target.sum((-2, -1))[:, :, None] + 1)
    valid = (best.values > -1).float()
    return (valid * (entropy + dice)).sum() / valid.sum().clamp(min=1)


def _targets(batch: Batch, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Each defect's share of every pixel of a mask, and which pixels lie in its box: [n, targets, height, width]."""
    numbers = torch.arange(1, batch.truth.shape[1] + 1, device=batch.index.device)
    alone = (batch.index[:, None] == numbers[:, None, None]).float()
    target = functional.interpolate(alone, size=tuple(size), mode="area")
    present = functional.adaptive_max_pool2d(alone, tuple(size))
    across, down = present.amax(2, keepdim=True), present.amax(3, keepdim=True)
    return target, _span(across, 3) * _span(down, 2)


def _span(present: Tensor, axis: int) -> Tensor:
    """1 from the first to the last place that is present."""
    before = present.cummax(axis).values
    after = present.flip(axis).cummax(axis).values.flip(axis)
    return before * after


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy in which what is right already weighs little; per marked place."""
    error = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (logits.sigmoid() - target).abs().detach()
    return (error * wrong.square()).sum() / target.sum().clamp(min=1) * 0.25
