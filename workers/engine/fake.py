"""An engine without a model, for tests and chaos runs: a detector that sees every frame's mean brightness.

`--model NAME=fake:delay=0.005,batch=4,poison=exit`: seconds per call, largest batch, and what happens when a batch
holds the picture of `poison_picture`. `marker=cyan` makes another picture the poison, so that two models of a line
suffer from different ones; `orders=FILE` names a file by which one call can be made to hang, whatever it looks at.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np

from workers.engine import Array, Signature
from workers.errors import EngineError
from workers.image import Picture

#: raise an EngineError; hang with the GIL free; spin with the GIL held; exit the process at once.
Poison: TypeAlias = Literal["none", "raise", "hang", "spin", "exit"]

#: What the middle of a poison picture shows.
Marker: TypeAlias = Literal["magenta", "cyan"]

#: How the command line begins that asks for this engine.
PREFIX: Final = "fake:"
#: Exit code of `poison=exit`.
EXIT_CODE: Final = 86
#: RGB. They survive JPEG and resizing, and no lamp of a plant looks like them.
_COLOURS: Final[dict[Marker, tuple[int, int, int]]] = {"magenta": (255, 0, 255), "cyan": (0, 255, 255)}


@dataclass(frozen=True, slots=True)
class Fake:
    """What the fake engine does. `delay`, `hang`: seconds of a call and of a hang; `size`: its square input; `orders`:
    a file that the next call takes away when it is there, to hang for the seconds that it holds."""

    delay: float = 0.0
    batch: int = 1
    size: int = 64
    poison: Poison = "none"
    hang: float = 3600.0
    marker: Marker = "magenta"
    orders: str = ""

    @classmethod
    def parse(cls, text: str) -> Fake:
        """Of `delay=0.005,batch=4`. Raises EngineError naming what is allowed."""
        kinds: dict[str, Callable[[str], Any]] = {
            "delay": float,
            "batch": int,
            "size": int,
            "poison": str,
            "hang": float,
            "marker": str,
            "orders": str,
        }
        pairs = dict(part.partition("=")[::2] for part in text.split(",") if part)
        try:
            fake = cls(**{name: kinds[name](value) for name, value in pairs.items()})
        except (KeyError, ValueError):
            raise EngineError(f"{PREFIX}{text}: allowed are {', '.join(kinds)}, as in {PREFIX}delay=0.005") from None
        if fake.poison not in get_args(Poison) or fake.batch < 1 or fake.size < 8 or not 0 <= fake.delay < 3600:
            raise EngineError(f"{PREFIX}{text}: poison is one of {', '.join(get_args(Poison))}; batch 1.., size 8..")
        if fake.marker not in _COLOURS:
            raise EngineError(f"{PREFIX}{text}: marker is one of {', '.join(_COLOURS)}")
        return fake


class FakeEngine:
    """Answers in YOLOv5's layout: one detection `frame` over the whole input, its score the mean brightness."""

    def __init__(self, fake: Fake) -> None:
        self.name = f"fake {fake}"
        self.signature = Signature(
            input=(None if fake.batch > 1 else 1, 3, fake.size, fake.size),
            outputs=((None, 1, 6),),
            sha256=hashlib.sha256(repr(replace(fake, orders="")).encode()).hexdigest(),
            metadata={"task": "detect", "names": "{0: 'frame'}", "stride": "32"},
        )
        self._fake = fake
        self._closed = threading.Event()

    def infer(self, batch: Array) -> list[Array]:
        if self._fake.poison != "none" and any(_is_poison(picture, self._fake.marker) for picture in batch):
            self._suffer()
        if self._fake.orders:
            self._closed.wait(_ordered_hang(Path(self._fake.orders)))
        if self._fake.delay:
            self._closed.wait(self._fake.delay)
        half = self._fake.size / 2
        output = np.empty((len(batch), 1, 6), np.float32)
        output[:, 0, :5] = (half, half, 2 * half, 2 * half, 1)
        output[:, 0, 5] = batch.mean(axis=(1, 2, 3))
        return [output]

    def close(self) -> None:
        self._closed.set()

    def _suffer(self) -> None:
        match self._fake.poison:
            case "raise":
                raise EngineError("the picture is poison")
            case "hang":
                self._closed.wait(self._fake.hang)
            case "spin":
                # One call into C that never ends and never releases the GIL, on every platform.
                collections.deque(itertools.repeat(None), maxlen=0)
            case "exit":
                os._exit(EXIT_CODE)


def poison_picture(height: int, width: int, marker: Marker = "magenta") -> Picture:
    """The BGR picture that makes a fake engine suffer."""
    return np.full((height, width, 3), _COLOURS[marker][::-1], np.uint8)


def _is_poison(picture: Array, marker: Marker) -> bool:
    _, height, width = picture.shape
    middle = picture[:, height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2]
    return bool(np.abs(middle - np.array(_COLOURS[marker], np.float32).reshape(3, 1, 1) / 255).max() < 0.1)


def _ordered_hang(orders: Path) -> float:
    """The seconds that the file says, once: it is taken away. 0 without one, or for one that holds no number."""
    try:
        seconds = float(orders.read_text(encoding="ascii"))
        orders.unlink()
    except (OSError, ValueError):
        return 0.0
    return max(0.0, seconds)
