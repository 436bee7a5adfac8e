"""Classifiers that score each class for itself: their graph ends in a sigmoid, and no class is one of several."""

from __future__ import annotations

from typing import Any, Final

from workers.errors import ModelError

#: What makes scores from 0 to 1 that need not sum to 1; the last is onnxruntime's own, in int8.
_INDEPENDENT: Final = ("Sigmoid", "HardSigmoid", "QLinearSigmoid")
#: What hands on the numbers of its first input, in another shape or type.
_PASSING: Final = (
    "Cast",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


def refuse(model: Any, where: str) -> None:
    """Raises ModelError where the first output of an onnx.ModelProto, a classifier's, is made by a sigmoid: a softmax
    on top would answer what the model never said."""
    kind = last(model)
    if kind in _INDEPENDENT:
        raise ModelError(
            f"{where}: ends in a {kind}: a score for each class apart, which need not sum to 1; such classifiers are"
            " not supported. Train one for classes that exclude each other (ok, bad), or export it with a softmax or"
            " with logits"
        )


def last(model: Any) -> str:
    """The operator that makes the first output, whatever reshapes or casts it after; "" where none does."""
    makers = {output: node for node in model.graph.node for output in node.output}
    name = model.graph.output[0].name if model.graph.output else ""
    # Each step takes one node out, so that a circle of a broken file ends.
    while (node := makers.pop(name, None)) is not None:
        if node.op_type not in _PASSING or not node.input:
            return str(node.op_type)
        name = node.input[0]
    return ""
