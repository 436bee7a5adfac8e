"""`cfg.parse`, `plan` and, where the network is tiny, the graph: the bytes are the text of a Darknet cfg."""

from __future__ import annotations

import math

import numpy as np

from tests.fuzz import corpus
from workers.errors import ModelError
from workers.zoo import cfg
from workers.zoo.darknet import Detector
from workers.zoo.layers import Convolution, Network
from workers.zoo.plan import MAP_LIMIT, WEIGHT_LIMIT, plan
from workers.zoo.weights import Header, Weights

NET = b"[net]\nwidth=8\nheight=8\n"
CONV = b"[convolutional]\nfilters=6\nsize=1\nactivation=leaky\n"
YOLO = b"[yolo]\nclasses=1\nnum=1\nanchors=4,5\n"
SMALL = (
    b"",
    b"[route]\nlayers=-1\ngroups=2\ngroup_id=1\n" + CONV,
    b"[shortcut]\nfrom=-1\nactivation=mish\n",
    b"[maxpool]\nsize=3\nstride=1\n[upsample]\nstride=2\n",
    b"[dropout]\n[conv]\nfilters=6\nsize=3\npad=1\ngroups=2\nbatch_normalize=1\nactivation=swish\n",
)
HEADS = (YOLO, YOLO.replace(b"num=1\n", b"num=2\nmask=1\nscale_x_y=1.1\nnew_coords=1\n").replace(b"4,5", b"4,5,6,7"))
#: Networks up to this size become graphs: layers, weights, numbers in a map.
LAYERS, WEIGHTS, MAP = 8, 1000, 4096


def seeds() -> list[bytes]:
    return [
        *(NET + CONV + middle + HEADS[number % 2] for number, middle in enumerate(SMALL)),
        NET + CONV + HEADS[0] + b"[route]\nlayers=0\n" + HEADS[1],
        *corpus.files("cfg"),
    ]


def target(data: bytes) -> None:
    """A network within its bounds, and its graph if it is tiny; or a ModelError of one short line."""
    try:
        network = plan(cfg.parse(data.decode(errors="replace"), "a.cfg"))
    except ModelError as error:
        assert len(str(error)) < 500 and str(error).startswith("a.cfg"), error
        assert str(error).isprintable(), error
        return
    assert all(-1 <= source < number for number, layer in enumerate(network.layers) for source in layer.sources)
    assert all(0 < math.prod(layer.shape) <= MAP_LIMIT for layer in network.layers)
    assert 0 <= network.floats <= WEIGHT_LIMIT
    if tiny(network):
        numbers = np.ones(network.floats, np.float32)
        detector = Detector(network, Weights(numbers, Header((0, 2, 0), 0, 20), "a.weights"))
        shape = detector.model({}).graph.output[0].type.tensor_type.shape
        assert [one.dim_value for one in shape.dim] == [0, detector.boxes, 5 + detector.classes]


def tiny(network: Network) -> bool:
    maps = (network.input, *(layer.shape for layer in network.layers))
    sizes = [layer.floats for layer in network.layers if isinstance(layer, Convolution)]
    return len(maps) <= LAYERS and sum(sizes) <= WEIGHTS and max(map(math.prod, maps)) <= MAP
