"""ONNX files as they lie on a disk: read, and what they say about themselves, without an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from broker.model_file import version
from workers.engine import Shape, Signature
from workers.errors import ModelError
from workers.metadata import Precision


def load(path: Path, *, weights: bool = True) -> Any:
    """The onnx.ModelProto; `weights`: also those that lie in files of their own. Raises ModelError."""
    try:
        model = onnx.load(path, load_external_data=weights)
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename or path}: there is no such file") from None
    # What a broken file makes onnx raise has no common class: protobuf's, ValueError, onnx.checker's.
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: cannot be read as ONNX: {error}") from None
    garbled = next((text for text in _texts(model) if _is_garbled(text)), None)
    if garbled is not None:
        raise ModelError(f"{path}: cannot be read as ONNX: {garbled!r:.80} is not UTF-8; copy the file again")
    return model


def _texts(message: Any) -> Iterator[Any]:
    """Every string of the message, names and metadata. Protobuf lets pass what is not UTF-8, and other code trips."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str | bytes) else value
        elif field.type == field.TYPE_MESSAGE:
            for one in [value] if hasattr(value, "ListFields") else value:
                yield from _texts(one)


def _is_garbled(text: Any) -> bool:
    return isinstance(text, bytes) or any("\ud800" <= letter <= "\udfff" for letter in text)


def content(model: Any, where: str) -> bytes:
    """The file's bytes, the same for the same model. Raises ModelError beyond the 2 GB that an ONNX file may have."""
    try:
        written: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf's EncodeError, or ValueError, by its version
        raise ModelError(f"{where}: does not fit into one ONNX file (2 GB): {error}") from None
    return written


def sha256(path: Path) -> str:
    """Hex digits; of an ONNX file also over the weights in files of their own. Raises ModelError."""
    try:
        return version(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


def metadata(model: Any) -> dict[str, str]:
    """What its exporter, or we, wrote into the file."""
    return {entry.key: entry.value for entry in model.metadata_props}


def signature(model: Any) -> Signature:
    """As an engine tells it, but for the sha256, which is empty. Raises ModelError for other inputs than pictures."""
    inputs = data_inputs(model)
    if len(inputs) != 1 or len(shape(inputs[0])) != 4:
        found = ", ".join(f"{one.name} {list(shape(one))}" for one in inputs)
        raise ModelError(f"needs one input [batch, 3, height, width], has {found or 'none'}; export it like that")
    outputs = tuple(shape(output) for output in model.graph.output)
    return Signature(shape(inputs[0]), outputs, "", metadata(model))


def data_inputs(model: Any) -> list[Any]:
    """The inputs that are no weights: files before ONNX's IR version 4 list those, too."""
    weights = {one.name for one in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in weights]


def shape(value: Any) -> Shape:
    """Symbolic and unknown dimensions are None."""
    sizes = (dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
    return tuple(size if size > 0 else None for size in sizes)


def precision(model: Any) -> Precision:
    """What its largest part of weights is computed in: int8 where layers are quantised, else fp16 or fp32."""
    kinds = {node.op_type for node in model.graph.node}
    if any(kind.startswith("QLinear") or kind in ("QuantizeLinear", "ConvInteger", "MatMulInteger") for kind in kinds):
        return "int8"
    half = sum(_numbers(one) for one in tensors(model) if one.data_type == TensorProto.FLOAT16)
    full = sum(_numbers(one) for one in tensors(model) if one.data_type == TensorProto.FLOAT)
    return "fp16" if half > full else "fp32"


def tensors(model: Any) -> Iterator[Any]:
    """Its weights and constants."""
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from (one.t for one in node.attribute if one.name == "value")


def _numbers(tensor: Any) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count
