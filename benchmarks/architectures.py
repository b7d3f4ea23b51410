"""Architectures with random weights, deployed and compared with torch, layer by layer.

    python -m benchmarks.architectures                             all of them on this machine, from torch
    python -m benchmarks.architectures mobilenet_v2 gru --onnx     two of them, and through ONNX as well
    python -m benchmarks.architectures unet_resized --target mps2-an386

A line says what the program consists of, how far it is from the float network (signal-to-quantisation-noise
ratio of the output in dB), how far torchao's simulation is and how often the two are within a step, the
operator that loses most by itself, and the largest error of the float32 program, in parts of the largest
output. The rows are of those that the ranges were calibrated on: what is looked for are operators that
compute something else, not values out of range. Exit code 1 when one is refused, a board differs, or a figure
is out of bounds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import edgekit
from benchmarks.networks import ARCHITECTURES, Architecture, build, rows
from edgekit import Deployment, ImportOptions, Model
from edgekit.compiler.comparison import compare_layers

__all__ = ["Line", "Route", "check"]

Route = Literal["torch", "onnx"]
Array = NDArray[Any]

CALIBRATION_ROWS = 64
COMPARED_ROWS = 8
LEAST_LAYER_DB = 24.0
"""Of one operator whose inputs are right to the step. Eight bits give 40 dB where values fill their range."""
MOST_BELOW_SIMULATION_DB = 3.0
"""Rounding to other sides, layer after layer, makes another noise of the same power."""
MOST_FLOAT_ERROR = 1e-4

FLOAT = ImportOptions(precision="float32")


@dataclass(frozen=True, slots=True)
class Line:
    """One architecture through one front end."""

    name: str
    route: Route
    macs: int
    parameters: int
    integer_operators: int
    float_operators: int
    arena_bytes: int
    output_db: float
    worst_layer_db: float
    worst_layer: str
    float_error: float
    simulated_db: float | None
    """Of torchao's simulation of the program, as far as there is one."""
    within_one_step: float | None
    """Share of the output values that are what the simulation gives."""
    verified: bool
    bit_exact: bool
    exact_program: bool
    seconds: float

    def problems(self) -> list[str]:
        """What is out of bounds, a sentence each."""
        found = [] if self.verified else ["the board's answers are not the host's"]
        if not self.exact_program:
            found.append("it computes partly in float")
        elif not self.bit_exact:
            found.append("an integer program is not bit-exact")
        if self.simulated_db is not None and self.output_db < self.simulated_db - MOST_BELOW_SIMULATION_DB:
            found.append(f"the output is at {self.output_db:.1f} dB, torchao's at {self.simulated_db:.1f}")
        if self.worst_layer_db < LEAST_LAYER_DB:
            found.append(f"{self.worst_layer} is at {self.worst_layer_db:.1f} dB by itself")
        if not self.float_error <= MOST_FLOAT_ERROR:
            found.append(f"the float32 program is {self.float_error:.1e} off")
        return found

    @property
    def text(self) -> str:
        agreement = "" if self.within_one_step is None else f"{self.within_one_step:.0%}"
        board = "equal" if self.bit_exact else "within" if self.verified else "DIFFERS"
        simulated = "" if self.simulated_db is None else f"{self.simulated_db:.1f}"
        return (
            f"{self.name:19} {self.route:5} {self.macs:>9,} {self.parameters:>8,} "
            f"{self.integer_operators:>4} {self.float_operators:>4} {self.arena_bytes:>7,} "
            f"{self.output_db:>6.1f} {simulated:>7} {agreement:>6} {self.worst_layer_db:>6.1f} "
            f"{self.float_error:>8.1e} {board:>7} {self.seconds:>4.0f}  {self.worst_layer}"
        )


HEADER = (
    f"{'architecture':19} {'from':5} {'MACs':>9} {'params':>8} {'int':>4} {'flt':>4} {'arena':>7} "
    f"{'output':>6} {'torchao':>7} {'1 step':>6} {'layer':>6} {'float32':>8} {'board':>7} {'s':>4}  layer"
)


def _export(network: nn.Module, architecture: Architecture, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(architecture.shape),),
            str(path),
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamo=False,
        )
    return path


def _import(
    network: nn.Module, architecture: Architecture, route: Route, calibration: Array, folder: Path
) -> tuple[Model, Model]:
    """The quantised model and the float one."""
    if route == "torch":
        example = (torch.zeros(architecture.shape),)
        return (
            edgekit.load_torch(network, example, calibration=[calibration]),
            edgekit.load_torch(network, example, options=FLOAT),
        )
    path = _export(network, architecture, folder / "network.onnx")
    return edgekit.load_model(path, calibration=[calibration]), edgekit.load_model(path, FLOAT)


