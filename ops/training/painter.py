"""Processes that draw pictures for training, without end, into memory that they share with the trainer."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from clients.shapes import World
from clients.synthetic import Part, SyntheticCamera
from clients.workpiece import CLASSES

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


@dataclass(frozen=True, slots=True)
class Order:
    """What one painter draws: pictures of `world` with `size`, its `seed` unlike any other painter's."""

    world: World
    size: tuple[int, int]
    defect_rate: float
    seed: int
    file: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pictures uint8 [n, height, width, 4]: blue, green, red, and the number of the defect from 1 on or 0.

    `truth` float32 [n, MOST, 6]: 1 or 0, class, box (x1, y1, x2, y2) in pixels.
    """

    pictures: NDArray[np.uint8]
    truth: NDArray[np.float32]


class Painters:
    """`count` processes; `take` what they have drawn, one after the other."""

    def __init__(self, count: int, order: Order, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._done: Any = context.Queue()
        self._slots, self._freed, self._processes = [], [], []
        for number in range(count):
            mine = Order(order.world, order.size, order.defect_rate, order.seed + number, str(folder / f"{number}.raw"))
            slots = np.memmap(mine.file, np.uint8, "w+", shape=(_SLOTS, CHUNK, *mine.size, 4))
            freed: Any = context.Queue()
            for slot in range(_SLOTS):
                freed.put(slot)
            process = context.Process(target=_paint, args=(mine, number, freed, self._done), daemon=True)
            process.start()
            self._slots.append(slots)
            self._freed.append(freed)
            self._processes.append(process)

    def take(self, timeout: float) -> tuple[Chunk, Any] | None:
        """The next chunk and a function that gives its memory back; None: there was none within `timeout` seconds.

        Raises RuntimeError when a painter has died.
        """
        try:
            number, slot, truth = self._done.get(timeout=timeout)
        except Empty:
            if dead := [process for process in self._processes if not process.is_alive()]:
                raise RuntimeError(f"{len(dead)} of the processes that draw pictures have died; see above") from None
            return None
        return Chunk(self._slots[number][slot], truth), lambda: self._freed[number].put(slot)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(5)


@contextmanager
def painters(count: int, order: Order) -> Iterator[Painters]:
    """Painters for the time, and a folder for their memory: in memory where there is room, else on disk."""
    needed = count * _SLOTS * CHUNK * order.size[0] * order.size[1] * 4
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > 2 * needed
    folder = Path(tempfile.mkdtemp(prefix="gongwei-training-", dir=shared if roomy else None))
    crew = Painters(count, order, folder)
    try:
        yield crew
    finally:
        crew.close()
        shutil.rmtree(folder, ignore_errors=True)


def _paint(order: Order, number: int, freed: Any, done: Any) -> None:
    """The life of a painter: it ends with the trainer."""
    cv2.setNumThreads(1)
    with suppress(OSError, AttributeError):
        os.nice(5)
    slots = np.memmap(order.file, np.uint8, "r+", shape=(_SLOTS, CHUNK, *order.size, 4))
    drawn = 0
    with suppress(KeyboardInterrupt, EOFError):
        while True:
            if drawn % _SAME_TEXTURES == 0:
                seed = order.seed + 1000 * (1 + drawn // _SAME_TEXTURES)
                camera = SyntheticCamera(seed, size=order.size, defect_rate=order.defect_rate, world=order.world)
            slot = freed.get()
            done.put((number, slot, draw(camera, drawn * CHUNK, slots[slot])))
            drawn += 1


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
