"""Asks OpenCV 4 (`cv2.dnn.readNetFromDarknet`, which OpenCV 5 does not have) and writes its answers to this folder.

In an environment of its own: `pip install -e . "opencv-python-headless<5"`, then
`python -m tests.darknet.make [FOLDER OF THE TEST DATA]`; without the folder only our own small cfgs are asked about.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.darknet import noise
from tests.darknet.cases import OURS, PICTURES, PUBLISHED, TRAINED, Case
from workers.zoo import cfg
from workers.zoo.layers import Network, Yolo
from workers.zoo.plan import plan

Array: TypeAlias = NDArray[np.float32]
#: After `workers`, which sets the limit of pixels that it decodes; type checkers see an OpenCV 5.
cv2: Any = importlib.import_module("cv2")
FOLDER = Path(__file__).parent
#: Positions of a head, and rows of its decoded boxes, that are kept.
HEAD_SAMPLE = 600
ROW_SAMPLE = 24
#: Least score, and overlap over which boxes of a class are one, of the pictures' detections.
CONFIDENCE = 0.25
IOU = 0.45


class Oracle:
    """A network as OpenCV reads it, its thresholds off: scores under 0.2 would be 0."""

    def __init__(self, text: str, weights: bytes) -> None:
        off = text.replace("[yolo]", "[yolo]\nthresh=0\nnms_threshold=0")
        with tempfile.TemporaryDirectory() as folder:
            paths = Path(folder, "a.cfg"), Path(folder, "a.weights")
            paths[0].write_text(off, encoding="utf-8")
            paths[1].write_bytes(weights)
            self._net = cv2.dnn.readNetFromDarknet(*map(str, paths))

    def ask(self, image: Array, network: Network) -> tuple[list[Array], list[Array]]:
        """What each head is given (channels, height, width), and its rows in Darknet's order of anchors and cells,
        with centres and sizes in pixels of the input, objectness, and objectness x class scores."""
        self._net.setInput(image[None])
        indices = [index for index, layer in enumerate(network.layers) if isinstance(layer, Yolo)]
        names = [f"{kind}_{index}" for kind in ("permute", "yolo") for index in indices]
        answers = self._net.forward(names)
        given = [np.ascontiguousarray(answer[0].transpose(2, 0, 1)) for answer in answers[: len(indices)]]
        rows = [
            _rows(answer, head, network) for answer, head in zip(answers[len(indices) :], network.heads, strict=True)
        ]
        return given, rows


def _rows(answer: Array, head: Yolo, network: Network) -> Array:
    _, height, width = network.input
    anchors = len(head.anchors)
    ordered = answer.reshape(-1, anchors, answer.shape[-1]).transpose(1, 0, 2).reshape(-1, answer.shape[-1])
    return np.asarray(ordered * np.array([width, height, width, height, *[1] * (head.classes + 1)]), np.float32)


def sample(count: int, size: int) -> NDArray[np.int64]:
    """Indices that are kept of `count`: the same on every machine."""
    return np.sort(np.random.RandomState(0).permutation(count)[:size])


def write_case(case: Case, models: Path) -> None:
    text = case.cfg(models)
    network = plan(cfg.parse(text, case.name))
    image = noise.picture(case.seed, *network.input[1:])
    factors = noise.gains(network, case.seed, image)
    given, rows = Oracle(text, noise.weight_file(network, case.seed, factors)).ask(image, network)
    kept: dict[str, Any] = {"gains": factors}
    for number, (head, boxes) in enumerate(zip(given, rows, strict=True)):
        print(f"{case.name} head {number}: {head.shape}, std {head.std():.3f}, boxes {boxes[:, :4].max():.0f} at most")
        kept[f"head{number}"] = head.reshape(-1)[sample(head.size, HEAD_SAMPLE)]
        kept[f"std{number}"] = head.std()
        kept[f"rows{number}"] = boxes[sample(len(boxes), ROW_SAMPLE)]
    np.savez_compressed(FOLDER / f"{case.name}.npz", **kept)


def write_pictures(testdata: Path) -> None:
    """The detections of the trained models on the pictures: x1, y1, x2, y2 in pixels of the picture, score, class."""
    for name in TRAINED:
        models = testdata / "models"
        text = (models / f"{name}.cfg").read_text(encoding="utf-8")
        network = plan(cfg.parse(text, name))
        oracle = Oracle(text, (models / f"{name}.weights").read_bytes())
        kept: dict[str, Any] = {}
        for picture in PICTURES:
            image = cv2.imread(str(testdata / "images" / picture))
            _, height, width = network.input
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            planes = np.ascontiguousarray(small[..., ::-1].transpose(2, 0, 1), np.float32) / np.float32(255)
            rows = np.concatenate(oracle.ask(planes, network)[1])
            kept[picture] = found = _detections(rows, image.shape[1] / width, image.shape[0] / height)
            print(name, picture, found.round(2).tolist())
        np.savez_compressed(FOLDER / f"{name}-pictures.npz", **kept)


def _detections(rows: Array, x: float, y: float) -> Array:
    scores = rows[:, 5:].max(axis=1)
    rows, scores = rows[scores > CONFIDENCE], scores[scores > CONFIDENCE]
    classes = rows[:, 5:].argmax(axis=1)
    boxes = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]], axis=1) * [x, y, x, y]
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), scores.tolist(), classes.tolist(), CONFIDENCE, IOU)
    boxes[:, 2:] += boxes[:, :2]
    return np.asarray(np.column_stack([boxes, scores, classes])[kept], np.float32)


def main() -> None:
    print("OpenCV", cv2.__version__)
    testdata = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for case in OURS:
        write_case(case, Path())
    if testdata is not None:
        for case in PUBLISHED:
            write_case(case, testdata / "models")
        write_pictures(testdata)


if __name__ == "__main__":
    main()
