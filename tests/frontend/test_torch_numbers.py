"""What is imported from torch computes what torch does: operators, layers, layers with state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import pytest

pytest.importorskip("torchao", reason="torch and torchao are not installed (pip install 'edgekit[torch]')")
import torch
from torch import nn
from torch.nn import functional

from edgekit import ImportOptions, load_torch
from tests.frontend.host import run_on_host

FLOAT = ImportOptions(precision="float32")

IMAGE = (1, 6, 9, 8)
SEQUENCE = (2, 5, 12)

Operator = Callable[[torch.Tensor], torch.Tensor]

# Of an image (1, 6, 9, 8).
ON_IMAGES: Mapping[str, Operator] = {
    "relu6": functional.relu6,
    "hardtanh by position": lambda x: functional.hardtanh(x, -0.5, 0.25),
    "hardtanh by name": lambda x: functional.hardtanh(x, max_val=0.5, min_val=-0.1),
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "clamp below": lambda x: x.clamp(min=0.1),
    "clamp above": lambda x: x.clamp(max=0.2),
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "mish": functional.mish,
    "gelu": functional.gelu,
    "gelu by tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "elu": lambda x: functional.elu(x, 0.7),
    "celu": lambda x: functional.celu(x, 1.3),
    "selu": functional.selu,
    "leaky relu": lambda x: functional.leaky_relu(x, 0.2),
    "softplus": lambda x: functional.softplus(x, 2.0),
    "softsign": functional.softsign,
    "softmax over channels": lambda x: x.softmax(1),
    "softmax over the last axis": lambda x: x.softmax(-1),
    "log softmax": lambda x: x.log_softmax(1),
    "reversed difference": lambda x: 1.5 - x,
    "difference with alpha": lambda x: torch.sub(x, x * x, alpha=2),
    "sum with alpha": lambda x: torch.add(x, x.abs(), alpha=0.5),
    "quotient": lambda x: x / 3,
    "quotient of tensors": lambda x: x / (x * x + 1),
    "maximum": lambda x: torch.maximum(x, -x),
    "power": lambda x: x**3,
    "max pool": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "max pool, uneven": lambda x: functional.max_pool2d(x, (2, 3), (2, 1), (1, 0)),
    "max pool, ceiling": lambda x: functional.max_pool2d(x, 2, 2, ceil_mode=True),
    "average pool": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "average pool without padding": lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "adaptive average": lambda x: functional.adaptive_avg_pool2d(x, (3, 4)),
    "global average": lambda x: functional.adaptive_avg_pool2d(x, 1),
    "adaptive maximum": lambda x: functional.adaptive_max_pool2d(x, 1),
    "adaptive maximum, uneven": lambda x: functional.adaptive_max_pool2d(x, (4, 3)),
    "adaptive maximum, to its own size": lambda x: functional.adaptive_max_pool2d(x, (9, 8)),
    "mean over negative axes": lambda x: x.mean((-1, -2)),
    "mean, kept": lambda x: x.mean(1, keepdim=True),
    "sum": lambda x: x.sum(-1),
    "largest": lambda x: x.amax(1),
    "last column": lambda x: x[..., -1],
    "last but one row": lambda x: x[:, :, -2],
    "select by a negative axis": lambda x: x.select(-2, -3),
    "slice from the end": lambda x: x[:, :, -4:-1, 1::2],
    "slice of a negative axis": lambda x: x.narrow(-1, -3, 2),
    "empty tail": lambda x: x[:, :, 2:1000],
    "pick channels": lambda x: x[:, [0, -1, 3]],
    "transpose": lambda x: x.transpose(-1, 1),
    "permute": lambda x: x.permute(0, -1, 1, 2),
    "move an axis": lambda x: x.movedim(1, -1),
    "channel shuffle": lambda x: x.view(1, 2, 3, 9, 8).transpose(1, 2).reshape(IMAGE),
    "flatten": lambda x: x.flatten(-2),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "concat on a negative axis": lambda x: torch.cat([x, x * 2], -1),
    "stack": lambda x: torch.stack([x, x + 1], -2),
    "chunks": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "split": lambda x: torch.cat(x.split([1, 5], 1)[::-1], 1),
    "unbind": lambda x: x.unbind(-1)[-1],
    "padding": lambda x: functional.pad(x, (1, 2, 0, 3), value=0.5),
    "padding by a reflection": lambda x: functional.pad(x, (1, 2, 2, 1), mode="reflect"),
    "cropping": lambda x: functional.pad(x, (-1, 2, 0, -3)),
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: x.roll(2, -1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "pixel shuffle": lambda x: functional.pixel_shuffle(x[:, :4], 2),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2.0),
    "nearest to a size": lambda x: functional.interpolate(x, size=(13, 5)),
    "bilinear": lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "bilinear, aligned": lambda x: functional.interpolate(
        x, size=(13, 15), mode="bilinear", align_corners=True
    ),
    "normalised": lambda x: functional.normalize(x, dim=1),
    "variance": lambda x: x.var(1),
    "variance, biased": lambda x: x.var(1, unbiased=False, keepdim=True),
    "deviation": lambda x: x.std(1),
    "deviation, biased": lambda x: x.std((2, 3), unbiased=False),
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "in place": lambda x: (x * 1).add_(1).relu_().mul_(2),
}

# Modules of an image, and of a sequence (2, 5, 12); parameters are random.
IMAGE_LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "conv, same": lambda: nn.Conv2d(6, 4, (3, 2), padding="same", dilation=(1, 2)),
    "conv, valid": lambda: nn.Conv2d(6, 4, 3, padding="valid", bias=False),
    "conv, mirrored border": lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
    "depthwise": lambda: nn.Conv2d(6, 12, 3, (2, 1), (0, 1), groups=6),
    "grouped": lambda: nn.Conv2d(6, 4, 3, 2, 1, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1),
    "transposed, grouped": lambda: nn.ConvTranspose2d(6, 4, 2, 2, groups=2),
    "norm behind conv": lambda: nn.Sequential(
        nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(True)
    ),
    "norm behind transposed": lambda: nn.Sequential(nn.ConvTranspose2d(6, 4, 2, 2), nn.BatchNorm2d(4)),
    "norm behind grouped transposed": lambda: nn.Sequential(
        nn.ConvTranspose2d(6, 4, 2, 2, groups=2), nn.BatchNorm2d(4)
    ),
    "norm before conv": lambda: nn.Sequential(nn.BatchNorm2d(6, affine=False), nn.ReLU(), nn.Conv2d(6, 4, 1)),
    "group norm": lambda: nn.GroupNorm(3, 6),
    "instance norm": lambda: nn.InstanceNorm2d(6, affine=True),
    "prelu": lambda: nn.PReLU(6),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 3)),
}
SEQUENCE_LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(12, 7),
    "linear, no bias": lambda: nn.Linear(12, 7, bias=False),
    "layer norm": lambda: nn.LayerNorm(12),
    "layer norm of two axes": lambda: nn.LayerNorm((5, 12), elementwise_affine=False),
    "conv1d": lambda: nn.Conv1d(5, 4, 3, 2, 1),
    "conv1d, same": lambda: nn.Conv1d(5, 5, 3, padding="same", groups=5),
    "conv1d and norm": lambda: nn.Sequential(nn.Conv1d(5, 4, 3), nn.BatchNorm1d(4)),
    "transposed conv1d": lambda: nn.ConvTranspose1d(5, 4, 3, 2),
    "max pool1d": lambda: nn.MaxPool1d(3, 2),
    "average pool1d": lambda: nn.AvgPool1d(3, 2, 1),
    "adaptive pool1d": lambda: nn.AdaptiveAvgPool1d(1),
    "transformer layer": lambda: nn.TransformerEncoderLayer(12, 3, 24, batch_first=True),
    "transformer layer, norm first": lambda: nn.TransformerEncoderLayer(
        12, 2, 24, batch_first=True, norm_first=True, activation="gelu"
    ),
}


class _All(nn.Module):
    """Every case at once, so that one program is exported and compiled."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image_layers = nn.ModuleList(make() for make in IMAGE_LAYERS.values())
        self.sequence_layers = nn.ModuleList(make() for make in SEQUENCE_LAYERS.values())
        for layer in self.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2.0)

    def forward(self, image: torch.Tensor, sequence: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            *(operator(image) for operator in ON_IMAGES.values()),
            *(layer(image) for layer in self.image_layers),
            *(layer(sequence) for layer in self.sequence_layers),
        )