def _outputs(deployment: Deployment, given: Array) -> Array:
    """Reals that the deployed program answers, a row each."""
    (stored,) = edgekit.run_bundle(deployment.image.directory, [given])
    quantization = deployment.compiled.outputs[0].quantization
    reals: Array = stored.astype(np.float64)
    if quantization is not None:
        reals = (reals - quantization.zero_point) * quantization.scale
    return reals


def _simulated(network: nn.Module, architecture: Architecture, calibration: Array, given: Array) -> Array:
    """What torchao says that the quantised network computes."""
    from edgekit.frontend.torch_load import quantize_torch

    graph = quantize_torch(network, (torch.zeros(architecture.shape),), [calibration], ImportOptions())
    return _computed(graph, given)


def _computed(network: nn.Module, given: Array) -> Array:
    with torch.no_grad():
        return np.stack([network(torch.from_numpy(row)).numpy() for row in given])


def _decibels(wanted: Array, found: Array) -> float:
    noise = float(((wanted - found) ** 2).sum())
    return math.inf if noise == 0 else 10 * math.log10(float((wanted.astype(np.float64) ** 2).sum()) / noise)


def _stored_rows(deployment: Deployment, given: Array) -> list[list[Array]]:
    """Rows as the program takes them."""
    quantization = deployment.compiled.inputs[0].quantization
    if quantization is None:
        return [[row] for row in given]
    stored = np.round(given.astype(np.float64) / quantization.scale) + quantization.zero_point
    return [[row] for row in np.clip(stored, -128, 127).astype(np.int8)]


def check(name: str, route: Route, target: str, folder: Path) -> Line:
    """Build, import, deploy and compare one architecture."""
    started = time.perf_counter()
    architecture = ARCHITECTURES[name]
    network = build(architecture)
    calibration = rows(architecture, CALIBRATION_ROWS, seed=3)
    given = calibration[:COMPARED_ROWS]
    model, source = _import(network, architecture, route, calibration, folder)
    deployment = edgekit.deploy(model, target=target, directory=folder / "int8", check=False)
    in_float = edgekit.deploy(source, target="host", directory=folder / "float32", check=False)
    assert deployment.verification is not None
    exact, answers, reals = _computed(network, given), _outputs(deployment, given), _outputs(in_float, given)
    within = simulated_db = None
    if route == "torch":
        simulated = _simulated(network, architecture, calibration, given)
        simulated_db = _decibels(exact, simulated)
        quantization = deployment.compiled.outputs[0].quantization
        step = 1e-3 if quantization is None else quantization.scale
        within = float((np.abs(answers - simulated) <= 1.01 * step).mean())
    comparison = compare_layers(model, source, _stored_rows(deployment, given))
    layers = [
        (layer.alone_db, layer.name, layer.op) for layer in comparison.layers if layer.alone_db is not None
    ]
    worst_db, worst_name, worst_op = min(layers)
    operators = deployment.compiled.operators
    in_floats = sum(operator.op.startswith("float.") for operator in operators)
    return Line(
        name=name,
        route=route,
        macs=deployment.compiled.macs,
        parameters=deployment.compiled.parameters,
        integer_operators=len(operators) - in_floats,
        float_operators=in_floats,
        arena_bytes=deployment.compiled.arena_bytes,
        output_db=_decibels(exact, answers),
        worst_layer_db=worst_db,
        worst_layer=f"{worst_name} ({worst_op})",
        float_error=float(np.abs(exact - reals).max() / np.abs(exact).max()),
        simulated_db=simulated_db,
        within_one_step=within,
        verified=deployment.verification.passed,
        bit_exact=deployment.verification.bit_exact,
        exact_program=deployment.compiled.exact,
        seconds=time.perf_counter() - started,
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *ARCHITECTURES], help="all by default")
    parser.add_argument("--target", default="host", help="default: host")
    parser.add_argument("--onnx", action="store_true", help="through ONNX as well")
    parser.add_argument("--json", action="store_true", help="one document at the end")
    chosen = parser.parse_args(arguments)
    routes: tuple[Route, ...] = ("torch", "onnx") if chosen.onnx else ("torch",)
    torch.set_num_threads(1)
    lines = []
    failed = False
    if not chosen.json:
        print(HEADER)
    for name in chosen.names or ARCHITECTURES:
        for route in routes:
            with tempfile.TemporaryDirectory(prefix="edgekit-architectures-") as folder:
                try:
                    line = check(name, route, chosen.target, Path(folder))
                except edgekit.errors.EdgekitError as error:
                    failed = True
                    print(f"{name:19} {route:5} {type(error).__name__}: {error}", file=sys.stderr)
                    continue
            lines.append(line)
            problems = line.problems()
            failed = failed or bool(problems)
            if not chosen.json:
                print("\n".join([line.text, *(f"    {problem}" for problem in problems)]), flush=True)
    if chosen.json:
        print(json.dumps({"schema": "edgekit.architectures/1", "lines": [asdict(line) for line in lines]}))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
