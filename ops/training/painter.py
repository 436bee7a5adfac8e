"""Processes that draw pictures for training, without end, into files in memory that the trainer reads."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from clients.shapes import World
from clients.synthetic import Part, SyntheticCamera
from clients.workpiece import CLASSES
from ops.errands import Errands, serve

#: Pictures that a painter hands over at once, and how many such chunks have the same textures.
CHUNK: Final = 64
_SAME_TEXTURES: Final = 6
#: Chunks of a painter that are being drawn or wait for the trainer.
_SLOTS: Final = 2
#: Defects that a part has at most.
MOST: Final = 2
#: Share of the pictures that went through a JPEG, and its quality.
_JPEG_RATE: Final = 0.4
_QUALITY: Final = (75, 98)


class Order(Struct, frozen=True, kw_only=True):
    """What is drawn: pictures of `world` with `size`, from `seed` on, into files of `folder`."""

    world: World
    size: tuple[int, int]
    defect_rate: float
    seed: int
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pictures uint8 [n, height, width, 4]: blue, green, red, and the number of the defect from 1 on or 0.

    `truth` float32 [n, MOST, 6]: 1 or 0, class, box (x1, y1, x2, y2) in pixels.
    """

    pictures: NDArray[np.uint8]
    truth: NDArray[np.float32]


class Painters:
    """Processes that draw; `take` what they have drawn, one after the other."""

    def __init__(self, crew: Errands, order: Order) -> None:
        self._crew = crew
        self._memory = [_memory(order, number) for number in range(crew.count)]
        for number in range(crew.count):
            for slot in range(_SLOTS):
                crew.give(number, str(slot))

    def take(self, timeout: float) -> tuple[Chunk, Callable[[], None]] | None:
        """The next chunk and a function that gives its memory back; None: there was none within `timeout` seconds.

        Raises ErrandError when a painter has died.
        """
        taken = self._crew.take(timeout)
        if taken is None:
            return None
        number, slot = taken
        pictures, truth = self._memory[number]
        return Chunk(pictures[int(slot)], truth[int(slot)]), lambda: self._crew.give(number, slot)


@contextmanager
def painters(count: int, order: Order) -> Iterator[Painters]:
    """So many painters for the time, and a folder for their memory: in memory where there is room, else on disk."""
    needed = count * _SLOTS * CHUNK * order.size[0] * order.size[1] * 4
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > 2 * needed
    folder = tempfile.mkdtemp(prefix="gongwei-training-", dir=shared if roomy else None)
    order = msgspec.structs.replace(order, folder=folder)
    argv = [sys.executable, "-m", "ops.training.painter", msgspec.json.encode(order).decode()]
    try:
        for number in range(count):
            for file, size in zip(_files(order, number), (needed // count, _SLOTS * CHUNK * MOST * 6 * 4), strict=True):
                with file.open("wb") as made:
                    made.truncate(size)
        with Errands(argv, count) as crew:
            yield Painters(crew, order)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """The life of a painter: ORDER NUMBER; slots to fill come on standard input, and go back filled."""
    order, number = msgspec.json.decode(sys.argv[1], type=Order), int(sys.argv[2])
    cv2.setNumThreads(1)
    if sys.platform != "win32":
        os.nice(5)  # the trainer's threads go first
    painter = Painter(order, number)
    serve(painter.fill)


class Painter:
    """Draws chunk after chunk, other textures every few of them."""

    def __init__(self, order: Order, number: int) -> None:
        self._order = order
        self._number = number
        self._pictures, self._truth = _memory(order, number)
        self._drawn = 0
        self._camera = self._new_camera()

    def fill(self, slot: str) -> str:
        """Draw the next chunk into a slot."""
        if self._drawn % _SAME_TEXTURES == 0:
            self._camera = self._new_camera()
        self._truth[int(slot)] = draw(self._camera, self._drawn * CHUNK, self._pictures[int(slot)])
        self._drawn += 1
        return slot

    def _new_camera(self) -> SyntheticCamera:
        order = self._order
        # Seeds of painters are less than 1000 apart.
        seed = order.seed + self._number + 1000 * (self._drawn // _SAME_TEXTURES)
        return SyntheticCamera(seed, size=order.size, defect_rate=order.defect_rate, world=order.world)


def _memory(order: Order, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pictures and truth of one painter's slots, seen by painter and trainer."""
    pictures, truth = _files(order, number)
    return (
        np.memmap(pictures, np.uint8, "r+", shape=(_SLOTS, CHUNK, *order.size, 4)),
        np.memmap(truth, np.float32, "r+", shape=(_SLOTS, CHUNK, MOST, 6)),
    )


def _files(order: Order, number: int) -> tuple[Path, Path]:
    folder = Path(order.folder)
    return folder / f"{number}.pictures", folder / f"{number}.truth"


def draw(camera: SyntheticCamera, first: int, out: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Draw parts from number `first` on into `out`, as `Chunk.pictures`; returns `Chunk.truth`."""
    truth = np.zeros((len(out), MOST, 6), np.float32)
    for row in range(len(out)):
        part = camera.part(first + row)
        out[row, ..., :3] = _sent(part, np.random.default_rng((camera.seed, first + row, 2)))
        out[row, ..., 3] = 0
        index = np.zeros(camera.size, np.uint8)
        for place, defect in enumerate(part.truth[:MOST]):
            truth[row, place] = 1, CLASSES.index(defect.name), *defect.box
            cv2.fillPoly(index, [defect.polygon.astype(np.int32)], place + 1)
        out[row, ..., 3] = index
    return truth


def _sent(part: Part, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture, some of them as a camera sends it: through a JPEG."""
    if rng.random() > _JPEG_RATE:
        return part.image
    _, data = cv2.imencode(".jpg", part.image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*_QUALITY))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


if __name__ == "__main__":
    main()
