"""How long the demo models take beside yolov5n at 640 x 640, one thread each, in turn, in one run."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from msgspec import Struct

from workers import shipped

#: What they are compared with, with random weights: their values change nothing about its time.
BASELINE: Final = "yolov5n"
_SIDE: Final = (640, 640)
_WARM_UPS: Final = 2


class Speed(Struct, frozen=True, kw_only=True):
    """Median processor seconds of one inference at batch 1, and that over the baseline's, round by round."""

    name: str
    seconds: float
    ratio: float


def measure(folder: Path, rounds: int) -> list[Speed]:
    """The models of the folder and the baseline, `rounds` times in turn."""
    sessions = {BASELINE: _session(_baseline())}
    sessions |= {name: _session((folder / f"{name}.onnx").read_bytes()) for name in shipped.NAMES}
    inputs = {name: _noise(session) for name, session in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(_WARM_UPS + rounds):
        for name, session in sessions.items():
            # One thread: its processor time is its own, whoever else is on the machine.
            began = time.process_time()
            session.run(None, inputs[name])
            times[name].append(time.process_time() - began)
    kept = {name: spans[_WARM_UPS:] for name, spans in times.items()}
    return [
        Speed(name=name, seconds=median(spans), ratio=median(a / b for a, b in zip(spans, kept[BASELINE], strict=True)))
        for name, spans in kept.items()
    ]


def _session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _baseline() -> bytes:
    from workers.placement import Scaling
    from workers.zoo.initial import random_values
    from workers.zoo.yolov5 import SIZES, yolov5

    net = yolov5(BASELINE, SIZES["n"], "detect", _SIDE, 80)
    data: bytes = net.model(random_values(net, 0, Scaling()), {}).SerializeToString()
    return data


def _noise(session: Any) -> dict[str, Any]:
    one = session.get_inputs()[0]
    shape = [1, *one.shape[1:]]
    return {one.name: np.random.default_rng(0).random(shape, np.float32)}
