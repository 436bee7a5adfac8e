"""One network in training: its weights, their average over time, its optimiser, its step."""

from __future__ import annotations

import copy
import math
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ops.training import loss
from ops.training.network import Net
from ops.training.recipe import Recipe, Settings
from ops.training.stock import Batch
from workers.model import Task
from workers.zoo.network import Network
from workers.zoo.yolov5 import ANCHORS

#: How much of the average over time a step keeps, once so many steps have been made.
_KEEP: Final = 0.999
_SETTLED: Final = 400.0
_LARGEST_GRADIENT: Final = 10.0
#: Steps made one kernel after the other, in which libraries choose their algorithms, before the rest run as a graph.
_BEFORE_GRAPH: Final = 12
_HEADS: Final = tuple(f"model.24.m.{level}" for level in range(3))
#: Layers of the classifier whose output is a map at 8, 16 and 32 pixels per cell.
_MAPS: Final = ("model.4.cv3.conv", "model.6.cv3.conv", "model.8.cv3.conv")
#: Objectness before anything is learnt: one place in some thousand.
_RARE: Final = -5.0


class Student:
    """Trains one recipe on `device`. `average` is the network that is exported."""

    def __init__(self, recipe: Recipe, settings: Settings, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.recipe = recipe
        self._settings = settings
        network = recipe.network()
        self._net = Learner(network, recipe.task).to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self._net).eval().requires_grad_(False)
        decayed = [value for value in self._net.parameters() if value.ndim > 1]
        plain = [value for value in self._net.parameters() if value.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.decay}, {"params": plain, "weight_decay": 0.0}]
        self._on_gpu = device.type == "cuda"
        #: Learning rate, and how far the average moves: on the device, since they change and a graph's numbers do not.
        self._rate = torch.zeros((), device=device)
        self._share = torch.zeros((), device=device)
        self._optimiser = torch.optim.AdamW(
            groups, lr=self._rate if self._on_gpu else 1e-3, betas=(0.9, 0.99), fused=self._on_gpu,
            capturable=self._on_gpu,
        )  # fmt: skip
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        #: Steps in this process that were no graph; `steps` counts those before a checkpoint, too.
        self._single = 0
        self.steps = 0
        #: Of the last step, on the device.
        self.loss = torch.zeros((), device=device)

    def learn(self, batch: Batch, progress: float) -> None:
        """One step, `progress` (0 to 1) of the way through the training.

        On a GPU all later batches have the size of the first: after some steps they run as one CUDA graph, since
        starting so many small kernels one by one would take longer than they do.
        """
        self._plan(progress)
        if self._graph is None:
            self._step(batch)
            self._single += 1
            if self._on_gpu and self._single >= _BEFORE_GRAPH:
                self._capture(batch)
        else:
            assert self._batch is not None
            for mine, new in zip(self._batch, batch, strict=True):
                mine.copy_(new)
            self._graph.replay()
        self.steps += 1

    def save(self) -> dict[str, Any]:
        return {
            "net": self._net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps": self.steps,
        }

    def load(self, saved: dict[str, Any]) -> None:
        self._net.load_state_dict(saved["net"])
        self.average.load_state_dict(saved["average"])
        self._optimiser.load_state_dict(saved["optimiser"])
        for group in self._optimiser.param_groups:
            group["capturable"] = self._on_gpu
        self.steps = saved["steps"]

    def _plan(self, progress: float) -> None:
        """Set what differs from step to step."""
        rate = self._settings.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, progress))) / 2)
        self._rate.fill_(rate * min(1.0, (self.steps + 1) / self._settings.warm_up))
        self._share.fill_(1 - _KEEP * (1 - math.exp(-(self.steps + 1) / _SETTLED)))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate if self._on_gpu else self._rate.item()

    def _step(self, batch: Batch) -> None:
        with torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False):
            answers = self._net(seen(batch.pictures, self.recipe))
        self.loss = self._loss(answers, batch)
        self._optimiser.zero_grad(set_to_none=True)
        self.loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._net.parameters(), _LARGEST_GRADIENT)
        self._optimiser.step()
        self._remember()

    def _capture(self, batch: Batch) -> None:
        """Record a step, without making it, on buffers of its own."""
        self._batch = Batch(*(values.clone() for values in batch))
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        # Thread-local: the loader goes on meanwhile.
        here = torch.cuda.current_stream(self._device)
        with torch.cuda.graph(graph, stream=here, capture_error_mode="thread_local"):
            self._step(self._batch)
        self._graph = graph

    def _loss(self, answers: list[Tensor], batch: Batch) -> Tensor:
        match self.recipe.task:
            case "detect":
                return loss.detection(answers, batch, self.recipe.side)
            case "segment":
                return loss.detection(answers[:-1], batch, self.recipe.side, answers[-1])
            case "classify":
                return loss.classification(answers[0], answers[1:], batch)

    @torch.no_grad()
    def _remember(self) -> None:
        """Move the average towards the present weights."""
        mean, now = self.average.state_dict().values(), self._net.state_dict().values()
        pairs = [(a, b) for a, b in zip(mean, now, strict=True) if a.is_floating_point()]
        averages = [a for a, _ in pairs]
        towards = torch._foreach_sub([b for _, b in pairs], averages)
        torch._foreach_mul_(towards, self._share)
        torch._foreach_add_(averages, towards)


class Learner(nn.Module):
    """A network with raw heads; a classifier's also has a map from each of its levels, which are not exported."""

    def __init__(self, network: Network, task: Task) -> None:
        super().__init__()
        ends = {"detect": _HEADS, "segment": (*_HEADS, "output1"), "classify": ("output0", *_MAPS)}[task]
        self.net = Net(network, ends)
        by_name = {layer.name: layer for layer in network.layers}
        maps = [nn.Conv2d(by_name[name].shape[0], 1, 1) for name in _MAPS] if task == "classify" else []
        self.maps = nn.ModuleList(maps)
        for one in maps:
            assert one.bias is not None
            nn.init.constant_(one.bias, -4.0)
        if task != "classify":
            self._expect_little()

    def forward(self, pictures: Tensor) -> list[Tensor]:
        values: list[Tensor] = self.net(pictures)
        if not len(self.maps):
            return values
        told = [one(functional.silu(value)) for one, value in zip(self.maps, values[1:], strict=True)]
        return [values[0], *told]

    def _expect_little(self) -> None:
        for head in _HEADS:
            bias = self.net.conv(head).bias
            assert bias is not None
            with torch.no_grad():
                bias.view(len(ANCHORS[0]), -1)[:, 4] = _RARE


def seen(pictures: Tensor, recipe: Recipe) -> Tensor:
    """The pictures as the network takes them: resized as `workers.placement` does where its input is smaller."""
    if tuple(pictures.shape[2:]) != recipe.side:
        pictures = functional.interpolate(pictures, size=recipe.side, mode="bilinear", align_corners=False)
    return pictures.contiguous(memory_format=torch.channels_last)
