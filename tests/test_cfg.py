"""Darknet cfg texts: what they build, and what is refused, with section and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.errors import ModelError
from workers.zoo import cfg
from workers.zoo.layers import Convolution, Maxpool, Network, Route, Shortcut
from workers.zoo.plan import plan

NET = "[net]\nwidth=64\nheight=32\n"
CONV = "[convolutional]\nfilters=12\nsize=1\nactivation=linear\n"
YOLO = "[yolo]\nclasses=1\nnum=2\nmask=0,1\nanchors=4,5, 6,7\n"
LEAST = NET + CONV + YOLO


def network(text: str) -> Network:
    return plan(cfg.parse(text, "a.cfg"))


def test_least_network() -> None:
    found = network(LEAST)
    assert found.input == (3, 32, 64)
    assert [layer.shape for layer in found.layers] == [(12, 32, 64), (12, 32, 64)]
    assert found.floats == 12 + 12 * 3
    (head,) = found.heads
    assert (head.classes, head.anchors, head.spread, head.new_coords) == (1, ((4, 5), (6, 7)), 1.0, False)
    assert not found.letterbox
    assert network(LEAST.replace("[net]", "[net]\nletter_box=1")).letterbox


def test_blanks_comments_and_line_ends_are_passed_over() -> None:
    text = LEAST.replace("filters=12", " filters = 12 # twelve").replace("[yolo]", "; old\n\n [yolo] ")
    assert network(text.replace("\n", "\r\n")).heads[0].anchors == ((4, 5), (6, 7))


def test_layers_count_as_in_darknet() -> None:
    """From 0 without [net]; below 0, back from the layer itself."""
    two = CONV + CONV.replace("12", "8")
    text = NET + two + "[route]\nlayers=-1,0\ngroups=4\ngroup_id=3\n[shortcut]\nfrom=-1,-1\n" + CONV + YOLO
    _, _, route, shortcut, *_ = network(text).layers
    assert isinstance(route, Route) and isinstance(shortcut, Shortcut)
    assert (route.sources, route.shape, route.parts, route.part) == ((1, 0), (5, 32, 64), 4, 3)
    assert shortcut.sources == (2, 2, 2)


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        ("size=2\nstride=2", (3, 16, 32)),
        ("size=2\nstride=1", (3, 32, 64)),
        ("size=3\nstride=2", (3, 16, 32)),
        ("size=13\nstride=1", (3, 32, 64)),
        ("size=2\nstride=2\npadding=0", (3, 16, 32)),
        ("size=3\nstride=3\npadding=1", (3, 11, 21)),
        ("size=2\nstride=4", (3, 8, 16)),
    ],
)
def test_maxpool_pads_by_its_size_less_one(words: str, shape: tuple[int, int, int]) -> None:
    pool, *_ = network(f"{NET}[maxpool]\n{words}\n{CONV}{YOLO}").layers
    assert isinstance(pool, Maxpool)
    assert pool.shape == shape


def test_pad_is_half_the_size_and_padding_is_itself() -> None:
    for words, padding in (("pad=1", 2), ("padding=1", 1), ("pad=1\npadding=1", 2), ("", 0)):
        first, *_ = network(f"{NET}[conv]\nfilters=4\nsize=5\n{words}\nactivation=leaky\n{CONV}{YOLO}").layers
        assert isinstance(first, Convolution)
        assert first.padding == padding


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("activation=linear", "activation=gelu", r"a.cfg:7: \[convolutional\] activation=gelu: not supported; known"),
        ("activation=linear", "", r"a.cfg:4: \[convolutional\] has no activation=: say it"),
        ("filters=12", "filters=twelve", r"a.cfg:5: \[convolutional\] filters=twelve: a whole number from 1 to"),
        ("filters=12", "filters=12\nfilters=13", r"a.cfg:6: .* filters=13: line 5 says it differently"),
        ("filters=12", "filters=99999999999", "a whole number from 1"),
        ("filters=12", "filters=18", r"a.cfg:8: \[yolo\] 2 anchors x \(5 \+ 1 classes\) need as many channels, not 18"),
        ("size=1", "size=200", "a window of 200 is larger than its input of 32"),
        ("size=1", "size=1\ndilation=2", r"a.cfg:7: \[convolutional\] dilation=2: is not supported; only 1 is"),
        ("size=1", "size=1\nstride_x=2", "different strides"),
        ("size=1", "size=1\ngroups=2", "3 channels to 12 filters cannot be split so"),
        ("[convolutional]", "[lstm]", r"a.cfg:4: \[lstm\] is not supported; known: convolutional, shortcut,"),
        ("[convolutional]", "[convolutional", r"a.cfg:4: \[convolutional: no \[section\]"),
        ("[net]", "[nets]", r"does not begin with \[net\]"),
        ("[net]", "", "a.cfg:2: width=64: stands before the first"),
        ("width=64", "width=64\nchannels=1", r"a.cfg:3: \[net\] channels=1: a whole number from 3 to 3"),
        ("width=64", "width=0", "a whole number from 1 to 8192"),
        ("width=64\n", "", r"a.cfg:1: \[net\] has no width="),
        ("width=64", "width", r"a.cfg:2: \[net\] width: no key=value"),
        (YOLO, "", r"a.cfg:1: \[net\] has no \[yolo\] section"),
        (YOLO, YOLO + CONV, r"a.cfg:13: \[convolutional\] follows a \[yolo\]"),
        (YOLO, YOLO + "[route]\nlayers=-1\n", r"a.cfg:14: \[route\] layers=-1: names layer 1, a \[yolo\]"),
        (YOLO, "[route]\nlayers=1\n" + YOLO, r"a.cfg:9: .* names layer 1; the layers before this one are 0 to 0"),
        (YOLO, "[route]\nlayers=-2\n" + YOLO, "names layer -1"),
        (YOLO, "[route]\nlayers=0\ngroups=5\n" + YOLO, "cannot be split so"),
        (YOLO, "[route]\nlayers=0\ngroups=2\ngroup_id=2\n" + YOLO, "a whole number from 0 to 1"),
        (YOLO, CONV.replace("12", "6") + "[shortcut]\nfrom=-2\n" + YOLO, "the shapes must be equal"),
        (YOLO, "[maxpool]\nsize=2\nstride=2\n[route]\nlayers=-1,-2\n" + YOLO, "heights and widths must be equal"),
        ("mask=0,1", "mask=0,2", r"mask=0,2: the anchors are 0 to 1"),
        ("mask=0,1", "mask=0,x", "whole numbers between commas"),
        ("anchors=4,5, 6,7", "anchors=4,5,6", r"num=2 asks for 4 sizes over 0; here are 3"),
        ("anchors=4,5, 6,7", "anchors=4,5,6,-7", "sizes over 0"),
        ("anchors=4,5, 6,7", "anchors=4,5,6,nan", "numbers between commas"),
        ("anchors=4,5, 6,7", "anchors=" + "1," * 300, "more than 256 numbers"),
        ("classes=1", "classes=1\nscale_x_y=1e9", "a number from 0.1 to 10"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused(old: str, new: str, words: str) -> None:
    assert old in LEAST
    with pytest.raises(ModelError, match=words):
        network(LEAST.replace(old, new, 1))


def test_heads_of_different_classes_are_refused() -> None:
    other = CONV.replace("12", "14") + YOLO.replace("classes=1", "classes=2")
    with pytest.raises(ModelError, match=r"a.cfg:20: \[yolo\] classes=2: the first \[yolo\], line 8, has 1"):
        network(LEAST + "[route]\nlayers=0\n" + other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[net]\n" * 1001, "more than 1000 sections"),
        ("[net]\n" + "".join(f"k{n}=1\n" for n in range(201)), "more than 200 keys"),
        ("[net]\n" + "k" * 65 + "=1\n", "no key=value, or a very long one"),
        ("[net]\nk=" + "1" * 4097, "no key=value, or a very long one"),
        ("#" * (cfg.FILE_LIMIT + 1), "longer than 1048576 bytes"),
        ("[net]\nwidth=8192\nheight=8192\n" + CONV.replace("12", "32000") + YOLO, "are too many"),
        (NET + CONV.replace("12", "32768") * 4 + YOLO, "are too many"),
    ],
    ids=["sections", "keys", "key", "value", "file", "map", "weights"],
)
def test_everything_has_a_bound(text: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as refused:
        network(text)
    assert len(str(refused.value)) < 400


def test_files_are_read_with_any_comment_and_missing_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "b.cfg"
    path.write_bytes(b"\xef\xbb\xbf" + LEAST.encode() + b"# \xb9\xa4\xce\xbb\n")
    assert plan(cfg.load(path)).heads
    with pytest.raises(ModelError, match=r"none.cfg: cannot be read"):
        cfg.load(tmp_path / "none.cfg")


@pytest.mark.parametrize(
    ("name", "size", "layers", "floats"),
    [
        ("yolov3", 416, 107, 62_001_757),
        ("yolov3-tiny", 416, 24, 8_858_734),
        ("yolov4", 608, 162, 64_429_405),
        ("yolov4-tiny", 416, 38, 6_062_814),
        ("yolo-fastest-1.1", 320, 131, 346_062),
        ("yolo-fastest-1.1-xl", 320, 131, 923_486),
    ],
)
def test_published_files(testdata: Path, name: str, size: int, layers: int, floats: int) -> None:
    """The lengths of the published weight files (yolov3.weights: 248,007,048 bytes) say how many floats they take."""
    found = plan(cfg.load(testdata / "models" / f"{name}.cfg"))
    assert (found.input, len(found.layers), found.floats) == ((3, size, size), layers, floats)
    assert {head.classes for head in found.heads} == {80}
