"""Post-training quantisation of a captured graph with torchao's PT2E: observe, then convert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgekit.artifacts import ImportOptions
from edgekit.errors import EdgekitError, ModelError, UsageError
from edgekit.frontend.shapes import shape_text, show_name
from edgekit.frontend.torch_nodes import describe_error
from edgekit.frontend.torch_quiet import quiet

with quiet():
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from edgekit.frontend.torch_quantizer import EdgekitQuantizer

__all__ = ["calibration_rows", "quantize_graph"]


def calibration_rows(
    names: Sequence[str],
    examples: Sequence[torch.Tensor],
    calibration: Sequence[npt.NDArray[np.generic]],
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The inputs of one inference after another, checked at once and made one by one.

    Args:
        names: Names of the inputs.
        examples: Tensors of the graph's shapes and types.
        calibration: One array (rows, …) per input, with the input's own shape behind the rows; its batch of 1
            may be left out.

    Raises:
        UsageError: another number of arrays than inputs, of rows than rows, or a shape that does not fit.
        ModelError: values that are no numbers.
    """
    if len(calibration) != len(examples):
        raise UsageError(f"The model has {len(examples)} inputs and --calibration {len(calibration)} arrays.")
    for name, example, array in zip(names, examples, calibration, strict=True):
        shape = tuple(example.shape)
        row = tuple(int(size) for size in array.shape[1:])
        if array.ndim == 0 or row not in (shape, shape[1:] if shape[:1] == (1,) else shape):
            raise UsageError(
                f"The calibration data for input {show_name(name)} has rows of {shape_text(row)}; "
                f"the model takes {shape_text(shape)}."
            )
        if array.dtype.kind not in "fiub" or not np.all(np.isfinite(array)):
            raise ModelError(
                f"The calibration data for input {show_name(name)} has values that are no numbers."
            )
    counts = {len(array) for array in calibration}
    if len(counts) != 1 or counts == {0}:
        raise UsageError("The calibration data has no rows, or another number of rows for each input.")
    return (
        tuple(
            torch.tensor(np.ascontiguousarray(array[row]).reshape(tuple(example.shape)), dtype=example.dtype)
            for array, example in zip(calibration, examples, strict=True)
        )
        for row in range(counts.pop())
    )


def quantize_graph(
    module: fx.GraphModule, rows: Iterator[tuple[torch.Tensor, ...]], options: ImportOptions
) -> fx.GraphModule:
    """The graph with quantize and dequantize around what has an integer form; weights are integers in it.

    Raises:
        ModelError: torch can't run the graph on the rows.
    """
    quantizer = EdgekitQuantizer(
        "int16" if options.precision == "int16x8" else "int8", options.calibration_method
    )
    with quiet(), torch.no_grad():
        try:
            prepared = prepare_pt2e(module, quantizer)
            for inputs in rows:
                prepared(*inputs)
            converted: fx.GraphModule = convert_pt2e(prepared)
        except EdgekitError:
            raise
        except Exception as error:  # torchao asserts and raises what it comes upon.
            raise ModelError(
                f"torchao cannot quantise the model: {describe_error(error)}",
                hint="--precision float32 deploys it without quantising it",
            ) from error
    return converted
