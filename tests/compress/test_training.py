"""The training loop: it learns, it distils, and an interruption changes nothing."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compress.losses import distillation_loss
from edgekit.compress.modules import channels_last
from edgekit.compress.training import (
    Epoch,
    Labelled,
    Training,
    TrainingRun,
    accumulate_gradients,
    accuracy,
    train,
)
from edgekit.errors import UsageError
from edgekit.frontend.torch_qat import prepare_qat
from tests.compress.networks import EXAMPLE, Branches, blobs, classifier

ROWS, VALIDATION = blobs(300, 0), blobs(200, 1)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_labels_teach(optimizer: str) -> None:
    module = classifier()
    before = accuracy(module, VALIDATION)
    config = Training(epochs=5, batch_size=32, learning_rate=2e-2, optimizer=optimizer)  # type: ignore[arg-type]
    epochs = train(module, config, ROWS, VALIDATION)
    assert len(epochs) == 5
    assert epochs[-1].loss < epochs[0].loss
    assert before < 0.8 < 0.9 < accuracy(module, VALIDATION) == epochs[-1].accuracy


def test_a_teacher_teaches_without_labels() -> None:
    teacher = classifier()
    train(teacher, Training(epochs=5, batch_size=32, learning_rate=2e-2), ROWS, None)
    frozen = copy.deepcopy(teacher.state_dict())
    student = classifier(8)
    unlabelled = Labelled(ROWS.x, None)
    config = Training(epochs=6, batch_size=32, learning_rate=2e-2, loss="distillation")
    train(student, config, unlabelled, None, teacher=teacher)
    assert accuracy(student, VALIDATION) > 0.9
    assert all(torch.equal(value, frozen[name]) for name, value in teacher.state_dict().items())


def test_the_distillation_loss_is_hintons() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 3, (7, 5)), rng.normal(0, 3, (7, 5))

    def softmax(
        z: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        e = np.exp(z - z.max(1, keepdims=True))
        return np.asarray(e / e.sum(1, keepdims=True))

    for temperature in (1.0, 4.0):
        p, q = softmax(teacher / temperature), softmax(student / temperature)
        expected = temperature**2 * np.mean((p * (np.log(p) - np.log(q))).sum(1))
        found = distillation_loss(torch.tensor(student), torch.tensor(teacher), temperature)
        assert float(found) == pytest.approx(expected, rel=1e-9)


def test_both_losses_are_weighted() -> None:
    """The gradient of the mixture is the mixture of the gradients."""
    teacher = classifier(8)
    gradients = {}
    for name, weight in (("labels", 1.0), ("distillation", 0.0), ("both", 0.25)):
        module = classifier()
        taken: list[torch.Tensor] = []
        run = TrainingRun(after_step=lambda m, taken=taken: taken.append(m[0].weight.grad.clone()))  # type: ignore[misc]
        config = Training(epochs=1, batch_size=300, loss=name, label_weight=weight, schedule="constant")  # type: ignore[arg-type]
        train(module, config, ROWS, None, teacher=teacher, run=run)
        gradients[name] = taken[0]
    torch.testing.assert_close(
        gradients["both"], 0.25 * gradients["labels"] + 0.75 * gradients["distillation"], rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_training_is_its_formulas(optimizer: str, schedule: str) -> None:
    """A linear layer, all rows in one batch, against the same steps in numpy: the gradient of the mean
    cross-entropy; SGD with momentum, or AdamW (Loshchilov and Hutter, 2019, algorithm 2); warm-up, then
    half a cosine.
    """
    torch.manual_seed(1)
    layer = torch.nn.Linear(4, 3, bias=False)
    weights = layer.weight.detach().double().numpy().copy()
    epochs, rate, decay, momentum, rising = 10, 0.05, 0.1, 0.8, 3
    config = Training(
        epochs=epochs,
        batch_size=len(ROWS),
        learning_rate=rate,
        weight_decay=decay,
        momentum=momentum,
        optimizer=optimizer,  # type: ignore[arg-type]
        schedule=schedule,  # type: ignore[arg-type]
        warmup=rising / epochs,
    )
    train(layer, config, ROWS, None)
    assert ROWS.y is not None
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(epochs):
        after = (step - rising) / (epochs - rising)
        factor = 1.0 if schedule == "constant" else 0.5 + 0.5 * math.cos(math.pi * after)
        lr = rate * ((step + 1) / rising if step < rising else factor)
        logits = ROWS.x.astype(np.float64) @ weights.T
        answer = np.exp(logits - logits.max(1, keepdims=True))
        answer /= answer.sum(1, keepdims=True)
        gradient = (answer - np.eye(3)[ROWS.y]).T @ ROWS.x / len(ROWS)
        if optimizer == "sgd":
            first = momentum * first + gradient + decay * weights
            weights = weights - lr * first
        else:
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            move = first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
            weights = weights - lr * decay * weights - lr * move
    np.testing.assert_allclose(layer.weight.detach().numpy(), weights, rtol=1e-4, atol=1e-5)


def test_the_seed_orders_the_rows() -> None:
    found = []
    for seed in (0, 0, 1):
        module = classifier()
        train(module, Training(epochs=1, batch_size=32, seed=seed), ROWS, None)
        found.append(module[0].weight.detach().numpy())
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


class Interrupted(Exception):
    pass


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    config = Training(epochs=4, batch_size=32, seed=7)

    def noise(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    whole = classifier()
    train(whole, config, ROWS, VALIDATION, run=TrainingRun(augment=noise))

    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise Interrupted

    state = tmp_path / "state.pt"
    first = TrainingRun(checkpoint=state, advanced=stop, augment=noise)
    with pytest.raises(Interrupted):
        train(classifier(), config, ROWS, VALIDATION, run=first)
    resumed = classifier()
    heard: list[int] = []
    again = TrainingRun(checkpoint=state, advanced=lambda epoch: heard.append(epoch.number), augment=noise)
    train(resumed, config, ROWS, VALIDATION, run=again)
    assert heard == [3, 4]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_convolutions_prepared_for_integers_train_without_a_word_of_torchs_own() -> None:
    """Warnings are errors here: copying a graph that torch captured brings one."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    prepared = prepare_qat(module, EXAMPLE)
    rows = Labelled(
        np.random.default_rng(0).normal(0, 1, (64, 3, 12, 12)).astype(np.float32), np.arange(64) % 3
    )
    epochs = train(prepared, Training(epochs=4, batch_size=16, learning_rate=1e-2), rows, None)
    assert epochs[-1].loss < epochs[0].loss


