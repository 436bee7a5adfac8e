"""The training: three students, one stock of pictures, a budget of time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ops.training.loader import Loader
from ops.training.recipe import Settings
from ops.training.stock import Stock
from ops.training.student import Student

#: Pictures that must be there before the first step, in batches.
_ENOUGH: Final = 8
#: Steps between two looks at the losses (each waits for the device), and seconds between two checkpoints.
_LOOK: Final = 20
_CHECKPOINT: Final = 60.0
#: Seconds between two entries of the history.
_RECORD: Final = 5.0


class Trainer:
    """Trains for `settings.seconds`, over all runs that resume from one checkpoint. `file`: that checkpoint."""

    def __init__(self, students: list[Student], settings: Settings, device: torch.device, file: Path) -> None:
        self._students = students
        self._settings = settings
        self._device = device
        self._file = file
        self._streams = [torch.cuda.Stream(device) for _ in students] if device.type == "cuda" else []
        #: Seconds trained so far.
        self.trained = 0.0
        #: Every few seconds: seconds trained, steps, pictures that had come, and the loss of each student.
        self.history: list[tuple[float, int, int, dict[str, float]]] = []

    def resume(self) -> bool:
        """Go on from the checkpoint, if there is one."""
        if not self._file.is_file():
            return False
        saved = torch.load(self._file, map_location=self._device, weights_only=True)
        for student in self._students:
            student.load(saved[student.recipe.name])
        self.trained = saved["trained"]
        return True

    def save(self) -> None:
        """Write the checkpoint; the one before stays until it is whole."""
        state = {student.recipe.name: student.save() for student in self._students}
        fresh = self._file.with_suffix(".new")
        torch.save(state | {"trained": self.trained}, fresh)
        fresh.replace(self._file)

    def run(self, stock: Stock, loader: Loader) -> None:
        """Train until the time is over."""
        with _progress(self._settings.seconds) as progress:
            self._fill(stock, loader)
            task = progress.add_task("training", total=self._settings.seconds, told="")
            before, saved_at = self.trained, time.monotonic()
            began = time.monotonic()
            while self.trained < self._settings.seconds:
                loader.pour(stock)
                self._step(stock)
                if self._students[0].steps % _LOOK == 0:
                    told = self._told(stock)
                    progress.update(task, completed=self.trained, told=told)
                self.trained = before + time.monotonic() - began
                if time.monotonic() - saved_at > _CHECKPOINT:
                    self.save()
                    saved_at = time.monotonic()
            progress.update(task, completed=self._settings.seconds, told=self._told(stock, last=True))
        self.save()

    def _fill(self, stock: Stock, loader: Loader) -> None:
        enough = min(self._settings.pictures, _ENOUGH * self._settings.batch)
        while len(stock) < enough:
            loader.pour(stock, timeout=0.2)

    def _step(self, stock: Stock) -> None:
        """One step of every student on the same pictures; on a GPU side by side."""
        batch = stock.sample(self._settings.batch)
        progress = self.trained / self._settings.seconds
        main = torch.cuda.current_stream(self._device) if self._streams else None
        for number, student in enumerate(self._students):
            with self._beside(number):
                student.learn(batch, progress)
        if main is not None:
            for stream in self._streams:
                main.wait_stream(stream)

    @contextlib.contextmanager
    def _beside(self, number: int) -> Iterator[None]:
        if not self._streams:
            yield
            return
        stream = self._streams[number]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            yield

    def _told(self, stock: Stock, last: bool = False) -> str:
        losses = {student.recipe.name: round(student.loss.item(), 4) for student in self._students}
        steps = self._students[0].steps
        if last or not self.history or self.trained - self.history[-1][0] > _RECORD:
            self.history.append((round(self.trained, 1), steps, stock.received, losses))
        return f"step {steps}, {stock.received} pictures, losses: {losses}"


def _progress(seconds: float) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[told]}"), refresh_per_second=1)
