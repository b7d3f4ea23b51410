"""A compressed model's folder: what `deploy DIR` takes, without anything in it that could run.

model.onnx            the graph: float, or with quantize and dequantize in it
weights.safetensors   its tensors; the graph names places in this file
recipe.toml           what was applied
report.json           what each step did
metrics.jsonl         a line an epoch of every training
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.numpy
import torch
from torch import nn

from edgekit.compress.apply import Compressed
from edgekit.compress.modules import evaluation_mode
from edgekit.compress.recipe import Recipe
from edgekit.errors import MissingToolError, ModelError
from edgekit.fsutil import atomic_write
from edgekit.text import printable

if TYPE_CHECKING:
    import onnx

__all__ = ["MODEL_FILE", "WEIGHTS_FILE", "export_onnx", "write_folder"]

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.safetensors"
OPSET = 21
_INLINE_BYTES = 64
"""Tensors of up to this size, scales and zero points, stay in the graph, where people look for them."""


def write_folder(
    directory: Path, compressed: Compressed, recipe: Recipe, example: Sequence[torch.Tensor], *, name: str
) -> None:
    """Write a compressed model; the graph comes last, so that a folder with one is whole.

    Raises:
        ModelError: the module can't be expressed in ONNX.
        MissingToolError: the exporter's package is not installed.
    """
    graph, weights = split_weights(export_onnx(compressed.module, example, name=name))
    report = {
        "schema": "edgekit.compress/1",
        "model": name,
        "quantized": compressed.quantized,
        "steps": [asdict(step) for step in compressed.steps],
    }
    directory.mkdir(parents=True, exist_ok=True)
    atomic_write(directory / "recipe.toml", recipe.text.encode("utf-8"))
    atomic_write(directory / "report.json", (json.dumps(report, indent=2) + "\n").encode("ascii"))
    atomic_write(directory / WEIGHTS_FILE, weights)
    atomic_write(directory / MODEL_FILE, graph)


def export_onnx(module: nn.Module, example: Sequence[torch.Tensor], *, name: str) -> onnx.ModelProto:
    """The module as an ONNX model of batch 1, its quantize and dequantize as QuantizeLinear and
    DequantizeLinear.

    Raises:
        ModelError: it has an operator that ONNX has not.
        MissingToolError: the exporter's package is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingToolError(
            "writing a compressed model takes the package onnxscript", hint="pip install 'edgekit[torch]'"
        ) from error
    captured = isinstance(module, torch.fx.GraphModule)
    with _quiet(), torch.no_grad(), contextlib.nullcontext() if captured else evaluation_mode(module):
        try:
            program = torch.onnx.export(
                module, tuple(example), dynamo=True, external_data=False, opset_version=OPSET, verbose=False
            )
        except Exception as error:  # the exporter raises whatever it comes upon
            raise ModelError(
                f"{printable(name)} can't be written as ONNX: {printable(str(error).splitlines()[0], 300)}"
            ) from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.graph.name = name
    _strip_notes(model)
    return model


def split_weights(model: onnx.ModelProto) -> tuple[bytes, bytes]:
    """The graph's file and the weights' file: tensors become places in a safetensors file.

    A safetensors file is a header and then every tensor's bytes as they are, which is what ONNX's external
    data points into.
    """
    from onnx import TensorProto, numpy_helper

    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) > _INLINE_BYTES]
    content = safetensors.numpy.save({tensor.name: numpy_helper.to_array(tensor) for tensor in large})
    header_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_bytes])
    for tensor in large:
        begin, end = header[tensor.name]["data_offsets"]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (
            ("location", WEIGHTS_FILE),
            ("offset", 8 + header_bytes + begin),
            ("length", end - begin),
        ):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
    return model.SerializeToString(deterministic=True), content


def _strip_notes(model: onnx.ModelProto) -> None:
    """Drop what the exporter says of the Python that it came from: paths and lines of this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for part in (model, model.graph):
        del part.metadata_props[:]
        part.ClearField("doc_string")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes to its own developers are none for ours."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
