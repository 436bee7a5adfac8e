"""A thread that carries what the painters have drawn to the device, beside the training."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Final

import torch

from ops.training.painter import Chunk, Painters
from ops.training.stock import Stock

#: Chunks on the device that wait to be taken into the stock.
_WAITING: Final = 4
#: Seconds between two looks at the order to stop.
_GLANCE: Final = 0.2


class Loader:
    """Use as a context manager; `pour` from the training's thread."""

    def __init__(self, crew: Painters, device: torch.device) -> None:
        self._crew = crew
        self._device = device
        self._chunks: queue.Queue[tuple[torch.Tensor, torch.Tensor]] = queue.Queue(_WAITING)
        self._stopping = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="loader")

    def __enter__(self) -> Loader:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def pour(self, stock: Stock, timeout: float = 0.0) -> bool:
        """Put what has come into the stock; whether anything had, within `timeout` seconds.

        Raises RuntimeError when no more will come.
        """
        if self._problem is not None:
            raise RuntimeError(f"no more pictures: {self._problem}") from self._problem
        poured = False
        with contextlib.suppress(queue.Empty):
            while True:
                stock.put(*self._chunks.get(timeout=timeout) if timeout and not poured else self._chunks.get_nowait())
                poured = True
        return poured

    def _run(self) -> None:
        try:
            # A stream of its own: the copy does not wait for the training's kernels.
            stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
            while not self._stopping.is_set():
                taken = self._crew.take(_GLANCE)
                if taken is not None:
                    chunk, give_back = taken
                    self._hand_over(self._carry(chunk, stream))
                    give_back()
        except BaseException as error:  # shown by whoever waits for pictures
            self._problem = error

    def _carry(self, chunk: Chunk, stream: torch.cuda.Stream | None) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, truth = torch.from_numpy(chunk.pictures), torch.from_numpy(chunk.truth)
        if stream is None:
            return pictures.clone(), truth.clone()
        with torch.cuda.stream(stream):
            carried = pictures.to(self._device), truth.to(self._device)
        stream.synchronize()
        for tensor in carried:
            tensor.record_stream(torch.cuda.default_stream(self._device))
        return carried

    def _hand_over(self, chunk: tuple[torch.Tensor, torch.Tensor]) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                self._chunks.put(chunk, timeout=_GLANCE)
                return
