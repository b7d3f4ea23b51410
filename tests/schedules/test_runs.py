"""Tensors that lie in runs between the bytes of others: every variant that writes them, and what reads them.

The oracle is the portable schedule with every concatenation and slice a copy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from edgekit.compiler import operators as op
from edgekit.compiler.compile import assemble
from edgekit.target import Target, load_target
from tests.campaign import campaign_count
from tests.schedules.batch import (
    Int8,
    Network,
    answers_on_board,
    answers_on_host,
    program_of,
    variant_names,
)
from tests.schedules.cases import OPERATORS, activations, bias, case, clamp, scales, weights, zero_point

WRITERS = (
    "conv2d",
    "pointwise",
    "single_pixel",
    "one_channel",
    "depthwise",
    "small_depthwise",
    "max_pool",
    "average_pool",
    "requantize",
    "lookup",
)
_SETTINGS = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
_SEEDS = st.integers(0, 2**40)


def joined(writer: str, seed: int) -> Network:
    """The operator's output joined with something else along the last axis; a part of that read by a 1x1
    convolution, and by nobody, or joined again.
    """
    rng = np.random.default_rng(seed)
    made = case(writer, seed)
    ((operator, read, shape),) = made.operators
    if len(shape) == 2:  # Elementwise: of any shape.
        assert made.inputs[0].shape == shape
        shape = (1, int(rng.integers(1, 5)), int(rng.integers(1, 5)), shape[1])
        made = Network((activations(rng, shape),), ((operator, read, shape),))
    other = (*shape[:3], int(rng.choice([1, 2, 3, 8, 13])))
    inputs: tuple[Int8, ...] = (*made.inputs, activations(rng, other))
    count = len(inputs)
    branch, second, whole = count, count + 1, count + 2
    turned = bool(rng.integers(2))
    joined_shape = (*shape[:3], shape[3] + other[3])
    rescale = op.Rescale(2**30, 1)
    rescales = (None, rescale if rng.integers(3) == 0 else None)
    zero = zero_point(rng)
    join = op.Concat(3, (zero, zero), rescales[::-1] if turned else rescales, zero, op.FullRange)
    begin = int(rng.integers(joined_shape[3]))
    taken = int(rng.integers(1, joined_shape[3] - begin + 1))
    pointwise, out = _pointwise(rng, (*shape[:3], taken))
    operators = (
        (operator, read, shape),
        (op.Requantize(0, 0, None, clamp(rng, zero)), (count - 1,), other),
        (join, (second, branch) if turned else (branch, second), joined_shape),
        (op.Slice((0, 0, 0, begin), (1, 1, 1, 1)), (whole,), (*shape[:3], taken)),
        (pointwise, (whole + 1,), out),
        (op.Requantize(0, 0, None, clamp(rng, zero)), (whole,), joined_shape),
    )
    return Network(inputs, operators, f"{writer} seed {seed}:")


def _pointwise(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[op.Conv2D, tuple[int, ...]]:
    channels, stride = int(rng.choice([1, 2, 4, 6])), int(rng.integers(1, 3))
    values = weights(rng, (channels, 1, 1, shape[3]))
    zero = zero_point(rng)
    window = op.Window((1, 1), (stride, stride))
    operator = op.Conv2D(
        window,
        values,
        bias(rng, channels, shape[3]),
        zero_point(rng),
        zero,
        *scales(rng, values),
        clamp(rng, zero),
    )
    return operator, (shape[0], *window.output_size(shape[1], shape[2]), channels)


def copied_on_host(networks: list[Network], directory: Path) -> list[Int8]:
    """The oracle."""
    with patch("edgekit.compiler.compile.interleave", lambda program, _: program):
        return answers_on_host(networks, directory)


def copies(network: Network, target: Target) -> int:
    steps = assemble(program_of([network]), target.schedules, threads=False, name="runs").program.steps
    return sum(isinstance(step.operator, op.Concat | op.Slice) for step in steps)


def test_the_portable_schedule_reads_and_writes_runs(tmp_path: Path) -> None:
    host = load_target("host")
    networks = [joined(writer, seed) for writer in WRITERS for seed in range(campaign_count(12, 3))]
    left = [copies(network, host) for network in networks]
    assert np.mean(np.array(left) == 0) > 0.7, left
    expected = copied_on_host(networks, tmp_path / "copied")
    for network, answer, wanted in zip(
        [each for each in networks for _ in each.answers],
        answers_on_host(networks, tmp_path / "shared"),
        expected,
        strict=True,
    ):
        np.testing.assert_array_equal(answer, wanted, err_msg=network.note)


@pytest.mark.emulator
@settings(_SETTINGS, max_examples=campaign_count(25, 1))
@given(seeds=st.lists(_SEEDS, min_size=2, max_size=2, unique=True))  # More take long to plan in one program.
def test_every_variant_writes_runs(emulator: str, seeds: list[int]) -> None:
    target = load_target(emulator)
    assert set(WRITERS) <= set(OPERATORS)
    networks = [joined(writer, seed) for writer in WRITERS for seed in seeds]
    named = [
        (network, name)
        for network in networks
        for name in variant_names(Network(network.inputs, network.operators[:1]), target)
    ]
    repeated = [network for network, _ in named]
    writes = {id(network.operators[0][0]): name for network, name in named}
    program = program_of(repeated)
    order = [step for step in program.steps if id(step.operator) in writes]
    choices = {step.output: name for step, (_, name) in zip(order, named, strict=True)}
    with tempfile.TemporaryDirectory() as directory:
        expected = copied_on_host(repeated, Path(directory) / "host")
        answers = answers_on_board(repeated, target, Path(directory) / "board", choices=choices)
    notes = [f"{network.note} {name}" for network, name in named for _ in network.answers]
    for note, answer, wanted in zip(notes, answers, expected, strict=True):
        np.testing.assert_array_equal(answer, wanted, err_msg=note)
