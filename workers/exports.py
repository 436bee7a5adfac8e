"""An ONNX file into the folder of models: described, tidied, with any batch where that is proved."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from workers import batching, onnxfile, sigmoid, upgrade
from workers.describe import written
from workers.engine import Engine
from workers.engine.onnx import OnnxEngine
from workers.errors import EngineError, ModelError, UsageError
from workers.metadata import PRECISION, SOURCE, SOURCE_SHA256, namesakes
from workers.model import Hints, Model, describe
from workers.precision.wanted import AS_IT_COMES, Wanted
from workers.settings import MAX_BATCH, MAX_BATCH_REASON, Settings
from workers.store import keep
from workers.trial import COUNT, MOST, refusal

Colours: TypeAlias = Literal["rgb", "bgr"]

#: Metadata keys: Ultralytics' for the licence, and the order of colours that the input takes.
LICENCE: Final = "license"
COLOURS: Final = "gongwei.colours"
#: What an earlier import found out, which this one does again.
_STALE: Final = (MAX_BATCH, MAX_BATCH_REASON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person says about the file at `path`. `colours`: which order its input takes; `confidence`, `iou`: from 0
    to 1, for lines that say none; `licence`: a note; `wanted`: the precision;
    `replace`: an earlier model of that name."""

    path: Path
    name: str
    hints: Hints = field(default_factory=Hints)
    colours: Colours = "rgb"
    confidence: float | None = None
    iou: float | None = None
    licence: str | None = None
    wanted: Wanted = AS_IT_COMES
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """The model in the store; `notes`: what was done to it, for people."""

    name: str
    path: Path
    model: Model
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Form:
    """A graph that answers what the file answers, what was done for it, and how many pictures it takes (None: any)."""

    graph: Any
    notes: tuple[str, ...]
    most: int | None = None
    reason: str = ""


def colours(word: str) -> Colours:
    """Raises UsageError for another word."""
    if word == "rgb" or word == "bgr":
        return "rgb" if word == "rgb" else "bgr"
    raise UsageError(f"--colours {word}: rgb or bgr")


def bring(order: Order, store: Path) -> Exported:
    """Import the file. Raises ModelError or EngineError; then nothing is written."""
    path, name = order.path, order.name
    source = onnxfile.load(path)
    engine = _engine(path, source)
    try:
        model = describe(engine.signature, order.hints, str(path))
        if model.task == "classify":
            sigmoid.refuse(source, str(path))
        form = _formed(source, engine, model, order)
    finally:
        engine.close()
    settings = Settings(
        max_batch=form.most,
        reason=form.reason,
        confidence=model.settings.confidence if order.confidence is None else order.confidence,
        iou=model.settings.iou if order.iou is None else order.iou,
    )
    said = {key: value for key, value in onnxfile.metadata(source).items() if key not in _STALE}
    said |= _told(order, model) | {PRECISION: onnxfile.precision(source)} | settings.written()
    helper.set_model_props(form.graph, said)
    made = order.wanted.made(form.graph, str(path))
    kept = keep(name, onnxfile.content(made, str(path)), store, replace=order.replace)
    notes = (*form.notes, *filter(None, [namesakes(model.names)]))
    return Exported(name, kept, model, notes)


def _engine(path: Path, source: Any) -> OnnxEngine:
    """The file as it is; where onnxruntime minds its order or its names, tidied, which changes no answer."""
    try:
        return OnnxEngine.load(path, threads=0)
    except EngineError as error:
        with tempfile.TemporaryDirectory() as folder:
            tidy = Path(folder) / path.name
            tidy.write_bytes(onnxfile.content(upgrade.tidied(source), str(path)))
            try:
                return OnnxEngine.load(tidy, threads=0)
            except EngineError:
                raise error from None


def _formed(source: Any, engine: Engine, model: Model, order: Order) -> _Form:
    """The best form of the file that is proved; the first that cannot be says why."""
    flipped = order.colours == "bgr"
    tidy = upgrade.tidied(source)
    graph = _swapped(tidy) if flipped else tidy
    notes = ["nodes sorted"] if _order(tidy) != _order(source) else []
    notes += ["turns red, green, blue into blue, green, red itself"] if flipped else []
    opset, kept = upgrade.opset(graph), ""
    try:
        raised = upgrade.raised(graph)
        kept = "" if raised is graph else _refusal(raised, engine, model, 1, order)
    except ModelError as error:
        kept = str(error)
    if kept:
        notes.append(f"opset {opset} kept, so that later steps (fp16, int8) may refuse it: {kept}")
    elif raised is not graph:
        graph = raised
        notes.append(f"opset {opset} raised to {upgrade.opset(raised)}")
    return _batched(graph, tuple(notes), engine, model, order)


def _batched(graph: Any, notes: tuple[str, ...], engine: Engine, model: Model, order: Order) -> _Form:
    try:
        freed = batching.freed(graph)
        reason = _refusal(freed, engine, model, COUNT, order)
    except ModelError as error:
        reason = str(error)
    if not reason:
        return _Form(freed, (*notes, f"any batch: {COUNT} pictures at once get the answers that each gets alone"))
    fixed = min(model.batch or 1, MOST)
    most = fixed if fixed > 1 and not _refusal(graph, engine, model, fixed, order) else 1
    if most == MOST < (model.batch or 1):
        reason += f"; proved with {MOST} of the {model.batch} that it takes"
    if most == 1 and (wrong := _refusal(graph, engine, model, 1, order)):
        raise ModelError(f"{order.path}: cannot be brought into a form that answers like the file: {wrong}")
    return _Form(graph, (*notes, f"at most {most} at once: {reason}"), most, reason)


def _refusal(graph: Any, engine: Engine, model: Model, count: int, order: Order) -> str:
    content = onnxfile.content(graph, str(order.path))
    return refusal(engine, content, model, count=count, flipped=order.colours == "bgr")


def _told(order: Order, model: Model) -> dict[str, str]:
    """Everything that the worker goes by, so that no flag is needed any more; and where the file is from."""
    detector = model.task != "classify"
    whole = Hints(
        task=model.task,
        names=model.names,
        size=model.size,
        mean=model.scaling.mean,
        std=model.scaling.std,
        fit=model.fit,
        layout=model.layout if detector else None,
    )
    said = {COLOURS: "rgb", SOURCE: order.path.name, SOURCE_SHA256: onnxfile.sha256(order.path)}
    return written(whole) | said | ({LICENCE: order.licence} if order.licence else {})


def _order(model: Any) -> list[str]:
    """By what the nodes make."""
    return [name for node in model.graph.node for name in node.output]


def _swapped(model: Any) -> Any:
    """A copy that takes red, green, blue where `model` takes blue, green, red."""
    swapped = onnx.ModelProto()
    swapped.CopyFrom(model)
    (images,) = onnxfile.data_inputs(swapped)
    turned = f"{images.name}/bgr"
    for node in swapped.graph.node:
        for index, name in enumerate(node.input):
            if name == images.name:
                node.input[index] = turned
    order = numpy_helper.from_array(np.array([2, 1, 0], np.int64), f"{turned}/order")
    swapped.graph.initializer.append(order)
    gather = helper.make_node("Gather", [images.name, order.name], [turned], name=turned, axis=1)
    swapped.graph.node.insert(0, gather)
    return swapped
