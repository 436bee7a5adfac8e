"""ONNX files by onnxruntime, on the CPU or a CUDA device; inputs are not copied, outputs have buffers of their own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from broker.model_file import version
from workers.engine import Array, Shape, Signature
from workers.errors import EngineError
from workers.metadata import PRECISION

#: Name of a device on the command line -> onnxruntime's provider.
PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ERRORS_ONLY: Final = 3


class OnnxEngine:
    """One onnxruntime session with its output buffers. Make it with `load`."""

    def __init__(self, session: Any, signature: Signature, name: str) -> None:
        self.name = name
        self.signature = signature
        self._session = session
        self._input = session.get_inputs()[0]
        self._half = self._input.type == "tensor(float16)"
        self._outputs = [output.name for output in session.get_outputs()]
        #: By batch size, what its first run told: shape and dtype of every output.
        self._forms: dict[int, list[tuple[tuple[int, ...], np.dtype[Any]]]] = {}
        self._buffers: list[np.ndarray[Any, Any]] = [np.empty(0) for _ in self._outputs]

    @classmethod
    def load(cls, path: Path, *, threads: int, device: str = "cpu") -> OnnxEngine:
        """Load the file for `threads` threads inside one call. Raises EngineError."""
        provider = PROVIDERS.get(device)
        available = onnxruntime.get_available_providers()
        if provider not in available:
            known = [name for name, value in PROVIDERS.items() if value in available]
            raise EngineError(f"device {device!r} is not available to onnxruntime here; available: {', '.join(known)}")
        digest = _digest(path)
        try:
            session = onnxruntime.InferenceSession(str(path), _options(threads), providers=[provider])
        # onnxruntime's exceptions have no common class below Exception.
        except Exception as error:
            raise EngineError(f"{path}: onnxruntime cannot load it: {error}; export or copy the file again") from error
        signature = _signature(session, path, digest)
        return cls(session, signature, f"onnxruntime {onnxruntime.__version__} ({device}, {threads} threads)")

    def infer(self, batch: Array) -> list[Array]:
        """Run float32 [n, channels, height, width], C-contiguous. A file with a fixed batch takes fewer rows too."""
        count, fixed = len(batch), self.signature.input[0]
        if fixed is not None and count < fixed:
            batch = np.concatenate((batch, np.zeros((fixed - count, *batch.shape[1:]), np.float32)))
        feed = batch.astype(np.float16) if self._half else batch
        try:
            return [output[:count] for output in self._run(feed)]
        except Exception as error:  # see `load`
            raise EngineError(f"onnxruntime could not run a batch of {count}: {error}") from error

    def close(self) -> None:
        self._session = None
        self._buffers = []

    def _run(self, feed: np.ndarray[Any, Any]) -> list[Array]:
        forms = self._forms.get(len(feed))
        if forms is None:
            outputs = self._session.run(self._outputs, {self._input.name: feed})
            self._forms[len(feed)] = [(output.shape, output.dtype) for output in outputs]
            return [output.astype(np.float32, copy=False) for output in outputs]
        buffers = [self._buffer(index, shape, dtype) for index, (shape, dtype) in enumerate(forms)]
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input.name, onnxruntime.OrtValue.ortvalue_from_numpy(feed))
        for name, buffer in zip(self._outputs, buffers, strict=True):
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(buffer))
        self._session.run_with_iobinding(binding)
        return [buffer.astype(np.float32, copy=False) for buffer in buffers]

    def _buffer(self, index: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Room for output `index`: all batch sizes share it, so a fresh 8 MB need not be mapped at every call."""
        size = math.prod(shape)
        if self._buffers[index].size < size:
            self._buffers[index] = np.empty(size, dtype)
        return self._buffers[index][:size].reshape(shape)


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Threads that spin between two calls take the cores from decoding, and from the line's other processes: measured
    # on two cores, the same worker makes half the frames with it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _digest(path: Path) -> str:
    try:
        return version(path)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from None


def _signature(session: Any, path: Path, digest: str) -> Signature:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in ("tensor(float)", "tensor(float16)") or len(inputs[0].shape) != 4:
        found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise EngineError(f"{path}: needs one float input [batch, 3, height, width], has {found}; export it like that")
    outputs = tuple(_shape(output.shape) for output in session.get_outputs())
    said = {PRECISION: "fp16"} if inputs[0].type == "tensor(float16)" else {}
    return Signature(_shape(inputs[0].shape), outputs, digest, said | session.get_modelmeta().custom_metadata_map)


def _shape(dimensions: list[Any]) -> Shape:
    """Symbolic dimensions come as text, unknown ones as None."""
    return tuple(size if isinstance(size, int) and size > 0 else None for size in dimensions)