def test_a_damaged_checkpoint_is_no_fresh_start(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="can't be taken up"):
        train(classifier(), Training(epochs=1), ROWS, None, run=TrainingRun(checkpoint=tmp_path / "state.pt"))


def test_gradients_are_those_of_the_mean_loss() -> None:
    module, other = classifier(), classifier()
    accumulate_gradients(module, ROWS, batch_size=77)
    assert ROWS.y is not None
    loss = torch.nn.functional.cross_entropy(other(torch.from_numpy(ROWS.x)), torch.from_numpy(ROWS.y))
    loss.backward()
    torch.testing.assert_close(module[0].weight.grad, other[0].weight.grad, rtol=1e-4, atol=1e-6)


def test_gradients_without_labels_are_those_of_the_classes_the_teacher_answers() -> None:
    """Also of the teacher itself, whose distance to its own answers has no gradient."""
    module, labelled = classifier(), classifier()
    accumulate_gradients(module, Labelled(ROWS.x, None), teacher=classifier(), batch_size=77)
    with torch.no_grad():
        answers = classifier().eval()(torch.from_numpy(ROWS.x)).argmax(1)
    torch.nn.functional.cross_entropy(labelled.eval()(torch.from_numpy(ROWS.x)), answers).backward()
    torch.testing.assert_close(module[0].weight.grad, labelled[0].weight.grad, rtol=1e-4, atol=1e-6)
    assert float(module[0].weight.grad.abs().max()) > 1e-3


def test_what_is_missing_is_named() -> None:
    unlabelled = Labelled(ROWS.x, None)
    with pytest.raises(UsageError, match="needs labels"):
        train(classifier(), Training(epochs=1), unlabelled, None)
    with pytest.raises(UsageError, match="teacher"):
        train(classifier(), Training(epochs=1, loss="distillation"), unlabelled, None)
    with pytest.raises(UsageError, match="too few"):
        train(classifier(), Training(epochs=1), Labelled(ROWS.x[:1], ROWS.y[:1]), None)  # type: ignore[index]


class Viewed(nn.Module):
    """Reads an activation as a matrix without a copy, which only the plain layout allows."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.classes = nn.Linear(400, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.classes(self.convolution(x).view(len(x), -1))
        return answer


def test_convolutions_train_channels_last_and_are_put_back() -> None:
    module = Branches()
    inputs = torch.rand(2, *EXAMPLE[0].shape[1:])
    with channels_last(inputs, module) as layout:
        assert layout is torch.channels_last
        assert module.head.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(parameter.is_contiguous() for parameter in module.parameters())


@pytest.mark.parametrize("module", [Viewed(), classifier()])
def test_a_module_that_cannot_be_laid_out_so_trains_as_it_is(module: nn.Module) -> None:
    rows = Labelled(np.random.default_rng(0).random((8, 3, 12, 12), np.float32), np.arange(8) % 5)
    rows = rows if isinstance(module, Viewed) else ROWS
    with channels_last(torch.from_numpy(rows.x[:2]), module) as layout:
        assert layout is torch.contiguous_format
    assert len(train(module, Training(epochs=1, batch_size=4), rows, None)) == 1
