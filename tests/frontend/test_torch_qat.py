"""Quantisation-aware training: what was trained is what is deployed."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest

pytest.importorskip("torchao", reason="torch and torchao are not installed (pip install 'edgekit[torch]')")
import torch
from torch import nn
from torch.nn import functional

from edgekit import ImportOptions, convert_qat, freeze_qat, load_torch, prepare_qat
from edgekit.compiler import compile_model
from edgekit.errors import ModelError, UsageError
from edgekit.target import load_target

SHAPE = (2, 8, 8)
CLASSES = 4


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(True))
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.stem(x))
        x = functional.relu(x + self.point(x))
        return self.head(self.drop(functional.adaptive_avg_pool2d(x, 1).flatten(1)))


@dataclass(frozen=True)
class Trained:
    module: nn.Module
    prepared: nn.Module
    converted: nn.Module
    x: torch.Tensor
    y: torch.Tensor


def _rows(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy stripes in one of four directions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, CLASSES, (count,), generator=generator)
    down, right = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    angle = y * torch.pi / CLASSES
    waves = torch.sin(
        1.6 * (down[None] * angle.cos()[:, None, None] + right[None] * angle.sin()[:, None, None])
    )
    x = waves[:, None].repeat(1, 2, 1, 1) + 0.7 * torch.randn(count, *SHAPE, generator=generator)
    return x, y


def _train(module: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    module.train()
    for step in range(steps):
        chosen = torch.randint(0, len(y), (48 + step % 2,), generator=generator)
        loss = functional.cross_entropy(module(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _accuracy(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((module(x).argmax(1) == y).float().mean())


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.manual_seed(0)
    x, y = _rows(1500, 1)
    module = _Network()
    _train(module, x, y, 120, 0.01)
    prepared = prepare_qat(module, (x[:1],))
    _train(prepared, x, y, 60, 0.002)
    prepared.eval()
    return Trained(module.eval(), prepared, convert_qat(prepared), *_rows(1000, 2))


def test_what_was_trained_is_what_is_converted(trained: Trained) -> None:
    before = _accuracy(trained.prepared, trained.x, trained.y)
    after = _accuracy(trained.converted, trained.x, trained.y)
    exact = _accuracy(trained.module, trained.x, trained.y)
    assert exact > 0.8, "the network learnt"
    assert before >= exact - 0.01
    assert abs(before - after) <= 0.001
    with torch.no_grad():
        one, other = trained.prepared(trained.x), trained.converted(trained.x)
    scale = (one.max() - one.min()) / 255
    assert ((one - other).abs() < 1.5 * scale).float().mean() > 0.99


def test_evaluation_changes_no_range(trained: Trained) -> None:
    with torch.no_grad():
        trained.prepared(trained.x)  # scales of the weights as the last step of the training left them
        before = copy.deepcopy(trained.prepared.state_dict())
        trained.prepared(trained.x * 100)
    after = trained.prepared.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert [name for name in changed if not name.endswith("num_batches_tracked")] == []


def test_frozen_ranges_stay_while_weights_train() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())
    x = torch.randn(4, *SHAPE)
    prepared = prepare_qat(module, (x,))
    prepared.train()
    prepared(x)
    freeze_qat(prepared)
    prepared.eval()
    prepared.train()
    before = copy.deepcopy(prepared.state_dict())
    prepared(x * 100)
    ranges = [name for name in before if name.endswith(("min_val", "max_val"))]
    assert ranges
    after = prepared.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in ranges)
    prepared(x).sum().backward()
    weights = [parameter for parameter in prepared.parameters() if parameter.grad is not None]
    assert weights
    assert any(parameter.grad.abs().max() > 0 for parameter in weights if parameter.grad is not None)


def test_the_trained_graph_is_all_integers(trained: Trained) -> None:
    model = load_torch(trained.converted, (trained.x[:1],), options=ImportOptions(name="stripes"))
    compiled = compile_model(model, load_target("host"))
    assert compiled.exact
    assert [operator.op for operator in compiled.operators if operator.op != "transpose"] == [
        "conv2d", "depthwise_conv2d", "conv2d", "add", "mean", "dense",
    ]  # fmt: skip
    assert [operator.name for operator in compiled.operators if "conv2d" in operator.op] == [
        "stem.0", "depthwise.0", "point.0",
    ]  # fmt: skip
    (taken,) = compiled.inputs
    assert taken.shape == (1, *SHAPE)


def test_what_cannot_be_trained_is_refused() -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(ModelError, match="cannot be prepared"):
        prepare_qat(Branches(), (torch.zeros(1, 4),))
    with pytest.raises(UsageError, match="batch first"):
        prepare_qat(nn.ReLU(), (torch.tensor(1.0),))
    with pytest.raises(UsageError, match="what prepare_qat returned"):
        convert_qat(nn.ReLU())
    with pytest.raises(UsageError, match="a few rows"):
        load_torch(nn.Linear(4, 2), (torch.zeros(1, 4),))
