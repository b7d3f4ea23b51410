"""Takes the weights of the benchmark's int8 file into the torch network, and compares the two.

    python import_weights.py       writes model.safetensors beside this script

A weight is (stored − zero point) · scale of its channel. What the file rounds between layers the torch
network does not, so that answers agree nearly always, and not always; exit code 1 below 98 % of the rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from ds_cnn import BLOCKS, build
from safetensors.torch import save
from speech_commands import data_folder, read_rows

from edgekit import load_model
from edgekit.frontend.tflite_graph import TfliteGraph, TfliteTensor, parse_tflite
from edgekit.fsutil import atomic_write
from edgekit.optimization.accuracy import classes, predictions

__all__ = ["network_weights", "real_values"]

HERE: Final = Path(__file__).resolve().parent
MODEL_FILE: Final = "kws_ref_model.tflite"
MIN_AGREEMENT: Final = 0.98

OPERATORS: Final = (
    *("CONV_2D", "DEPTHWISE_CONV_2D") * BLOCKS,
    *("CONV_2D", "AVERAGE_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"),
)


def real_values(tensor: TfliteTensor) -> npt.NDArray[np.float32]:
    """What a constant of the file stands for, in its own shape."""
    quantization = tensor.quantization
    if quantization is None:
        raise ValueError(f"{tensor.name} has no scale")
    shape = [1] * len(tensor.shape)
    if len(quantization.scales) > 1:
        shape[quantization.axis] = -1
    scales = np.asarray(quantization.scales, np.float64).reshape(shape)
    zero_points = np.asarray(quantization.zero_points, np.int64).reshape(shape)
    real: npt.NDArray[np.float32] = ((tensor.values().astype(np.int64) - zero_points) * scales).astype(
        np.float32
    )
    return real


def network_weights(graph: TfliteGraph) -> Mapping[str, torch.Tensor]:
    """The state of `ds_cnn.build()` with the file's weights.

    Raises:
        ValueError: the file is another network.
    """
    found = tuple(operator.op for operator in graph.operators)
    if found != OPERATORS:
        raise ValueError(f"the file is another network: its operators are {', '.join(found)}")
    layers = ["stem"]
    layers += [f"block{n}.{part}" for n in range(1, BLOCKS + 1) for part in ("depthwise", "pointwise")]
    layers.append("classifier")
    state: dict[str, torch.Tensor] = {}
    for layer, operator in zip(layers, (o for o in graph.operators if len(o.inputs) == 3), strict=True):
        weights, bias = (real_values(graph.tensors[index]) for index in operator.inputs[1:])
        if operator.op == "DEPTHWISE_CONV_2D":
            weights = weights.transpose(3, 0, 1, 2)  # (1, H, W, C) to (C, 1, H, W)
        elif operator.op == "CONV_2D":
            weights = weights.transpose(0, 3, 1, 2)  # (O, H, W, I) to (O, I, H, W)
        state[f"{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(weights))
        state[f"{layer}.bias"] = torch.from_numpy(bias)
    return state


def main() -> int:
    parser = argparse.ArgumentParser(description="Weights of the benchmark's file for the torch network.")
    parser.add_argument(
        "--model", type=Path, help=f"the .tflite (default: {MODEL_FILE} in the folder of the data)"
    )
    parser.add_argument("--output", type=Path, default=HERE / "model.safetensors")
    arguments = parser.parse_args()
    model: Path = arguments.model or data_folder() / MODEL_FILE
    if not model.is_file():
        parser.error(f"{model} does not exist; README.md says where it comes from")
    try:
        rows = read_rows(data_folder())
    except FileNotFoundError as error:
        parser.error(str(error))
    state = network_weights(parse_tflite(model.read_bytes()))
    network = build().eval()
    network.load_state_dict(dict(state))
    atomic_write(arguments.output, save(dict(state)))
    print(f"{arguments.output}: {sum(one.numel() for one in state.values()):,} parameters")

    answers = classes(network, rows.x)
    stored = predictions(load_model(model), rows.x.reshape(-1, 49, 10, 1))
    same = float(np.mean(answers == stored))
    print(f"torch float  {np.mean(answers == rows.y):.4f}  of {len(rows.y)} rows right")
    print(f"TFLite int8  {np.mean(stored == rows.y):.4f}  (edgekit on this machine)")
    print(f"the same answer to {same:.4f} of the rows ({MIN_AGREEMENT} expected)")
    return 0 if same >= MIN_AGREEMENT else 1


if __name__ == "__main__":
    sys.exit(main())
