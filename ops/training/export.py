"""From trained networks to the files that ship: thresholds from the training world, weights into the zoo's graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ops.training.recipe import Recipe
from ops.training.stock import Stock
from ops.training.student import Learner, seen
from workers.metadata import FIT, PRECISION
from workers.settings import CONFIDENCE_KEY
from workers.zoo.yolov5 import ANCHORS

#: Share of the sound parts of the training world that the models together may call bad. That world is harder than
#: another, since it has the greatest variety of parts: elsewhere they call fewer bad.
_FALSE_ALARMS: Final = 0.02
_BATCH: Final = 64


@torch.no_grad()
def scores(learner: Learner, recipe: Recipe, stock: Stock) -> tuple[Tensor, Tensor]:
    """For every picture of the stock: the highest score of any defect, and whether it has one.

    A classifier's score is its logit of bad less that of ok."""
    highest, bad = [], []
    for start in range(0, len(stock), _BATCH):
        batch = stock.rows(start, start + _BATCH)
        answers = learner(seen(batch.pictures, recipe))
        highest.append(_highest(recipe, answers))
        bad.append(batch.truth[..., 0].amax(1) > 0)
    return torch.cat(highest).float().cpu(), torch.cat(bad).cpu()


def thresholds(highest: Sequence[Tensor], bad: Tensor, shares: Sequence[float]) -> list[float]:
    """A score for each model: what each calls bad of the sound parts is as `shares` are, and together they call so many
    bad as they may, since a part is bad when any of them says so. Raises ValueError when no part is sound."""
    sound = torch.stack([scores[~bad] for scores in highest])
    share = torch.tensor(shares)
    if not sound.shape[1]:
        raise ValueError("thresholds need sound parts to be chosen by; there are only bad ones")
    falling, order = sound.sort(1, descending=True)
    rank = order.argsort(1) / share[:, None]
    # Up to here no more parts have a higher rank with any of the models than may have.
    last = (rank.amin(0).sort().values[int(_FALSE_ALARMS * sound.shape[1])] * share).int().tolist()
    return [float(row[max(0, end - 1) : end + 1].mean()) for row, end in zip(falling, last, strict=True)]


def export(learner: Learner, recipe: Recipe, confidence: float, folder: Path) -> Path:
    """Write `folder`/NAME.onnx, which calls a part bad from a score of `confidence` on; returns its path."""
    values = learner.net.folded()
    if recipe.task == "classify":
        # The classifier's threshold goes into its biases: a worker takes the likelier class.
        weights, biases = values["model.9.linear"]
        values["model.9.linear"] = weights, (biases + np.array([confidence, 0], np.float32)).astype(np.float32)
        confidence = 0.5
    metadata = {
        "task": recipe.task,
        "names": str(dict(enumerate(recipe.names))),
        "imgsz": str(list(recipe.side)),
        "stride": "32",
        "description": "demo model of Gongwei for the parts of its synthetic camera; good for nothing else",
        "license": "Apache-2.0",
        FIT: "letterbox",
        PRECISION: "fp32",
        CONFIDENCE_KEY: f"{confidence:.3f}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{recipe.name}.onnx"
    path.write_bytes(recipe.network().model(values, metadata).SerializeToString())
    return path


def _highest(recipe: Recipe, answers: list[Tensor]) -> Tensor:
    if recipe.task == "classify":
        return answers[0][:, 1] - answers[0][:, 0]
    found = []
    for head in answers[: len(ANCHORS)]:
        table = head.reshape(len(head), len(ANCHORS[0]), -1, *head.shape[2:]).sigmoid()
        best = table[:, :, 4] * table[:, :, 5 : 5 + len(recipe.names)].amax(2)
        found.append(best.flatten(1).amax(1))
    return torch.stack(found).amax(0)
