"""The training of the demo models, where PyTorch is installed (the extra `train`): what is trained is what is exported,
and truth stays where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import workers  # noqa: F401  (before cv2, whose limits it sets)
from clients.synthetic import SyntheticCamera
from ops.training.painter import MOST, draw
from ops.training.recipe import RECIPES, Recipe, Settings

torch = pytest.importorskip("torch", reason="PyTorch, the extra `train`, is not installed")

from ops.training import export, loss  # noqa: E402
from ops.training.assign import assign  # noqa: E402
from ops.training.network import Net  # noqa: E402
from ops.training.stock import Batch, Stock, augment  # noqa: E402
from ops.training.student import Student  # noqa: E402
from workers import shipped  # noqa: E402
from workers.engine.onnx import OnnxEngine  # noqa: E402

CPU = torch.device("cpu")
ENDS = {"detect": ("output0",), "segment": ("output0", "output1"), "classify": ("output0",)}
SIDE = (480, 640)


def shaken(net: Net) -> Net:
    """Batch norms as after some training, so that folding them is seen."""
    torch.manual_seed(3)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    net.eval()
    return net


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_what_is_trained_answers_as_what_is_exported(recipe: Recipe, tmp_path: Path) -> None:
    net = shaken(Net(recipe.network(), ENDS[recipe.task]))
    file = tmp_path / "model.onnx"
    file.write_bytes(recipe.network().model(net.folded(), {}).SerializeToString())
    pictures = torch.rand(2, 3, *recipe.side)
    with torch.no_grad():
        trained = net(pictures)
    engine = OnnxEngine.load(file, threads=1)
    for ours, theirs in zip(trained, engine.infer(pictures.numpy()), strict=True):
        assert np.allclose(ours.numpy(), theirs, rtol=1e-4, atol=2e-3)


@pytest.fixture(scope="module")
def batch() -> Batch:
    pictures = np.zeros((6, *SIDE, 4), np.uint8)
    truth = draw(SyntheticCamera(5, defect_rate=1.0, world="train"), 0, pictures)
    stock = Stock(6, SIDE, CPU)
    stock.put(torch.from_numpy(pictures), torch.from_numpy(truth))
    return stock.rows(0, 6)


def test_truth_is_mirrored_with_its_picture(batch: Batch) -> None:
    torch.manual_seed(0)
    turned = augment(batch)
    assert not torch.equal(turned.index, batch.index)
    for index, truth in zip(turned.index, turned.truth, strict=True):
        for number in range(MOST):
            if truth[number, 0]:
                rows, columns = torch.nonzero(index == number + 1, as_tuple=True)
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert torch.allclose(truth[number, 2:], torch.tensor(box).float(), atol=1)


def test_every_defect_has_predictions_that_answer_for_it(batch: Batch) -> None:
    shapes = [(SIDE[0] // stride, SIDE[1] // stride) for stride in (8, 16, 32)]
    found = assign(batch.truth, shapes)
    answered = torch.stack([one.valid.flatten(2).sum(2) for one in found]).sum(0)
    assert torch.equal(answered > 0, batch.truth[..., 0] > 0)
    for one, stride in zip(found, (8, 16, 32), strict=True):
        centres = torch.stack((one.column, one.row), -1) * stride + stride / 2
        apart = (centres - one.boxes[..., :2]).abs().amax(-1)
        assert apart[one.valid].max() <= 1.5 * stride


def test_a_full_stock_replaces_its_oldest_pictures() -> None:
    stock = Stock(128, (8, 8), CPU)
    for level in (1, 2, 3):
        stock.put(torch.full((64, 8, 8, 4), level, dtype=torch.uint8), torch.zeros(64, MOST, 6))
    levels = {int(value) for value in (stock.rows(0, 128).pictures * 255).round().unique()}
    assert (levels, len(stock), stock.received) == ({2, 3}, 128, 192)


def test_overlap_falls_with_distance_and_shape() -> None:
    here = torch.tensor([10.0, 10.0, 4.0, 4.0])
    others = torch.tensor([[10.0, 10, 4, 4], [11.0, 10, 4, 4], [30.0, 10, 4, 4], [10.0, 10, 8, 2]])
    same, near, far, flat = loss.ciou(here.expand(4, 4), others).tolist()
    assert same == pytest.approx(1, abs=1e-4)
    assert same > near > far and same > flat
    assert far < 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_few_steps_learn_something_and_are_taken_up_again(recipe: Recipe, batch: Batch) -> None:
    student = Student(recipe, Settings(warm_up=2), CPU)
    losses = []
    for _ in range(6):
        student.learn(batch, 0.0)
        losses.append(student.loss.item())
    assert losses[-1] < losses[0]
    other = Student(recipe, Settings(), CPU)
    other.load(student.save())
    assert other.steps == 6
    assert all(torch.equal(a, b) for a, b in zip(other.average.parameters(), student.average.parameters(), strict=True))


def test_thresholds_share_the_false_alarms_that_are_allowed() -> None:
    torch.manual_seed(5)
    bad = torch.rand(9000) < 0.5
    scores = [torch.rand(9000) * most for most in (0.5, 1.0, 7.0)]
    limits = export.thresholds(scores, bad, [1.0, 1.0, 1.0])
    alarms = torch.stack([one[~bad] >= limit for one, limit in zip(scores, limits, strict=True)])
    assert alarms.any(0).float().mean() == pytest.approx(0.02, abs=0.002)
    assert alarms.any(0).float().mean() <= 0.02
    assert alarms.sum(1).max() - alarms.sum(1).min() <= 1


def test_thresholds_of_models_that_are_sure_together_are_lower() -> None:
    bad = torch.arange(4000) % 2 == 1
    same = torch.linspace(0, 1, 4000)
    even = [1.0, 1.0]
    alike, alone = export.thresholds([same, same], bad, even), export.thresholds([same, same.flip(0)], bad, even)
    assert alike[0] == alike[1] < alone[0]


def test_a_model_that_is_trusted_less_calls_fewer_sound_parts_bad() -> None:
    torch.manual_seed(6)
    bad = torch.rand(20_000) < 0.5
    scores = [torch.rand(20_000) for _ in range(3)]
    limits = export.thresholds(scores, bad, [1.0, 1.0, 0.5])
    alarms = torch.stack([one[~bad] >= limit for one, limit in zip(scores, limits, strict=True)])
    assert alarms.any(0).float().mean() == pytest.approx(0.02, abs=0.001)
    one, other, third = alarms.sum(1).tolist()
    assert abs(one - other) <= 1 and abs(2 * third - one) <= 2


def test_thresholds_need_sound_parts() -> None:
    with pytest.raises(ValueError, match="only bad ones"):
        export.thresholds([torch.rand(9)], torch.ones(9, dtype=torch.bool), [1.0])


def test_a_classifiers_threshold_is_in_its_biases(tmp_path: Path) -> None:
    recipe = RECIPES[2]
    student = Student(recipe, Settings(), CPU)
    limit = 0.998
    path = export.export(student.average, recipe, limit, tmp_path)
    pictures = torch.rand(1, 3, *recipe.side)
    with torch.no_grad():
        ok, worse = student.average(pictures)[0][0].tolist()
    exported = OnnxEngine.load(path, threads=1).infer(pictures.numpy())[0][0]
    assert exported[1] - exported[0] == pytest.approx(worse - ok - limit, abs=1e-3)
    assert shipped.confidence(path) == 0.5
