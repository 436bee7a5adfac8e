"""What is trained: the three demo models, their shapes, and the numbers of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from clients.workpiece import CLASSES
from workers.model import Task
from workers.zoo.network import Network
from workers.zoo.yolov5 import Size, yolov5

#: The synthetic camera's pictures: (height, width) in pixels.
PICTURE: Final = (480, 640)
#: Half of yolov5n's width, its depth.
SMALL: Final = Size(depth=0.33, width=0.125)
#: What the classifier answers: the verdict itself, since a part with two defects has no single class.
VERDICTS: Final = ("ok", "bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One demo model. `side`: (height, width) of its input, with the proportions of the camera's pictures."""

    name: str
    task: Task
    side: tuple[int, int]
    names: tuple[str, ...]
    #: How many sound parts of the training world it may call bad, beside the other models.
    alarms: float = 1.0

    def network(self) -> Network:
        """Its graph, without weights."""
        return yolov5(self.name, SMALL, self.task, self.side, len(self.names))


#: Masks cost time at every pixel of the prototypes, so the segmenter sees a smaller picture.
RECIPES: Final = (
    Recipe(name="demo-det", task="detect", side=(480, 640), names=CLASSES),
    Recipe(name="demo-seg", task="segment", side=(384, 512), names=CLASSES),
    # Elsewhere than in the training world it is the one that calls sound parts bad.
    Recipe(name="demo-cls", task="classify", side=(480, 640), names=VERDICTS, alarms=0.5),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one run. `seconds` of training; `pictures` in memory at once, which `painters` processes draw and go on
    replacing with new ones; `seed` of pictures and weights."""

    seconds: float = 240.0
    batch: int = 96
    pictures: int = 20_000
    painters: int = 12
    seed: int = 1
    rate: float = 2.5e-3
    decay: float = 0.03
    warm_up: int = 300
    #: Share of the parts that have a defect.
    defect_rate: float = 0.7
    #: Sound and bad parts of the training world by which thresholds are chosen, and held-out parts for the last table.
    validation: int = 9_000
    held_out: int = 1_000
