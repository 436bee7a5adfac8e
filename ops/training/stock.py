"""The pictures that training draws from: in the device's memory, replaced as new ones come, augmented there."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from ops.training.painter import CHUNK, MOST

#: Augmentation: factors of exposure and of each colour, added grey, gamma, and sensor noise, all 0 to 1.
_EXPOSURE: Final = 0.15
_TINT: Final = 0.08
_OFFSET: Final = 0.03
_GAMMA: Final = 0.2
_NOISE: Final = 0.008


class Batch(NamedTuple):
    """`pictures` [n, 3, height, width], RGB, 0 to 1; `index` [n, height, width], the number of the defect from 1 on;
    `truth` [n, MOST, 6]: 1 or 0, class, box (x1, y1, x2, y2) in pixels."""

    pictures: Tensor
    index: Tensor
    truth: Tensor


class Stock:
    """Holds `capacity` pictures of `size` (height, width), whole chunks of them; the newest replace the oldest."""

    def __init__(self, capacity: int, size: tuple[int, int], device: torch.device) -> None:
        capacity = -(-capacity // CHUNK) * CHUNK
        self._pictures = torch.empty((capacity, *size, 4), dtype=torch.uint8, device=device)
        self._truth = torch.zeros((capacity, MOST, 6), device=device)
        self._next = 0
        #: Pictures that have come, replaced ones included.
        self.received = 0

    def __len__(self) -> int:
        return min(self.received, len(self._pictures))

    def put(self, pictures: Tensor, truth: Tensor) -> None:
        """Copy a chunk in (see `Chunk`), which is on the device already."""
        count = len(truth)
        self._pictures[self._next : self._next + count] = pictures
        self._truth[self._next : self._next + count] = truth
        self._next = (self._next + count) % len(self._pictures)
        self.received += count

    def sample(self, count: int) -> Batch:
        """So many pictures at random, augmented."""
        chosen = torch.randint(len(self), (count,), device=self._truth.device)
        return augment(self._plain(chosen))

    def rows(self, start: int, end: int) -> Batch:
        """Pictures in the order in which they came, as they are."""
        return self._plain(torch.arange(start, min(end, len(self)), device=self._truth.device))

    def _plain(self, chosen: Tensor) -> Batch:
        picked = self._pictures.index_select(0, chosen)
        pictures = picked[..., :3].flip(-1).permute(0, 3, 1, 2).float() / 255
        return Batch(pictures, picked[..., 3], self._truth.index_select(0, chosen))


def augment(batch: Batch) -> Batch:
    """Mirrored either way, and in another light."""
    batch = _mirrored(_mirrored(batch, 2), 1)
    pictures, count = batch.pictures, len(batch.pictures)

    def between(spread: float, channels: int = 1) -> Tensor:
        return (torch.rand((count, channels, 1, 1), device=pictures.device) * 2 - 1) * spread

    pictures = pictures.clamp(1e-4, 1) ** torch.exp(between(_GAMMA))
    pictures = pictures * (1 + between(_EXPOSURE)) * (1 + between(_TINT, 3)) + between(_OFFSET)
    pictures = pictures + torch.randn_like(pictures) * between(_NOISE).abs()
    return batch._replace(pictures=pictures.clamp(0, 1))


def _mirrored(batch: Batch, axis: int) -> Batch:
    """Half of the pictures mirrored: axis 2 left to right, 1 upside down."""
    turned = torch.rand(len(batch.pictures), device=batch.pictures.device) < 0.5
    pictures = torch.where(turned[:, None, None, None], batch.pictures.flip(axis + 1), batch.pictures)
    index = torch.where(turned[:, None, None], batch.index.flip(axis), batch.index)
    low, length = 4 - axis, batch.index.shape[axis]
    truth = batch.truth.clone()
    mirrored = truth.clone()
    mirrored[..., low], mirrored[..., low + 2] = length - truth[..., low + 2], length - truth[..., low]
    return Batch(pictures, index, torch.where(turned[:, None, None], mirrored, truth))
