"""The baseline of `gongwei bench worker`: onnxruntime alone, in a loop, on one input tensor that never changes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ops.bench.board import Board, Slot

if TYPE_CHECKING:
    import numpy as np

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class BareLoop(Struct, frozen=True, kw_only=True, tag=True):
    """`threads` sessions of the model, each in its own thread, each with `engine_threads` threads inside a call."""

    model: str
    threads: int
    engine_threads: int
    batch: int

    def run(self, board: Board) -> None:
        """Infer until the board says stop; counts pictures, one slot per thread."""
        loops = [threading.Thread(target=self._loop, args=(board, number)) for number in range(self.threads)]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()

    def _loop(self, board: Board, number: int) -> None:
        session = open_session(Path(self.model), self.engine_threads)
        bound = bind(session, example_input(session, self.batch))
        while not board.stopped:
            session.run_with_iobinding(bound)
            board.counts[Slot.RECEIVED + number] += self.batch


def open_session(model: Path, engine_threads: int) -> Any:
    """An onnxruntime session with the options of the real engine: idle threads do not spin."""
    # Here and not above, as numpy below: no other process of a benchmark needs it, and loading it takes half a second.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = engine_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def bind(session: Any, batch: np.ndarray[Any, Any]) -> Any:
    """The input and buffers for the outputs, bound once: a call then allocates and copies nothing."""
    import onnxruntime

    name = session.get_inputs()[0].name
    bound = session.io_binding()
    bound.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(batch))
    outputs = zip(session.get_outputs(), session.run(None, {name: batch}), strict=True)
    for output, example in outputs:
        bound.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_numpy(example))
    return bound


def example_input(session: Any, batch: int) -> np.ndarray[Any, Any]:
    """Noise from 0 to 1 in the shape of the model's input; `batch` rows where the model leaves that open.

    Raises ValueError when the model fixes another batch, or does not fix its picture's size.
    """
    import numpy as np

    given = session.get_inputs()[0]
    rows, *sides = given.shape
    if isinstance(rows, int) and rows != batch:
        raise ValueError(f"the model takes batches of {rows} only: give --max-batch {rows}")
    if not all(isinstance(side, int) for side in sides):
        raise ValueError(f"the model's input {given.shape} has no fixed size: export it with one")
    return np.random.default_rng(0).random((batch, *sides)).astype(_DTYPES[given.type])