def test_operators_and_layers_compute_what_torch_does() -> None:
    module = _All().eval()
    inputs = (torch.randn(IMAGE), torch.randn(SEQUENCE))
    with torch.no_grad():
        expected = [value.numpy() for value in module(*inputs)]
    model = load_torch(module, inputs, options=FLOAT)
    assert model.input_names == ("image", "sequence")
    found = run_on_host(model, [value.numpy() for value in inputs])
    names = [*ON_IMAGES, *IMAGE_LAYERS, *SEQUENCE_LAYERS]
    assert len(found) == len(expected) == len(names) == len(model.output_names)
    wrong = [
        f"{name}: {np.abs(ours - theirs).max() if ours.shape == theirs.shape else (ours.shape, theirs.shape)}"
        for name, ours, theirs in zip(names, found, expected, strict=True)
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-4, atol=2e-5)
    ]
    assert not wrong, "\n".join(wrong)


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.gru = nn.GRU(12, 6, batch_first=True)
        self.both_ways = nn.GRU(12, 4, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(12, 6, batch_first=True)
        self.deep = nn.LSTM(12, 3, 2, batch_first=True, bidirectional=True)
        self.plain = nn.RNN(12, 4, nonlinearity="relu")
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gru, _ = self.gru(x)
        both, _ = self.both_ways(x)
        lstm, _ = self.lstm(x)
        deep, (hidden, cell) = self.deep(x)
        plain, last = self.plain(x.transpose(0, 1), torch.ones(1, 2, 4))
        attention, _ = self.attention(x, x, x, need_weights=False)
        causal = functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        allowed = torch.ones(5, 5, dtype=torch.bool).triu()
        masked = functional.scaled_dot_product_attention(x, x, x, attn_mask=allowed, scale=0.5)
        scores = torch.matmul(x, x.transpose(1, 2)).masked_fill(x.sum(-1, keepdim=True) > 0, -1e4)
        states = (gru[:, -1], both, lstm[:, -1], deep, hidden, cell, plain, last)
        return *states, attention, causal, masked, scores.softmax(-1)


def test_recurrent_layers_and_attention_compute_what_torch_does() -> None:
    module = _Recurrent().eval()
    x = torch.randn(SEQUENCE)
    with torch.no_grad():
        expected = [value.numpy() for value in module(x)]
    found = run_on_host(load_torch(module, (x,), options=FLOAT), [x.numpy()])
    assert len(found) == len(expected) == 12
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def test_the_callers_module_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout())
    module.train()
    before = copy.deepcopy(module.state_dict())
    load_torch(module, (torch.randn(1, 3, 8, 8),), [np.zeros((2, 3, 8, 8), np.float32)])
    assert all(part.training for part in module.modules())
    assert module[2].inplace is True
    after = module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_layer_that_is_used_twice_is_folded_into_each_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.conv(self.first(self.conv(x))))

    torch.manual_seed(2)
    module = Twice().eval()
    for norm in (module.first, module.second):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        expected = module(x).numpy()
    (found,) = run_on_host(load_torch(module, (x,), options=FLOAT), [x.numpy()])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
