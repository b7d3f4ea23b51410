"""Tuning: by a board that is told what each variant costs, and on the emulated Cortex-M4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgekit.artifacts import Model
from edgekit.compiler import Program, compile_program, lower_model
from edgekit.compiler.candidates import list_candidates
from edgekit.errors import DeviceError, DoesNotFitError
from edgekit.frontend import load_model
from edgekit.pipeline import deploy, tune
from edgekit.target import Target, load_target
from edgekit.tuning import Tuning, tune_program
from tests.tuning.boards import ScriptedBoard
from tests.tuning.models import small_network

Variants = Mapping[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("tuned") / "small.tflite"
    path.write_bytes(small_network())
    return load_model(path)


@pytest.fixture(scope="module")
def program(model: Model) -> Program:
    return lower_model(model)


@pytest.fixture
def board_target(emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A Cortex-M4 that is no emulated one, with an empty cache folder."""
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    return load_target(emulator).model_copy(update={"emulator": None})


@pytest.fixture
def names(program: Program, board_target: Target) -> Variants:
    """The variants of each operator, the default first."""
    return {
        each.step.operator.NAME: each.variants for each in list_candidates(program, board_target, "speed")
    }


def _chosen(found: Tuning) -> dict[str, str]:
    return {operator.op: operator.chosen for operator in found.operators}


def test_what_the_board_says_is_chosen_and_asked_only_once(
    program: Program, names: Variants, board_target: Target
) -> None:
    other, dense = names["depthwise_conv2d"][1], names["dense"][1]
    board = ScriptedBoard(ticks={other: 400, dense: 300})
    found = tune_program(program, board_target, stages=board.stages())
    assert (board.flashes, found.images) == (1, 1)
    assert _chosen(found) == {
        "conv2d": names["conv2d"][0],
        "depthwise_conv2d": other,
        "dense": dense,
    }
    assert found.core is None
    compiled = compile_program(program, board_target, name="small", choices=dict(found.choices))
    assert [operator.schedule for operator in compiled.operators] == [names["conv2d"][0], other, dense]
    again = tune_program(program, board_target, stages=board.stages())
    assert (board.flashes, again.measured, len(board.built)) == (1, 0, 1)
    assert again.choices == found.choices


def test_a_choice_that_does_not_fit_leaves_the_default(
    program: Program, names: Variants, board_target: Target
) -> None:
    (default, other, *_), dense = names["depthwise_conv2d"], names["dense"][1]
    board = ScriptedBoard(ticks={other: 400, dense: 300}, ram={other: 900, default: 100}, limit=500)
    found = tune_program(program, board_target, stages=board.stages())
    assert _chosen(found)["depthwise_conv2d"] == default
    assert _chosen(found)["dense"] == dense
    assert found.limited


def test_who_prefers_ram_gets_no_choice_that_takes_more(program: Program, board_target: Target) -> None:
    in_ram = {
        each.step.operator.NAME: each.variants for each in list_candidates(program, board_target, "ram")
    }
    (default, other, *_), dense = in_ram["depthwise_conv2d"], in_ram["dense"][1]
    board = ScriptedBoard(ticks={other: 400, dense: 300}, ram={other: 200, default: 100})
    found = tune_program(program, board_target, prefer="ram", stages=board.stages())
    assert _chosen(found)["depthwise_conv2d"] == default
    assert _chosen(found)["dense"] == dense
    fast = tune_program(program, board_target, stages=board.stages())
    assert board.flashes == 2, "another preference is another measurement"
    assert _chosen(fast)["depthwise_conv2d"] == other


def test_nothing_fits(program: Program, names: Variants, board_target: Target) -> None:
    board = ScriptedBoard(ram=dict.fromkeys(names["dense"], 10), limit=5)
    with pytest.raises(DoesNotFitError, match="too large"):
        tune_program(program, board_target, stages=board.stages())


def test_a_board_that_is_gone_leaves_what_it_said_before(program: Program, board_target: Target) -> None:
    board = ScriptedBoard(probe_limit=4, fails_at=2)
    with pytest.raises(DeviceError, match="unplugged"):
        tune_program(program, board_target, stages=board.stages())
    before = board.flashes
    board.fails_at = None
    found = tune_program(program, board_target, stages=board.stages())
    variants = {cost.variant for operator in found.operators for cost in operator.costs}
    assert 0 < found.measured < len(variants)
    assert board.flashes > before


def test_one_way_to_compute_each_operator_needs_no_board(program: Program) -> None:
    board = ScriptedBoard()
    found = tune_program(program, load_target("host"), stages=board.stages())
    assert (found.choices, found.file, board.flashes) == ((), None, 0)


def test_a_tuned_program_on_the_emulated_board(
    emulator: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    found = tune(model, target=emulator)
    assert (found.images, found.core) == (1, "cortex-m4")
    for operator in found.operators:
        for cost in operator.costs:
            assert cost.model_cycles is not None
            # Each instruction takes a cycle at least; loads, divisions and branches more, nine registers ten.
            assert cost.cost * 0.98 - 100 < cost.model_cycles < 4 * cost.cost
        assert operator.chosen == min(operator.costs, key=lambda cost: cost.model_cycles or 0).variant
    deployment = deploy(model, target=emulator, tuned=True, samples=2, directory=tmp_path / "small")
    assert deployment.verification is not None
    assert deployment.verification.bit_exact
    assert deployment.measurement is not None
    measured = {operator.op: operator for operator in deployment.measurement.operators}
    for operator in found.operators:
        assert measured[operator.op].schedule == operator.chosen
        of_chosen = operator.cost(operator.chosen)
        assert of_chosen is not None
        assert measured[operator.op].p50 == pytest.approx(of_chosen.cost, rel=0.01, abs=20)
