"""The networks that are compared: small cfgs of our own, and published ones (in the test data) at a small input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Every kind of layer and activation that OpenCV's importer knows, and a head with scale_x_y.
LAYERS: Final = """[net]
width=96
height=64
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=32
size=3
groups=16
pad=1
activation=swish
[route]
layers=-1
groups=2
group_id=1
[convolutional]
batch_normalize=1
filters=16
size=1
activation=mish
[dropout]
probability=.2
[shortcut]
from=-5
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=24
size=5
stride=2
padding=2
activation=logistic
[maxpool]
size=5
stride=1
[route]
layers=-2
[maxpool]
size=9
stride=1
[route]
layers=-4
[maxpool]
size=13
stride=1
[route]
layers=-1,-3,-5,-6
[convolutional]
filters=21
size=1
activation=linear
[yolo]
mask=1,2,4
anchors=4,5, 8,12, 16,10, 20,30, 33,23
num=5
classes=2
scale_x_y=1.2
[route]
layers=-3
[upsample]
stride=2
[maxpool]
size=2
stride=1
[route]
layers=-1,6
[convolutional]
batch_normalize=1
filters=16
size=3
pad=1
activation=linear
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,3
anchors=4,5, 8,12, 16,10, 20,30, 33,23
num=5
classes=2
scale_x_y=1.05
"""

#: A head with new_coords, as yolov4-csp and its successors have them.
NEW_COORDS: Final = """[net]
width=64
height=96
[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=swish
[maxpool]
size=3
stride=2
[convolutional]
filters=16
size=1
activation=logistic
[yolo]
mask=0,1
anchors=12,16, 36,75
num=2
classes=3
scale_x_y=2.0
new_coords=1
"""

#: What OpenCV's importer does otherwise than Darknet, or not: checked by the reference only.
BEYOND: Final = """[net]
width=32
height=64
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=relu
[convolutional]
filters=8
size=3
pad=1
activation=mish
[shortcut]
from=-2,-1
activation=swish
[route]
layers=-1,-2
groups=4
group_id=2
[maxpool]
size=3
stride=3
padding=1
[upsample]
stride=3
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=0
anchors=5,6
num=1
classes=2
"""


@dataclass(frozen=True, slots=True)
class Case:
    """`text` None: the published `name`.cfg, at an input of `size` (height, width)."""

    name: str
    seed: int
    text: str | None = None
    size: tuple[int, int] = (96, 160)

    def cfg(self, models: Path) -> str:
        """The text of its cfg; `models`: the folder of the published ones."""
        if self.text is not None:
            return self.text
        published = (models / f"{self.name}.cfg").read_text(encoding="utf-8")
        for key, side in zip(("height", "width"), self.size, strict=True):
            published = re.sub(rf"^{key} *=.*$", f"{key}={side}", published, count=1, flags=re.MULTILINE)
        return published


OURS: Final = (Case("layers", 1, LAYERS), Case("new-coords", 2, NEW_COORDS))
PUBLISHED: Final = (
    Case("yolov3-tiny", 3),
    Case("yolov3", 4),
    Case("yolov4-tiny", 5),
    Case("yolov4", 6),
    Case("yolo-fastest-1.1-xl", 7),
)
#: Published with their weights, and the pictures that they look at.
TRAINED: Final = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl")
PICTURES: Final = ("bus.jpg", "zidane.jpg", "person.jpg", "eagle.jpg")
