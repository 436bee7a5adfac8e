"""What a model file is taken for, where it is looked for, and what flags and line files say about it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from broker.line import Line, parse
from tests.small_graphs import FLAT, GEMM, graph, weights
from workers import coco, metadata, store, tiny
from workers import describe as describing
from workers.engine import Shape, Signature
from workers.engine.fake import Fake, FakeEngine
from workers.engine.onnx import OnnxEngine
from workers.errors import ModelError
from workers.flags import Flags, hints, least_score, model_options
from workers.layout import Layout
from workers.model import Hints, Model, describe
from workers.options import ModelOptions
from workers.runner import Runner
from workers.settings import Settings
from workers.zoo.catalogue import find
from workers.zoo.making import Order, make

LINE = """
[stations.s]
[cameras.c]
station = "s"
[models.det]
file = "models/det.onnx"
threads = 2
max_batch = 4
max_delay = 0.01
[models.fake]
file = "fake:batch=2"
[models.bare]
[routes.c]
models = ["det", "fake", "bare"]
"""


def signature(*outputs: Shape, size: tuple[int | None, int | None] = (640, 640), **metadata: str) -> Signature:
    return Signature((None, 3, *size), outputs, "0" * 64, metadata)


def described(*outputs: Shape, hints: Hints | None = None, **more: Any) -> Model:
    return describe(signature(*outputs, **more), hints or Hints(), "m.onnx")


def refused(*outputs: Shape, match: str, **more: Any) -> None:
    with pytest.raises(ModelError, match=match):
        described(*outputs, **more)


DETECTOR: Shape = (1, 25200, 85)


def test_detector() -> None:
    model = described(DETECTOR)
    assert (model.task, model.names, model.size, model.fit) == ("detect", coco.NAMES, (640, 640), "letterbox")
    assert (model.scaling.mean, model.scaling.std) == ((0, 0, 0), (255, 255, 255))


def test_segmenter_counts_its_coefficients() -> None:
    model = described((1, 25200, 117), (1, 32, 160, 160))
    assert (model.task, len(model.names)) == ("segment", 80)


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("task", "detect, segment, classify; say --task"),
        ("gongwei.fit", "letterbox, stretch, crop; say --fit"),
        ("gongwei.layout", "yolov5, yolov8; say --layout"),
        ("gongwei.weights", "random; make the file again"),
        ("gongwei.precision", "fp32, fp16, int8; make it again"),
    ],
)
def test_a_word_that_metadata_does_not_know_is_told_in_short(key: str, known: str) -> None:
    refused(DETECTOR, match=rf"^m\.onnx: its metadata says {key} '{'x' * 80}'; known: {known}$", **{key: "x" * 9999})


def test_detector_of_symbolic_rows_and_batch() -> None:
    assert described((None, None, 7), names="{0: 'good', 1: 'bad'}").names == ("good", "bad")


def test_random_weights_are_known_by_the_file_and_another_word_is_refused() -> None:
    assert not described(DETECTOR).random
    said: dict[str, Any] = {"gongwei.weights": "random"}
    assert described(DETECTOR, **said).random
    refused(DETECTOR, match=r"gongwei.weights 'Random'; known: random", **dict.fromkeys(said, "Random"))


def test_coco_has_80_different_names() -> None:
    assert len(set(coco.NAMES)) == 80


ULTRALYTICS: dict[str, Any] = {"author": "Ultralytics", "version": "8.3.0", "task": "detect", "stride": "32"}


def test_yolov8_is_known_by_its_shape() -> None:
    model = described((1, 84, 8400))
    assert (model.task, model.layout, model.names) == ("detect", "yolov8", coco.NAMES)
    model = described((1, 116, 8400), (1, 32, 160, 160))
    assert (model.task, model.layout, model.names) == ("segment", "yolov8", coco.NAMES)
    assert described((1, 84, 6300), size=(480, 640)).layout == "yolov8"
    assert described(DETECTOR).layout == "yolov5"
    assert described((1, 6300, 85), size=(320, 320)).layout == "yolov5"


def test_yolov8_is_known_by_its_names_or_by_its_exporter_where_boxes_are_open_or_few() -> None:
    open_boxes: Shape = (None, 6, None)
    assert described(open_boxes, names="['a', 'b']").layout == "yolov8"
    said = Hints(names=("a", "b"))
    assert described(open_boxes, hints=said, **ULTRALYTICS).layout == "yolov8"
    # 64 x 64 pixels have 84 cells: YOLOv5 would have 79 classes, and YOLOv8 80.
    assert described((1, 84, 84), size=(64, 64), names=str(list(coco.NAMES))).layout == "yolov8"
    assert described((1, 84, 84), size=(64, 64), names=str([f"c{number}" for number in range(79)])).layout == "yolov5"
    assert described((1, 84, 21), size=(32, 32), **ULTRALYTICS).layout == "yolov8"


def test_a_person_or_our_metadata_says_the_layout_where_both_could_be() -> None:
    names = Hints(names=tuple(f"c{number}" for number in range(5)))
    refused((1, 9, 10), match="say --layout", hints=names, size=(320, 320))
    layouts: list[Layout] = ["yolov5", "yolov8"]
    for layout in layouts:
        said: dict[str, Any] = {"gongwei.layout": layout}
        assert described((1, 9, 10), hints=names, size=(320, 320), **said).layout == layout
        said = {"names": str(list(coco.NAMES[:5]))}
        assert described((1, 9, 10), hints=Hints(layout=layout), size=(320, 320), **said).layout == layout
    refused(DETECTOR, match="known: yolov5, yolov8; say --layout", **{"gongwei.layout": "yolov6"})
    refused(
        DETECTOR, match=r"is not YOLOv8's \[batch, 4 \+ classes, boxes\]: export such", hints=Hints(layout="yolov8")
    )


def test_exports_that_sort_out_their_boxes_themselves_are_refused_with_how_to_export() -> None:
    refused((1, 300, 6), match="export it with nms=False end2end=False", **ULTRALYTICS, end2end="True")
    refused((1, 300, 6), match="export it with nms=False", **ULTRALYTICS, args="{'batch': 1, 'nms': True}")
    refused((1, 300, 84), match="is not YOLOv8's", **ULTRALYTICS)  # RT-DETR


@pytest.mark.parametrize("text", ["['good', 'bad']", "{1: 'bad', 0: 'good'}"])
def test_names_as_ultralytics_writes_them(text: str) -> None:
    assert described((1, 100, 7), names=text).names == ("good", "bad")


@pytest.mark.parametrize(
    "text", ["nonsense", "{0: 'a', 5: 'b'}", "__import__('os')", "[]", "[" * 5000, "7", "[0x" + "f" * 9999 + "]"]
)
def test_names_that_cannot_be_read(text: str) -> None:
    refused((1, 100, 7), match="--labels", names=text)


@pytest.mark.parametrize("text", [r"['\ud800', 'b']", r"{0: 'a', 1: 'b\udfff'}"])
def test_names_that_are_no_text_are_refused(text: str) -> None:
    refused((1, 100, 7), match=r"metadata's name .*\\u\w{4}' is no text; give the names with --labels", names=text)
    said = Hints(names=("a", "b"))
    assert described((1, 100, 7), hints=said, names=text).names == ("a", "b")


def test_what_is_unknown_is_asked_for() -> None:
    refused((1, 100, 7), match="2 classes and no names.*--labels")
    refused((1, 100, 7), match="2 classes, but 3 names", names="['a', 'b', 'c']")
    refused((1, 100, None), match=r"YOLOv5's .* or YOLOv8's .*: say --layout")
    refused((1, 10, 12), match=r"say --layout yolov5 or --layout yolov8")
    refused((1, 100, 4), match=r"not YOLOv5's .* nor YOLOv8's .*: export such a model")
    refused((None, None, None), match="export such a model")
    refused((1, 25200, 85), (None, None, 160, 160), match="prototypes is not fixed")
    refused((1, 2, 3, 4, 5), match="no known task.*--task")
    refused(DETECTOR, match="'pose'.*known: detect", task="pose")
    refused(DETECTOR, match="--size", size=(None, None))
    refused((1, 10), match="--mean.*--std.*--fit")
    refused((1, 10), match="not a list of numbers", **{"gongwei.mean": "x"})
    refused((1, 10), match="--fit", **{"gongwei.fit": "twist"})


def test_what_a_classifier_lacks_is_asked_for_at_once() -> None:
    refused((1, 10), match="--mean.*--std.*--fit.*; and: has 10 classes and no names.*--labels")
    refused((1, 10), match="--fit.*; and: .*--labels.*; and: its input size .*--size", size=(None, None))
    refused((1, 10), match="--fit.*; and: has 10 classes, but 1 name; .*--labels", names="['a']")
    said = Hints(mean=(0,), std=(1,), fit="crop")
    refused((1, 10), match="^m.onnx: has 10 classes and no names; [^;]*$", hints=said)


def test_ultralytics_classifier_needs_no_flags() -> None:
    model = described((1, 2), task="classify", names="['a', 'b']")
    assert (model.fit, model.scaling.mean, model.scaling.std) == ("crop", (0, 0, 0), (255, 255, 255))


def test_a_classifier_of_one_class_is_refused(tmp_path: Path) -> None:
    refused((1, 1), match="needs two classes or more", task="classify", names="['bad']")
    assert described((1, 100, 6), names="['bad']").names == ("bad",), "a detector finds it or not"
    model = graph([*FLAT, GEMM], {"w": weights(3, 1)}, [1, 1])
    onnx.save(model, tmp_path / "one.onnx")
    with pytest.raises(ModelError, match="needs two classes or more"):
        describing.describe(tmp_path / "one.onnx", tmp_path / "out.onnx", Hints(names=("bad",)))
    assert not (tmp_path / "out.onnx").exists()
    with pytest.raises(ModelError, match="has 2 to"):
        make(Order(kind=find("mobilenetv2"), size=(32, 32), classes=1))


def test_hints_win() -> None:
    said = Hints(task="classify", names=("x", "y"), size=(32, 48), mean=(1,), std=(2, 3, 4), fit="stretch")
    model = described((1, 2), hints=said, size=(None, None), names="['a', 'b']", task="detect")
    assert (model.task, model.names, model.size, model.fit) == ("classify", ("x", "y"), (32, 48), "stretch")
    assert (model.scaling.mean, model.scaling.std) == ((1, 1, 1), (2, 3, 4))


def test_size_from_metadata() -> None:
    assert described(DETECTOR, size=(None, None), imgsz="[320, 416]").size == (320, 416)


@pytest.mark.parametrize(("fixed", "told"), [((32, 32), "32x32"), ((None, 32), "anyx32")])
def test_another_size_than_the_fixed_one_is_refused(fixed: tuple[int | None, int | None], told: str) -> None:
    with pytest.raises(ModelError, match=f"its input is fixed at {told}; leave --size out"):
        describe(signature((1, 3, 9), size=fixed), Hints(size=(64, 64), names=("a", "b", "c", "d")), "m")


def test_std_of_zero_is_refused() -> None:
    refused((1, 2), match="more than 0", hints=Hints(names=("a", "b"), mean=(0,), std=(0,), fit="crop"))


def test_a_mean_that_is_no_number_is_refused() -> None:
    refused((1, 2), match="finite", hints=Hints(names=("a", "b"), mean=(float("nan"),), std=(1,), fit="crop"))


def test_describe_keeps_what_the_weights_are(tmp_path: Path) -> None:
    source, target = tmp_path / "zoo.onnx", tmp_path / "copy.onnx"
    source.write_bytes(make(Order(kind=find("yolov5n"), size=(64, 64), classes=2)).SerializeToString())
    describing.describe(source, target, Hints(names=("a", "b"), layout="yolov5"))
    signature = OnnxEngine.load(target, threads=1).signature
    model = describe(signature, Hints(), "copy")
    assert (model.random, model.names, signature.metadata["gongwei.layout"]) == (True, ("a", "b"), "yolov5")


def test_describe_writes_what_the_worker_reads(tmp_path: Path) -> None:
    source, target = tmp_path / "tiny.onnx", tmp_path / "out" / "ready.onnx"
    tiny.make(source)
    said = Hints(names=("a", "b", "c", "d"), mean=(1.5,), std=(2, 3, 4), fit="stretch")
    metadata = describing.describe(source, target, said)
    model = describe(OnnxEngine.load(target, threads=1).signature, Hints(), "ready")
    assert (model.names, model.fit) == (("a", "b", "c", "d"), "stretch")
    assert (model.scaling.mean, model.scaling.std) == ((1.5, 1.5, 1.5), (2, 3, 4))
    assert metadata["task"] == "detect", "what the file said and nobody contradicted stays"
    onnx.checker.check_model(onnx.load(target))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_describe_refuses_names_that_are_not_as_many_as_the_classes(tmp_path: Path, count: int) -> None:
    source, target = tmp_path / "tiny.onnx", tmp_path / "out" / "ready.onnx"
    tiny.make(source)
    with pytest.raises(ModelError, match=rf"tiny\.onnx: has 4 classes, but {count} names?; .*--labels FILE"):
        describing.describe(source, target, Hints(names=("a", "b", "c", "d", "e")[:count]))
    assert not target.parent.exists()


def test_describe_takes_names_where_the_file_leaves_the_classes_open(tmp_path: Path) -> None:
    source, target = tmp_path / "open.onnx", tmp_path / "ready.onnx"
    tiny.make(source)
    model = onnx.load(source)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "columns"
    onnx.save(model, source)
    assert describing.describe(source, target, Hints(names=("a",)))["names"] == "{0: 'a'}"


def test_describe_of_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\xff\xff not a model")
    with pytest.raises(ModelError, match=r"x\.onnx"):
        describing.describe(tmp_path / "x.onnx", tmp_path / "y.onnx", Hints())


# --- where files are -------------------------------------------------------------------------------------------------


@pytest.fixture
def line() -> Line:
    return parse(LINE)


def options(word: str, line: Line | None = None, folder: Path | None = None, **flags: Any) -> Any:
    return model_options(word, Flags(**flags), line, folder or Path())


def test_line_file_says_file_and_sizes(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "models" / "det.onnx"
    path.parent.mkdir()
    path.touch()
    found = options("det", line, tmp_path)
    assert (found.source, found.threads, found.max_batch, found.max_delay) == (path, 2, 4, 0.01)
    assert options("fake", line, tmp_path).source == Fake(batch=2)


def test_flags_win_over_the_line_file(line: Line, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.touch()
    found = options(f"det={other}", line, tmp_path, threads=1, max_batch=8, max_delay=0.0)
    assert (found.source, found.threads, found.max_batch, found.max_delay) == (other, 1, 8, 0.0)


RUN_OPTIONS = """
device = "cuda"
confidence = 0.1
iou = 0.6
engine_threads = 3
"""


def run_options(found: Any) -> tuple[Any, ...]:
    return found.device, *thresholds(found, Settings()), found.engine_threads


def test_run_options_are_the_flags_else_the_line_files_else_the_defaults() -> None:
    line = parse(LINE.replace('file = "fake:batch=2"', f'file = "fake:"{RUN_OPTIONS}'))
    assert run_options(options("fake", line)) == ("cuda", 0.1, 0.6, 3)
    said: dict[str, Any] = {"device": "cpu", "confidence": 0.0, "iou": 0.0, "engine_threads": 0}
    assert run_options(options("fake", line, **said)) == ("cpu", 0.0, 0.0, 0)
    assert run_options(options("fake", parse(LINE))) == ("cpu", 0.25, 0.45, 0)
    assert run_options(options("other=fake:", line)) == ("cpu", 0.25, 0.45, 0)
    assert run_options(options("other=fake:")) == ("cpu", 0.25, 0.45, 0)


def test_thresholds_of_the_file_hold_where_nobody_says_others() -> None:
    settings = Settings(confidence=0.4, iou=0.6)
    assert thresholds(options("m=fake:"), settings) == (0.4, 0.6)
    assert thresholds(options("m=fake:", confidence=0.7, iou=0.1), settings) == (0.7, 0.1)
    line = parse(SCORES)
    assert thresholds(options("both", line), settings) == (0.05, 0.6), "a rule waits for 0.05"
    assert thresholds(options("upper=fake:", line), settings) == (0.4, 0.6)
    assert thresholds(options("upper=fake:", line), Settings(confidence=0.9)) == (0.6, 0.45)


def thresholds(asked: ModelOptions, settings: Settings) -> tuple[float, float]:
    """What a worker goes by that is asked for `asked`, of a file with `settings`."""
    engine = FakeEngine(Fake())
    runner = Runner(engine, replace(describe(engine.signature, Hints(), "m"), settings=settings), asked)
    return runner.confidence, runner.iou


SCORES = """
[stations.low.rules]
ng = ["scratch"]
least_score = 0.05
[stations.high.rules]
ng = ["scratch"]
least_score = 0.6
[stations.none]
[cameras.a]
station = "low"
[cameras.b]
station = "high"
[cameras.c]
station = "none"
[models.both]
file = "fake:"
[models.upper]
[models.unruled]
[models.unseen]
[routes.a]
models = ["both"]
[routes.b]
models = ["both", "upper"]
[routes.c]
models = ["unruled"]
"""


def test_no_rule_waits_for_a_score_that_the_worker_cuts() -> None:
    line = parse(SCORES)
    least = {model: least_score(line, model) for model in line.models}
    assert least == {"both": 0.05, "upper": 0.6, "unruled": 1.0, "unseen": 1.0}
    assert least_score(None, "both") == 1.0
    found = {model: thresholds(options(f"{model}=fake:", line), Settings())[0] for model in line.models}
    assert found == {"both": 0.05, "upper": 0.25, "unruled": 0.25, "unseen": 0.25}
    said = parse(SCORES.replace('file = "fake:"', 'file = "fake:"\nconfidence = 0.3'))
    assert thresholds(options("both", said), Settings())[0] == 0.3, "who says it, means it"
    assert thresholds(options("both", line, confidence=0.5), Settings())[0] == 0.5


def test_store_and_this_folder(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "bare.onnx").touch()
    assert options("bare", line, store=kept).source == kept / "bare.onnx"
    (tmp_path / "bare.onnx").touch()
    assert options("bare", line, store=kept).source == Path("bare.onnx")


def test_a_missing_model_says_how_to_bring_it(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError,
        match=r"(?s)looked for.*bare\.onnx.*workers import FILE\.onnx --name bare.*export\.py.*--model bare=",
    ):
        options("bare", line, store=tmp_path)
    with pytest.raises(ModelError, match=r"models/det\.onnx|models\\det\.onnx"):
        options("det", line, tmp_path)
    with pytest.raises(ModelError, match="no such file"):
        options("det=nowhere.onnx", line, tmp_path)


@pytest.mark.parametrize("name", ["", "../etc", "A", "a/b", "a b", "x" * 65])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ModelError, match="is no model name"):
        options(f"{name}=fake:")


def test_default_store_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert store.default_store() == tmp_path / "gongwei" / "models"


# --- flags -----------------------------------------------------------------------------------------------------------


def said(**words: Any) -> Hints:
    return hints(**(dict.fromkeys(["task", "labels", "size", "mean", "std", "fit"]) | words))


def test_flags_are_read(tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("\ufeffgood\nbad one\n\n", encoding="utf-8")
    found = said(task="detect", labels=labels, size="320x416", mean="1,2,3", std="4", fit="crop", layout="yolov8")
    assert found == Hints(
        task="detect",
        names=("good", "bad one"),
        size=(320, 416),
        mean=(1, 2, 3),
        std=(4,),
        fit="crop",
        layout="yolov8",
    )
    assert said() == Hints()


@pytest.mark.parametrize(
    "words",
    [
        {"task": "pose"},
        {"size": "640"},
        {"size": "0x5"},
        {"mean": "1,2"},
        {"std": "one"},
        {"fit": "fill"},
        {"layout": "v8"},
    ],
    ids=str,
)
def test_flags_that_cannot_be_are_named(words: dict[str, str]) -> None:
    (flag,) = words
    with pytest.raises(ModelError, match=f"--{flag} "):
        said(**words)


def test_labels_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--labels"):
        said(labels=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty; write one name"),
        ("\n \r\n", "is empty; write one name"),
        ("\ufeff", "is empty; write one name"),
        ("good\n\nbad\n", ":2: an empty line"),
        ("\ngood", ":1: an empty line"),
    ],
)
def test_labels_without_a_name_are_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ModelError, match=f"--labels .*names.*{told}"):
        said(labels=tmp_path / "names")


def test_labels_end_at_line_feeds_alone(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("go\u2028od\r\nb\x0cad\n\n", encoding="utf-8", newline="")
    assert said(labels=tmp_path / "names").names == ("go\u2028od", "b\x0cad")


def test_names_that_are_none_are_not_forgotten() -> None:
    refused((1, 25200, 85), match="has 80 classes, but 0 names", hints=Hints(names=()))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("ab", ""),
        ("aba", "classes 0, 2 are all called 'a': rules"),
        (
            "babbabbb",
            r"classes 0, 2, 3, 5, 6, \.\.\. are all called 'b' \(further names of several classes: 1\): rules",
        ),
    ],
)
def test_namesakes_are_told(names: str, told: str) -> None:
    assert re.match(told or "$", metadata.namesakes(tuple(names)))


@pytest.mark.parametrize("text", ["inf,inf", "nan,640", "-640,640", "0,640", "640.5,640", "1e300,1", "99999,640"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="imgsz"):
        describe(Signature((1, 3, None, None), ((1, None, 85),), "", {"imgsz": text}), Hints(), "file")


@pytest.mark.parametrize("text", ["{1: 'a', 'x': 'b'}", "{[]: 1}", "{0: 'a', None: 'b'}", "{0.5: 'a', 1: 'b'}"])
def test_names_by_keys_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="names cannot be read"):
        describe(Signature((1, 3, 640, 640), ((1, None, 7),), "", {"names": text}), Hints(), "file")


@pytest.mark.parametrize("text", ["nan", "inf,1,1", "1e999"])
def test_a_scaling_that_is_no_number_is_refused(text: str) -> None:
    # With it every input would be NaN, and a model that answers nothing for NaN "finds nothing".
    with pytest.raises(ModelError, match="is not a list of numbers"):
        describe(Signature((1, 3, 640, 640), ((1, None, 85),), "", {"gongwei.mean": text}), Hints(), "file")
