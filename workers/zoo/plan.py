"""From the sections of a Darknet cfg to the layers that they build: pure, and bounded whatever the cfg says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from workers.zoo.cfg import Section
from workers.zoo.layers import (
    Convolution,
    Dropout,
    Layer,
    Maxpool,
    Network,
    Route,
    Shape,
    Shortcut,
    Upsample,
    Yolo,
)

ACTIVATIONS: Final = ("leaky", "mish", "swish", "relu", "logistic", "linear")
#: Bounds: pixels of an input's side, channels, elements of a map, weights of a model (an ONNX file ends at 2 GB).
SIDE_LIMIT: Final = 1 << 13
CHANNEL_LIMIT: Final = 1 << 15
MAP_LIMIT: Final = 1 << 28
WEIGHT_LIMIT: Final = 400_000_000
CLASS_LIMIT: Final = 10_000
_WINDOW: Final = 255

_NONE: Final = "no value"
#: Keys that change what a layer answers in a way that is not built here, and the values that change nothing.
#: Everything else that is not read below matters to training only, and Darknet passes over unknown keys too.
_NEUTRAL: Final[Mapping[str, Mapping[str, str]]] = {
    "convolutional": dict.fromkeys(
        ("binary", "xnor", "cbn", "flipped", "coordconv", "sway", "rotate", "stretch", "stretch_sway", "antialiasing"),
        "0",
    )
    | dict.fromkeys(("assisted_excitation", "dontload", "dontloadscales"), "0")
    | {"dilation": "1", "share_index": _NONE},
    "maxpool": {"maxpool_depth": "0", "antialiasing": "0"},
    "shortcut": {"weights_type": "none", "alpha": "1", "beta": "0"},
    "upsample": {"scale": "1"},
}
_SECTIONS: Final = {"conv": "convolutional", "max": "maxpool"}


def plan(sections: list[Section]) -> Network:
    """The network of a cfg. Raises ModelError naming the section that it cannot build, and its line."""
    net, *others = sections
    sides = [net.integer(key, None, 1, SIDE_LIMIT) for key in ("height", "width")]
    shape = (net.integer("channels", 3, 3, 3), sides[0], sides[1])
    layers: list[Layer] = []
    floats = 0
    for section in others:
        layer = _layer(section, layers, shape)
        floats += layer.floats if isinstance(layer, Convolution) else 0
        if math.prod(layer.shape) > MAP_LIMIT or layer.shape[0] > CHANNEL_LIMIT or floats > WEIGHT_LIMIT:
            section.refuse(f"its output {layer.shape}, or the {floats} weights up to here, are too many")
        layers.append(layer)
    network = Network(shape, tuple(layers), net.integer("letter_box", 0, 0, 1) == 1)
    _check_heads(network, net)
    return network


def _layer(section: Section, layers: list[Layer], image: Shape) -> Layer:
    kind = _SECTIONS.get(section.kind, section.kind)
    build = _BUILDERS.get(kind)
    if build is None:
        section.refuse(f"is not supported; known: {', '.join(_BUILDERS)}")
    for key, neutral in _NEUTRAL.get(kind, {}).items():
        option = section.options.get(key)
        if option is not None and option.value.removesuffix(".0") != neutral:
            section.refuse(f"is not supported; only {neutral} is", key)
    return build(section, layers, image)


def _before(section: Section, layers: list[Layer], image: Shape) -> tuple[tuple[int], Shape]:
    """The layer before, and its shape."""
    if not layers:
        return (-1,), image
    if isinstance(layers[-1], Yolo):
        section.refuse("follows a [yolo], whose answer no layer can take; a [route] must come between")
    return (len(layers) - 1,), layers[-1].shape


def _named(section: Section, key: str, layers: list[Layer]) -> tuple[int, ...]:
    """The layers that a list names: from the start, or, below 0, back from here."""
    indices = tuple(index if index >= 0 else len(layers) + index for index in section.integers(key))
    for index in indices:
        if not 0 <= index < len(layers):
            section.refuse(f"names layer {index}; the layers before this one are 0 to {len(layers) - 1}", key)
        if isinstance(layers[index], Yolo):
            section.refuse(f"names layer {index}, a [yolo], whose answer no layer can take", key)
    return indices


def _convolution(section: Section, layers: list[Layer], image: Shape) -> Layer:
    sources, (channels, height, width) = _before(section, layers, image)
    filters = section.integer("filters", None, 1, CHANNEL_LIMIT)
    size = section.integer("size", None, 1, _WINDOW)
    stride = _stride(section, 1)
    groups = section.integer("groups", 1, 1, CHANNEL_LIMIT)
    padding = section.integer("padding", 0, 0, _WINDOW)
    if section.integer("pad", 0, 0, _WINDOW):
        padding = size // 2
    if channels % groups or filters % groups:
        section.refuse(f"{channels} channels to {filters} filters cannot be split so", "groups")
    rows, columns = (_slid(section, side, size, stride, 2 * padding) for side in (height, width))
    return Convolution(
        section,
        sources,
        (filters, rows, columns),
        kernel=(filters, channels // groups, size, size),
        stride=stride,
        padding=padding,
        groups=groups,
        normalized=section.integer("batch_normalize", 0, 0, 1) == 1,
        activation=section.word("activation", None, ACTIVATIONS),
    )


def _maxpool(section: Section, layers: list[Layer], image: Shape) -> Layer:
    sources, (channels, height, width) = _before(section, layers, image)
    size = section.integer("size", None, 1, _WINDOW)
    stride = _stride(section, None)
    padding = section.integer("padding", size - 1, 0, 2 * (size - 1))
    rows, columns = (_slid(section, side, size, stride, padding) for side in (height, width))
    return Maxpool(section, sources, (channels, rows, columns), size, stride, padding)


def _stride(section: Section, default: int | None) -> int:
    """The one stride: other ones for rows and columns are refused."""
    x, y = (section.integer(key, 0, 0, _WINDOW) for key in ("stride_x", "stride_y"))
    if x == y and x:
        return x
    stride = section.integer("stride", default, 1, _WINDOW)
    if not {x, y} <= {0, stride}:
        section.refuse("different strides of rows and columns are not supported", "stride_x" if x else "stride_y")
    return stride


def _slid(section: Section, side: int, size: int, stride: int, padding: int) -> int:
    """Places of a window along a side, `padding` on both ends together."""
    places = (side + padding - size) // stride + 1
    if places < 1:
        section.refuse(f"a window of {size} is larger than its input of {side} with padding {padding}", "size")
    return places


def _shortcut(section: Section, layers: list[Layer], image: Shape) -> Layer:
    sources, shape = _before(section, layers, image)
    others = _named(section, "from", layers)
    for index in others:
        if layers[index].shape != shape:
            section.refuse(f"adds {layers[index].shape} of layer {index} to {shape}: the shapes must be equal", "from")
    activation = section.word("activation", "linear", ACTIVATIONS)
    return Shortcut(section, (*sources, *others), shape, activation)


def _route(section: Section, layers: list[Layer], image: Shape) -> Layer:
    sources = _named(section, "layers", layers)
    shapes = [layers[index].shape for index in sources]
    parts = section.integer("groups", 1, 1, CHANNEL_LIMIT)
    part = section.integer("group_id", 0, 0, parts - 1)
    for shape in shapes:
        if shape[1:] != shapes[0][1:]:
            section.refuse(f"joins {shapes[0]} and {shape}: heights and widths must be equal", "layers")
        if shape[0] % parts:
            section.refuse(f"the channels of {shape} cannot be split so", "groups")
    channels = sum(shape[0] // parts for shape in shapes)
    return Route(section, sources, (channels, *shapes[0][1:]), parts, part)


def _upsample(section: Section, layers: list[Layer], image: Shape) -> Layer:
    sources, (channels, height, width) = _before(section, layers, image)
    factor = section.integer("stride", 2, 1, 64)
    return Upsample(section, sources, (channels, height * factor, width * factor), factor)


def _dropout(section: Section, layers: list[Layer], image: Shape) -> Layer:
    return Dropout(section, *_before(section, layers, image))


def _yolo(section: Section, layers: list[Layer], image: Shape) -> Layer:
    sources, shape = _before(section, layers, image)
    classes = section.integer("classes", None, 1, CLASS_LIMIT)
    total = section.integer("num", 1, 1, 128)
    sizes = section.numbers("anchors")
    if len(sizes) != 2 * total or min(sizes) <= 0:
        section.refuse(f"num={total} asks for {2 * total} sizes over 0; here are {len(sizes)}", "anchors")
    mask = section.integers("mask") if "mask" in section.options else tuple(range(total))
    if not all(0 <= index < total for index in mask):
        section.refuse(f"the anchors are 0 to {total - 1}", "mask")
    if shape[0] != len(mask) * (5 + classes):
        section.refuse(f"{len(mask)} anchors x (5 + {classes} classes) need as many channels, not {shape[0]}")
    return Yolo(
        section,
        sources,
        shape,
        anchors=tuple((sizes[2 * index], sizes[2 * index + 1]) for index in mask),
        classes=classes,
        spread=section.number("scale_x_y", 1.0, 0.1, 10.0),
        new_coords=section.integer("new_coords", 0, 0, 1) == 1,
    )


def _check_heads(network: Network, net: Section) -> None:
    if not network.heads:
        net.refuse("has no [yolo] section: only detectors with one can be imported")
    first, *others = network.heads
    for head in others:
        if head.classes != first.classes:
            head.section.refuse(f"the first [yolo], line {first.section.line}, has {first.classes}", "classes")


_BUILDERS: Final[dict[str, Callable[[Section, list[Layer], Shape], Layer]]] = {
    "convolutional": _convolution,
    "shortcut": _shortcut,
    "route": _route,
    "upsample": _upsample,
    "maxpool": _maxpool,
    "dropout": _dropout,
    "yolo": _yolo,
}
