"""An engine without a model, for tests and chaos runs: a detector that sees every frame's mean brightness.

`--model NAME=fake:delay=0.005,batch=4,poison=exit`: seconds per call, largest batch, and what happens when a batch
holds the picture of `poison_picture`.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np

from workers.engine import Array, Signature
from workers.errors import EngineError
from workers.image import Picture

#: raise an EngineError; hang with the GIL free; spin with the GIL held; exit the process at once.
Poison: TypeAlias = Literal["none", "raise", "hang", "spin", "exit"]

#: How the command line begins that asks for this engine.
PREFIX: Final = "fake:"
#: Exit code of `poison=exit`.
EXIT_CODE: Final = 86
#: Magenta: it survives JPEG and resizing, and no lamp of a plant looks like it.
_POISON: Final = (255, 0, 255)


@dataclass(frozen=True, slots=True)
class Fake:
    """What the fake engine does. `delay`, `hang`: seconds of a call and of a hang; `size`: its square input."""

    delay: float = 0.0
    batch: int = 1
    size: int = 64
    poison: Poison = "none"
    hang: float = 3600.0

    @classmethod
    def parse(cls, text: str) -> Fake:
        """Of `delay=0.005,batch=4`. Raises EngineError naming what is allowed."""
        kinds: dict[str, Callable[[str], Any]] = {
            "delay": float,
            "batch": int,
            "size": int,
            "poison": str,
            "hang": float,
        }
        pairs = dict(part.partition("=")[::2] for part in text.split(",") if part)
        try:
            fake = cls(**{name: kinds[name](value) for name, value in pairs.items()})
        except (KeyError, ValueError):
            raise EngineError(f"{PREFIX}{text}: allowed are {', '.join(kinds)}, as in {PREFIX}delay=0.005") from None
        if fake.poison not in get_args(Poison) or fake.batch < 1 or fake.size < 8 or not 0 <= fake.delay < 3600:
            raise EngineError(f"{PREFIX}{text}: poison is one of {', '.join(get_args(Poison))}; batch 1.., size 8..")
        return fake


class FakeEngine:
    """Answers in YOLOv5's layout: one detection `frame` over the whole input, its score the mean brightness."""

    def __init__(self, fake: Fake) -> None:
        self.name = f"fake {fake}"
        self.signature = Signature(
            input=(None if fake.batch > 1 else 1, 3, fake.size, fake.size),
            outputs=((None, 1, 6),),
            sha256=hashlib.sha256(repr(fake).encode()).hexdigest(),
            metadata={"task": "detect", "names": "{0: 'frame'}", "stride": "32"},
        )
        self._fake = fake
        self._closed = threading.Event()

    def infer(self, batch: Array) -> list[Array]:
        if self._fake.poison != "none" and any(_is_poison(picture) for picture in batch):
            self._suffer()
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


def poison_picture(height: int, width: int) -> Picture:
    """The BGR picture that makes a fake engine suffer."""
    return np.full((height, width, 3), _POISON[::-1], np.uint8)


def _is_poison(picture: Array) -> bool:
    _, height, width = picture.shape
    middle = picture[:, height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2]
    return bool(np.abs(middle - np.array(_POISON, np.float32).reshape(3, 1, 1) / 255).max() < 0.1)
