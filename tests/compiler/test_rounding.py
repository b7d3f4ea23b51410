"""Requantisation with one rounding: the program against whole-number arithmetic, and against torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifacts import Serving, TensorSpec
from edgekit.compiler import compile_program, operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.firmware import build_image
from edgekit.stages import STAGES
from edgekit.target import load_target

CHANNELS = 64
PIXELS = 200


def _program(shifts: np.ndarray[tuple[int, ...], np.dtype[np.int32]], rounding: op.Rounding) -> Program:
    rng = np.random.default_rng(0)
    operator = op.Conv2D(
        window=op.Window((1, 1)),
        weights=rng.integers(-128, 128, (CHANNELS, 1, 1, 8)).astype(np.int8),
        bias=rng.integers(-(2**20), 2**20, CHANNELS).astype(np.int32),
        input_zero_point=3,
        output_zero_point=-5,
        multipliers=rng.integers(2**30, 2**31 - 1, CHANNELS).astype(np.int32),
        shifts=shifts,
        clamp=op.FullRange,
        rounding=rounding,
    )
    source = Tensor(0, "x", (1, 1, PIXELS, 8), "int8", None, 0)
    output = Tensor(1, "y", (1, 1, PIXELS, CHANNELS), "int8", None, 1)
    return Program(
        (source, output),
        (Step(operator, (0,), 1, None),),
        ((TensorSpec("x", source.shape, "int8"), 0),),
        ((TensorSpec("y", output.shape, "int8"), 1),),
    )


@pytest.mark.parametrize("low", [-20, -1, 0, 3])
def test_one_rounding_is_the_nearest_whole_number_with_halves_upwards(low: int, tmp_path: Path) -> None:
    """Shifts that leave the high word enough, shifts that do not, and shifts to the left."""
    shifts = np.random.default_rng(low + 100).integers(low - 2, low + 1, CHANNELS).astype(np.int32)
    program = _program(shifts, "single")
    host = load_target("host")
    image = build_image(compile_program(program, host, name="one"), host, tmp_path / "one", provenance={})
    x = np.random.default_rng(1).integers(-128, 128, (PIXELS, 8)).astype(np.int8)
    with STAGES.open_board(host, image, None, Serving()) as client:
        client.write_input(0, x.tobytes())
        client.run()
        found = np.frombuffer(client.read_output(0), np.int8).reshape(PIXELS, CHANNELS)
    operator = program.steps[0].operator
    assert isinstance(operator, op.Conv2D)
    sums = (x.astype(object) - 3) @ operator.weights.reshape(CHANNELS, 8).T.astype(object) + operator.bias
    for channel in range(CHANNELS):
        total = 31 - int(shifts[channel])
        scaled = [
            (int(v) * int(operator.multipliers[channel]) + (1 << (total - 1))) >> total
            for v in sums[:, channel]
        ]
        np.testing.assert_array_equal(found[:, channel], np.clip(np.array(scaled) - 5, -128, 127))


def test_a_torch_models_program_answers_as_the_quantised_torch_model(
    repository: Path, tmp_path: Path
) -> None:
    """Eleven convolutions one behind another: what a layer rounds otherwise, later layers multiply."""
    import safetensors.torch
    import torch

    from edgekit.artifacts import DEFAULT_COMPILE, DEFAULT_IMPORT, TorchProgram
    from edgekit.data import to_stored
    from edgekit.frontend import load_model
    from edgekit.frontend.torch_load import quantize_torch
    from edgekit.verify import infer

    example = repository / "examples" / "fashion_mnist"
    specification = importlib.util.spec_from_file_location("fashion_mnist_model", example / "model.py")
    assert specification is not None
    assert specification.loader is not None
    definition = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(definition)
    network = definition.build().eval()
    network.load_state_dict(safetensors.torch.load_file(example / "model.safetensors"), strict=False)
    x = np.load(example / "sample.npz")["x"][:100]
    calibration = [np.load(example / "calibration.npz")["x"][:50]]
    inputs = (torch.zeros(1, 1, 28, 28),)
    quantized = quantize_torch(network, inputs, calibration, DEFAULT_IMPORT)
    model = load_model(TorchProgram(network, inputs, "fashion_mnist"), calibration=calibration)
    host = load_target("host")
    compiled = STAGES.compile_model(model, host, DEFAULT_COMPILE)
    image = STAGES.build_image(compiled, host, tmp_path / "torch", {})
    stored = to_stored(x, compiled.inputs[0])
    quantization = compiled.outputs[0].quantization
    assert quantization is not None
    near, same, count = 0, 0, 0
    with STAGES.open_board(host, image, None, Serving()) as client, torch.no_grad():
        for row in range(len(x)):
            found = infer(client, (stored[row].tobytes(),), compiled.outputs)[0].reshape(-1).astype(int)
            reals = quantized(torch.from_numpy(x[row : row + 1])).numpy().reshape(-1)
            expected = np.rint(reals / quantization.scale).astype(int) + quantization.zero_point
            near += int((np.abs(found - expected) <= 1).sum())
            same += int(found.argmax() == expected.argmax())
            count += len(found)
    assert near >= 0.99 * count
    assert same >= 0.98 * len(x)
