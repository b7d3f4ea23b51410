"""Post-training quantisation of a captured graph with torchao's PT2E: observe, then convert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from edgekit.artifacts import ImportOptions
from edgekit.errors import EdgekitError, ModelError
from edgekit.frontend.calibration_rows import InputType, calibration_rows as checked_rows
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
        calibration: One array (rows, …) per input, with the input's own shape behind the rows; dimensions of
            one may be left out.

    Raises:
        ModelError: another number of arrays than inputs, of rows than rows, or rows that do not fit.
    """
    inputs = {
        name: InputType(tuple(example.shape), str(example.dtype).removeprefix("torch."))
        for name, example in zip(names, examples, strict=True)
    }
    rows = checked_rows(inputs, calibration)
    return (tuple(torch.from_numpy(np.array(values)) for values in row.values()) for row in rows)


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
