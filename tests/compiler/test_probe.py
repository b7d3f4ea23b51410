"""Probes: each operator computes and costs what it does in its own program."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.artifacts import Serving
from edgekit.compiler import compile_program
from edgekit.compiler.lowering import lower_model
from edgekit.compiler.probe import channels_of, operator_kind, probe_program
from edgekit.compiler.program import Program
from edgekit.firmware import build_image
from edgekit.frontend import load_model
from edgekit.stages import STAGES
from edgekit.target import load_target


@pytest.fixture(scope="module")
def keyword_spotting(data_dir: Path) -> Program:
    return lower_model(load_model(data_dir / "kws_ref_model.tflite"))


def _operator_costs(program: Program, target: str, folder: Path) -> dict[str, int]:
    board = load_target(target)
    compiled = compile_program(program, board, name="probe")
    image = build_image(compiled, board, folder, provenance={})
    with STAGES.open_board(board, image, None, Serving()) as client:
        for index, spec in enumerate(compiled.inputs):
            client.write_input(index, bytes(spec.size_bytes))
        costs = client.profile_operators()
    return {operator.name: cost for operator, cost in zip(compiled.operators, costs, strict=True)}


@pytest.mark.emulator
def test_an_operator_costs_in_a_probe_what_it_costs_in_its_program(
    keyword_spotting: Program, emulator: str, tmp_path: Path
) -> None:
    program = keyword_spotting
    # Backwards, and the first one twice. A softmax of what it reads takes a few instructions more or less.
    order = [*reversed(range(len(program.steps))), 0]
    probe = probe_program([(program, program.steps[place]) for place in order])
    probed = _operator_costs(probe, emulator, tmp_path / "probe")
    whole = _operator_costs(program, emulator, tmp_path / "whole")
    for place, position in enumerate(order):
        name = program.tensors[program.steps[position].output].name
        assert probed[str(place)] == pytest.approx(whole[name], rel=0.01, abs=200), name


def test_the_arena_is_that_of_the_largest_operator(keyword_spotting: Program) -> None:
    target = load_target("mps2-an386")
    selected = [(keyword_spotting, step) for step in keyword_spotting.steps]
    one = compile_program(probe_program(selected), target, name="probe")
    many = compile_program(probe_program(selected * 3), target, name="probe")
    assert many.arena_bytes == one.arena_bytes
    with pytest.raises(ValueError, match="a step"):
        probe_program([])


def test_keys_tell_operators_apart_by_all_but_their_channels(keyword_spotting: Program) -> None:
    keys = [
        (operator_kind(keyword_spotting, step), channels_of(keyword_spotting, step))
        for step in keyword_spotting.steps
    ]
    pointwise = [key for key in keys if key[0].startswith("conv2d k1x1")]
    assert len(pointwise) == 4
    assert len(set(pointwise)) == 1
    assert pointwise[0][1] == (64, 64)
    assert len({kind for kind, _ in keys}) > 3
