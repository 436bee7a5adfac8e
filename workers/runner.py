"""A loaded model, ready to look at pictures: the same code for sessions, `workers check` and tests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from workers import masks, yolo
from workers.classify import are_probabilities, are_shares, softmax, top
from workers.engine import Engine
from workers.engine.fake import FakeEngine
from workers.engine.onnx import OnnxEngine
from workers.image import Picture
from workers.metadata import CALIBRATION
from workers.model import Model, describe
from workers.options import CONFIDENCE, IOU, ModelOptions
from workers.placement import Array, Placement, fill, place

#: Calls before the first job; the first ones are slower than any later one.
WARM_UPS: Final = 3


class Runner:
    """An engine and the meaning of its inputs and outputs. Used by one inference thread; `prepare` by any."""

    def __init__(self, engine: Engine, model: Model, options: ModelOptions) -> None:
        self.engine = engine
        self.model = model
        self.options = options
        limits = [options.max_batch, model.batch, model.settings.max_batch]
        #: Pictures in one call at most: what was asked for, or less where the file fixes or limits it.
        self.max_batch = min(limit for limit in limits if limit is not None)
        self.confidence, self.iou = _thresholds(model, options)
        #: Whether a classifier ends in its own softmax; seen at warm-up.
        self.probabilities = False
        self._table = model.scaling.table()

    @classmethod
    def load(cls, options: ModelOptions, engine_threads: int) -> Runner:
        """Load the model's file. Raises EngineError or ModelError."""
        engine: Engine
        if isinstance(options.source, Path):
            engine = OnnxEngine.load(options.source, threads=engine_threads, device=options.device)
        else:
            engine = FakeEngine(options.source)
        return cls(engine, describe(engine.signature, options.hints, str(options.source)), options)

    def warm_up(self) -> float:
        """Run noise a few times at every batch size that matters; the slowest call at `max_batch`, in seconds.

        Raises EngineError, and ModelError for a classifier that ends in a sigmoid.
        """
        noise = np.random.default_rng(0).random((self.max_batch, 3, *self.model.size), np.float32)
        slowest, rows = 0.0, []
        for count in {1, self.max_batch}:
            for _ in range(WARM_UPS):
                started = time.perf_counter()
                rows.append(self.engine.infer(noise[:count])[0].copy())
                slowest = max(slowest, time.perf_counter() - started)
        if self.model.task == "classify":
            self.probabilities = all(are_probabilities(row) for row in rows)
            if not self.probabilities and all(are_shares(row) for row in rows):
                self.refuse_sigmoid()
        return slowest

    def advice(self) -> str:
        """What a person should know who runs this model here; "" where there is nothing."""
        said = self.engine.signature.metadata
        # int8 of others may have nodes that a CPU computes in 8 bits; ours never has.
        slow = self.model.precision == "fp16" or (self.model.precision == "int8" and CALIBRATION in said)
        if not slow or self.options.device != "cpu":
            return ""
        return f"{self.model.precision} is slower than fp32 on a CPU, or no faster; run the model that it was made from"

    def place(self, picture: Picture) -> Placement:
        height, width = picture.shape[:2]
        return place((height, width), self.model.size, self.model.fit, antialias=self.model.task == "classify")

    def prepare(self, picture: Picture, out: Array) -> Placement:
        """Write the picture into `out`, float32 [3, height, width], as the model takes it."""
        placement = self.place(picture)
        fill(picture, placement, self._table, out)
        return placement

    def interpret(self, outputs: list[Array], row: int, placement: Placement) -> dict[str, Any]:
        """The result body of one picture of a batch, timings aside. Raises OutputError."""
        body: dict[str, Any] = {"task": self.model.task}
        match self.model.task:
            case "classify":
                body["classes"] = self._classes(outputs[0][row])
            case "detect":
                body["detections"] = self._detections(outputs[0][row], placement)
            case "segment":
                body["detections"] = self._segments(outputs[0][row], outputs[1][row], placement)
        if self.model.random:
            body["random"] = True
        return body

    def look(self, picture: Picture) -> dict[str, Any]:
        """The result body of a single picture."""
        batch = np.empty((1, 3, *self.model.size), np.float32)
        placement = self.prepare(picture, batch[0])
        return self.interpret(self.engine.infer(batch), 0, placement)

    def refuse_sigmoid(self) -> None:
        """Raises ModelError for a classifier whose graph ends in a sigmoid.

        Only the graph tells independent scores from small logits; warm-up reads it where the answers could be either,
        for onnx takes time and memory that no other worker spends.
        """
        from workers import onnxfile, sigmoid

        if isinstance(self.options.source, Path):
            sigmoid.refuse(onnxfile.load(self.options.source, weights=False), str(self.options.source))

    def _classes(self, scores: Array) -> list[dict[str, Any]]:
        probabilities = scores if self.probabilities else softmax(scores)
        return [
            {"class": index, "name": self.model.names[index], "score": round(score, 4)}
            for index, score in top(probabilities)
        ]

    def _detections(self, output: Array, placement: Placement) -> list[dict[str, Any]]:
        found = self._found(output)
        boxes = placement.to_frame(found.boxes)
        return [self._entry(found, index, box) for index, box in enumerate(boxes.tolist())]

    def _segments(self, output: Array, prototypes: Array, placement: Placement) -> list[dict[str, Any]]:
        found = self._found(output)
        boxes = placement.to_frame(found.boxes)
        return [
            self._entry(found, index, box.tolist()) | _outline(found.coefficients[index], prototypes, box, placement)
            for index, box in enumerate(boxes)
        ]

    def _found(self, output: Array) -> yolo.Detections:
        return yolo.detect(output, len(self.model.names), self.confidence, self.iou, self.model.layout)

    def _entry(self, found: yolo.Detections, index: int, box: list[float]) -> dict[str, Any]:
        number = int(found.classes[index])
        x1, y1, x2, y2 = box
        return {
            "class": number,
            "name": self.model.names[number],
            "score": round(float(found.scores[index]), 4),
            "box": [round(edge, 2) for edge in box],
            "area": round((x2 - x1) * (y2 - y1), 1),
        }


def _thresholds(model: Model, options: ModelOptions) -> tuple[float, float]:
    """Least score, and overlap of two boxes of one object: what a person says, else the file, else the usual."""
    said = model.settings
    confidence = CONFIDENCE if said.confidence is None else said.confidence
    iou = IOU if said.iou is None else said.iou
    confidence = min(confidence, options.least_score) if options.confidence is None else options.confidence
    return confidence, iou if options.iou is None else options.iou


def _outline(coefficients: Array, prototypes: Array, box: Array, placement: Placement) -> dict[str, Any]:
    inside, raster = masks.mask(coefficients, prototypes, box, placement)
    return {"area": round(masks.area(inside, raster), 1), "polygons": masks.polygons(inside, raster)}
