"""What the demo models, and a threshold beside them, say of parts whose defects are known."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import msgspec
import numpy as np
from msgspec import Struct

from broker.line import Rules
from broker.verdict import judge
from broker.wire import Verdict
from clients.synthetic import Part, SyntheticCamera
from clients.workpiece import Defect, Image
from ops.bench import threshold
from ops.bench.precision import Claim, Sight
from ops.errands import Errands, serve, share_out
from workers import shipped
from workers.options import ModelOptions
from workers.runner import Runner

#: Least score of a detection that counts for average precision; verdicts have the thresholds of the models.
LEAST_SCORE: Final = 0.01
#: Share of the parts that have a defect: as many that can be missed as can be false alarms.
DEFECT_RATE: Final = 0.5


class Flaw(Struct, frozen=True):
    """A defect of a part: its class, its pixels, its contrast in grey levels."""

    name: str
    area: float
    contrast: float


class Record(Struct, frozen=True, kw_only=True):
    """One part: its defects, what detector and segmenter claim, and who calls it bad. `located`: for
    each defect, who saw something where it is."""

    defects: tuple[Flaw, ...]
    sights: dict[str, Sight]
    verdict: Verdict
    bad: dict[str, bool]
    located: tuple[frozenset[str], ...]


class Examiner:
    """Draws parts of the held-out world and asks the models of a folder. Loads them at once: raises EngineError."""

    def __init__(self, folder: Path, seed: int) -> None:
        cv2.setNumThreads(1)
        self._camera = SyntheticCamera(seed, defect_rate=DEFECT_RATE)
        self._runners: dict[str, Runner] = {}
        for name in shipped.NAMES:
            options = ModelOptions(name=name, source=folder / f"{name}.onnx", confidence=LEAST_SCORE)
            self._runners[name] = Runner.load(options, 1)
            self._runners[name].warm_up()
        self._confidences = {name: shipped.confidence(folder / f"{name}.onnx") for name in shipped.NAMES}

    def examine(self, number: int) -> Record:
        """Look at part `number`."""
        part = self._camera.part(number)
        answers = {name: runner.look(part.image) for name, runner in self._runners.items()}
        spots = threshold.inspect(part.image)
        kept = {name: confident(answer, self._confidences[name]) for name, answer in answers.items()}
        bad = {name: verdict({name: answer}) == "ng" for name, answer in kept.items()}
        return Record(
            defects=tuple(Flaw(defect.name, defect.area, defect.contrast) for defect in part.truth),
            sights={name: _sight(part, answers[name]["detections"]) for name in ("demo-det", "demo-seg")},
            verdict=verdict(kept),
            bad=bad | {"threshold": bool(spots)},
            located=tuple(_located(defect, kept, spots) for defect in part.truth),
        )


def examine(folder: Path, parts: int, seed: int, processes: int = 0) -> Iterator[Record]:
    """Records of parts 0 to `parts`, as they come; `processes` 0: as many as there are cores.

    Raises ErrandError when a process cannot load the models.
    """
    count = min(parts, processes or os.cpu_count() or 1)
    with Errands([sys.executable, "-m", "ops.bench.examination", str(folder), str(seed)], count) as crew:
        for line in share_out(crew, [str(number) for number in range(parts)]):
            yield msgspec.json.decode(line, type=Record)


def main() -> None:
    """A process that examines parts: FOLDER SEED NUMBER, and the parts' numbers on standard input."""
    examiner = Examiner(Path(sys.argv[1]), int(sys.argv[2]))
    serve(lambda line: msgspec.json.encode(examiner.examine(int(line))).decode())


# --- answers ---------------------------------------------------------------------------------------------------------


def verdict(answers: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """What the demo's station says of a part."""
    return judge(Rules(ng=list(shipped.NG)), answers, sorted(answers))


def confident(answer: Mapping[str, Any], least: float) -> dict[str, Any]:
    """The answer as a worker gives it that reports detections from `least` on."""
    if "detections" not in answer:
        return dict(answer)
    return dict(answer) | {"detections": [one for one in answer["detections"] if one["score"] >= least]}


def _sight(part: Part, detections: Sequence[Mapping[str, Any]]) -> Sight:
    overlap = _mask_overlap if any("polygons" in one for one in detections) else _box_overlap
    claims = [
        Claim(one["name"], one["score"], tuple(overlap(one, defect, part.image) for defect in part.truth))
        for one in sorted(detections, key=lambda one: -one["score"])
    ]
    return Sight(tuple(defect.name for defect in part.truth), tuple(claims))


def _box_overlap(detection: Mapping[str, Any], defect: Defect, picture: Image) -> float:
    if detection["name"] != defect.name:
        return 0.0
    shared = _shared(detection["box"], defect.box)
    return shared / (_area(detection["box"]) + _area(defect.box) - shared)


def _mask_overlap(detection: Mapping[str, Any], defect: Defect, picture: Image) -> float:
    """Of the outlines as the worker sends them, on the picture's pixels."""
    if detection["name"] != defect.name or not _shared(detection["box"], defect.box):
        return 0.0
    claimed, real = (np.zeros(picture.shape[:2], np.uint8) for _ in range(2))
    cv2.fillPoly(real, [defect.polygon.astype(np.int32)], 1)
    outlines = [np.array(polygon, np.int32).reshape(-1, 2) for polygon in detection["polygons"]]
    if outlines:
        cv2.fillPoly(claimed, outlines, 1)
    shared = cv2.countNonZero(claimed & real)
    return shared / max(1, cv2.countNonZero(claimed | real))


def _located(
    defect: Defect, answers: Mapping[str, Mapping[str, Any]], spots: Sequence[threshold.Spot]
) -> frozenset[str]:
    found = {
        name
        for name, answer in answers.items()
        for one in answer.get("detections", ())
        if _shared(one["box"], defect.box) > 0
    }
    if any(_shared(spot.box, defect.box) > 0 for spot in spots):
        found.add("threshold")
    return frozenset(found)


def _shared(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


if __name__ == "__main__":
    main()
