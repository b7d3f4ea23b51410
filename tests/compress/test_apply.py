"""Recipes applied: what each step leaves, that it resumes, and that the folder holds the model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from torch import nn

from edgekit.compress.apply import Compressed, Events, Quantizers, Rows, apply_recipe, check_recipe
from edgekit.compress.folder import write_folder
from edgekit.compress.recipe import parse_recipe
from edgekit.compress.sparsity import magnitude_masks
from edgekit.compress.training import Epoch, Labelled
from edgekit.compression import quantizers
from edgekit.errors import UsageError
from tests.compress.networks import blobs, classifier

EXAMPLE = (torch.zeros(1, 4),)
ROWS = Rows(blobs(300, 0), blobs(200, 1), blobs(50, 2))

RECIPE = """
schema = 1
[training]
epochs = 3
batch_size = 32
learning_rate = 2e-2
[[step]]
kind = "channels"
keep = 0.5
importance = "taylor"
[[step]]
kind = "magnitude"
sparsity = 0.5
schedule = "gradual"
[[step]]
kind = "fine_tune"
loss = "both"
[[step]]
kind = "fine_tune"
"""


def _unused(*_: object) -> NoReturn:
    raise AssertionError("no step of these recipes quantises")


QUANTIZERS = Quantizers(_unused, _unused, _unused, _unused)


def _apply(work: Path, recipe: str = RECIPE, events: Events | None = None) -> Compressed:
    work.mkdir(exist_ok=True)
    return apply_recipe(
        classifier(), parse_recipe(recipe), EXAMPLE, ROWS, quantizers=QUANTIZERS, work=work, events=events
    )


def test_each_step_says_what_it_did(tmp_path: Path) -> None:
    found = _apply(tmp_path)
    channels, magnitude, gradual, tuned = found.steps
    assert (channels.kind, channels.form) == ("channels", "executed")
    assert channels.parameters_after < 0.5 * channels.parameters_before
    assert (magnitude.form, gradual.form) == ("stored", "stored")
    assert "no faster" in gradual.effect
    weights = torch.cat([layer.weight.flatten() for layer in found.module if isinstance(layer, nn.Linear)])
    # the masks hold to the end
    assert float((weights == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert tuned.accuracy_after is not None
    assert tuned.accuracy_after > 0.9


def test_masks_hold_while_it_trains_for_integers(tmp_path: Path) -> None:
    """The real preparation: what is pruned stays zero in the integers that are deployed."""
    recipe = parse_recipe(
        "schema=1\n[training]\nepochs=1\nlearning_rate=1e-2\n[[step]]\nkind='magnitude'\nsparsity=0.7\n"
        "[[step]]\nkind='quantize'\nmethod='qat'"
    )
    module = classifier()
    unjudged = Rows(ROWS.train, Labelled(ROWS.validation.x, None), ROWS.calibration)
    found = apply_recipe(module, recipe, EXAMPLE, unjudged, quantizers=quantizers(), work=tmp_path)
    weights = sum(layer.weight.numel() for layer in module if isinstance(layer, nn.Linear))
    values = [value for value in found.module.state_dict().values() if value.dtype == torch.int8]
    assert sum(value.numel() for value in values) == weights
    assert sum(int((value == 0).sum()) for value in values) >= int(0.7 * weights)


def test_quantisation_takes_the_calibration_rows_and_the_trained_module(tmp_path: Path) -> None:
    """Which module and which rows reach the functions that quantise, and that theirs is the result."""
    calls: list[tuple[str, object]] = []
    start = classifier()
    integers = classifier(4)

    def after_training(module: nn.Module, example: object, rows: Labelled) -> nn.Module:
        calls.append(("after training", rows))
        return integers

    def prepare(module: nn.Module, example: object) -> nn.Module:
        return copy.deepcopy(module)

    def convert(prepared: nn.Module) -> nn.Module:
        calls.append(("convert", prepared))
        return integers

    quantizers = Quantizers(after_training, prepare, convert, lambda module, example, rows: 0.25)
    for method in ("ptq", "qat"):
        recipe = parse_recipe(f"schema=1\n[[step]]\nkind='quantize'\nmethod='{method}'\nepochs=1")
        (tmp_path / method).mkdir()
        found = apply_recipe(start, recipe, EXAMPLE, ROWS, quantizers=quantizers, work=tmp_path / method)
        assert found.quantized
        assert found.module is integers
        assert found.steps[0].accuracy_after == 0.25
    (_, rows), (_, trained) = calls
    assert rows is ROWS.calibration
    assert isinstance(trained, nn.Sequential)
    assert not torch.equal(trained[0].weight, start[0].weight)  # type: ignore[arg-type]


def test_the_teacher_is_the_model_as_it_was(tmp_path: Path) -> None:
    """Its answers, not those of the pruned model, which would teach that one nothing."""
    recipe = parse_recipe(
        "schema=1\n[[step]]\nkind='magnitude'\nsparsity=0.6\n[[step]]\nkind='fine_tune'\n"
        "loss='distillation'\nepochs=1\nbatch_size=300\ntemperature=1"
    )
    losses: list[float] = []
    heard = Events(epoch=lambda number, epoch: losses.append(epoch.loss))
    start, pruned = classifier(), classifier()
    apply_recipe(start, recipe, EXAMPLE, ROWS, quantizers=QUANTIZERS, work=tmp_path, events=heard)
    magnitude_masks(pruned, 0.6, "global").apply(pruned)
    with torch.no_grad():
        x = torch.from_numpy(ROWS.train.x)
        expected, found = start(x).double().softmax(1), pruned(x).double().softmax(1)
    distance = float((expected * (expected / found).log()).sum(1).mean())
    assert losses[0] == pytest.approx(distance, rel=1e-4)
    assert distance > 0.0


def test_rows_are_augmented_in_every_training(tmp_path: Path) -> None:
    seen: list[int] = []

    def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(len(x))
        return x

    recipe = parse_recipe("schema=1\n[[step]]\nkind='fine_tune'\nepochs=2\nbatch_size=100")
    apply_recipe(classifier(), recipe, EXAMPLE, ROWS, quantizers=QUANTIZERS, work=tmp_path, augment=augment)
    assert seen == [100] * 6


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(
    ("schedule", "at_ends"),
    [
        # the last step before each epoch's end is 9, 19 and 29 of 30; the cubic schedule ends at 22
        ("gradual", [0.5 - 0.5 * (1 - step / 22) ** 3 for step in (9, 19)] + [0.5]),
        ("iterative", [0.5 / 3, 1.0 / 3, 0.5]),
    ],
)
def test_sparsity_grows_while_it_trains(
    tmp_path: Path, schedule: str, at_ends: list[float], scope: str
) -> None:
    """Share of zeros in the checkpoint of each epoch, against the schedules' formulas."""
    found: list[float] = []
    by_layer: list[list[float]] = []

    def counted(number: int, epoch: Epoch) -> None:
        state = torch.load(tmp_path / f"step-{number}.pt", weights_only=True)["module"]
        weights = [value.flatten() for name, value in state.items() if "weight" in name]
        found.append(float((torch.cat(weights) == 0).double().mean()))
        by_layer.append([float((one == 0).double().mean()) for one in weights])

    _apply(
        tmp_path,
        "schema=1\n[training]\nepochs=3\nbatch_size=30\n[[step]]\nkind='magnitude'\nsparsity=0.5\n"
        f"schedule='{schedule}'\nscope='{scope}'\nsteps=3\n[[step]]\nkind='fine_tune'",
        Events(epoch=counted),
    )
    assert found == pytest.approx(at_ends, abs=0.01)
    # one threshold for all takes other shares of each layer; its own takes the same
    assert (np.ptp(by_layer[0]) < 0.03) == (scope == "layer")


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop", [(3, 1), (3, 3), (4, 2)])
def test_an_interrupted_run_ends_the_same(tmp_path: Path, stop: tuple[int, int]) -> None:
    whole = _apply(tmp_path / "whole")

    def interrupt(number: int, epoch: Epoch) -> None:
        if (number, epoch.number) == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        _apply(tmp_path / "stopped", events=Events(epoch=interrupt))
    resumed = _apply(tmp_path / "stopped")
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name
    lines = [json.loads(line) for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["number"]) for line in lines] == [(s, n) for s in (3, 4) for n in (1, 2, 3)]


