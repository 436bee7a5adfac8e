"""What tests of the demo models' bench share: records of examinations, and models of random weights."""

from __future__ import annotations

from pathlib import Path

from broker.wire import Verdict
from ops.bench.examination import Flaw, Record
from ops.bench.grade import LOCATORS
from ops.bench.precision import Claim, Sight
from ops.training.recipe import RECIPES
from workers import shipped
from workers.placement import Scaling
from workers.settings import CONFIDENCE_KEY
from workers.zoo.initial import random_values

SMALL_FAINT = Flaw("dent", 81.0, 12.0)
LARGE_CLEAR = Flaw("hole", 1600.0, 80.0)


def record(*defects: Flaw, said: Verdict = "ok", seen: bool = False) -> Record:
    judges = (*shipped.NAMES, "threshold")
    sight = Sight(tuple(d.name for d in defects), tuple(Claim(d.name, 0.9, (1.0,)) for d in defects if seen))
    located = frozenset(LOCATORS) if seen else frozenset[str]()
    return Record(
        defects=defects,
        sights={"demo-det": sight, "demo-seg": sight},
        verdict=said,
        bad=dict.fromkeys(judges, said == "ng"),
        located=tuple(located for _ in defects),
    )


def write_random(folder: Path) -> Path:
    """Write models of the shipped names and shapes with random weights into the folder."""
    for recipe in RECIPES:
        net = recipe.network()
        metadata = {"task": recipe.task, "names": str(list(recipe.names)), CONFIDENCE_KEY: "0.4"}
        model = net.model(random_values(net, 0, Scaling()), metadata | {"gongwei.fit": "letterbox"})
        (folder / f"{recipe.name}.onnx").write_bytes(model.SerializeToString())
    return folder