def test_what_cannot_work_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    unlabelled = Rows(Labelled(ROWS.train.x, None), ROWS.validation, ROWS.calibration)
    with pytest.raises(UsageError, match=r"step 1 .*labels"):
        check_recipe(classifier(), parse_recipe("schema=1\n[[step]]\nkind='fine_tune'"), EXAMPLE, unlabelled)
    with pytest.raises(UsageError, match=r"\"2\""):
        _apply(tmp_path, "schema=1\n[[step]]\nkind='channels'\nkeep_by_group={'22'=0.5}")
    assert not list(tmp_path.iterdir())
    for step, says in (
        ("keep=0.9\nmultiple_of=8", "step 1 .*no group would lose a channel.*multiples of 8"),
        ("importance='bn_scale'", "step 1 .*no layer of the group 0 has what bn_scale"),
    ):
        with pytest.raises(UsageError, match=says):
            check_recipe(
                classifier(), parse_recipe(f"schema=1\n[[step]]\nkind='channels'\n{step}"), EXAMPLE, ROWS
            )


def test_the_folder_is_the_model_and_names_no_machine(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE)
    found = _apply(tmp_path / "work")
    write_folder(tmp_path / "model", found, recipe, EXAMPLE, name="blobs")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["model.onnx", "recipe.toml", "report.json", "weights.safetensors"]
    graph = tmp_path / "model" / "model.onnx"
    assert str(Path(__file__).parent).encode() not in graph.read_bytes()
    onnx.checker.check_model(str(graph))
    weights = safetensors.numpy.load_file(tmp_path / "model" / "weights.safetensors")
    assert any(np.array_equal(w, found.module[2].weight.detach().numpy()) for w in weights.values())

    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    x = ROWS.validation.x[:1]
    (answer,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(
        answer, found.module(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-6
    )
