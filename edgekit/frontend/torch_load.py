"""From a torch module to a `Model`: capture, quantise, convert."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx, nn
from torch.export import ExportedProgram

from edgekit.artifacts import ImportOptions, Model, TorchProgram
from edgekit.errors import ModelError, UsageError
from edgekit.frontend.shapes import fix_input_shapes
from edgekit.frontend.torch_convert import convert_graph, imported_operators
from edgekit.frontend.torch_graph import capture, is_quantized
from edgekit.text import printable

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["import_torch", "quantize_torch"]


def import_torch(
    source: TorchProgram,
    options: ImportOptions,
    calibration: Sequence[npt.NDArray[np.generic]] | None,
) -> Model:
    """See `load_torch`, whose arguments these are.

    Raises:
        ModelError: the program can't be exported or converted, has values that are no numbers, or the rows
            don't fit.
        UnsupportedError: operators without a converter.
        UsageError: it is no torch program, or inputs or rows are missing.
    """
    program = source.program
    if not isinstance(program, (nn.Module, ExportedProgram)):
        raise UsageError(
            f"a model is a file's path, a torch.nn.Module or a torch.export.ExportedProgram, not "
            f"{printable(type(program).__name__, 80)}"
        )
    inputs = _inputs(program, source.example_inputs)
    _check_parameters(program)
    graph = capture(program, inputs, imported_operators())
    names = tuple(str(node.target) for node in graph.graph.nodes if node.op == "placeholder")
    resized = _resized(names, inputs, options)
    if any(old.shape != new.shape for old, new in zip(inputs, resized, strict=True)):
        inputs = resized
        graph = capture(program, inputs, imported_operators())
    digest = _digest(graph)
    if not is_quantized(graph) and options.precision != "float32":
        if calibration is None:
            raise UsageError(
                "The torch model computes in float32; quantising it takes a few rows of real inputs.",
                hint="Give them: --calibration FILE.npz (or --data), or calibration=[rows] in Python; "
                "or keep it: --precision float32.",
            )
        from edgekit.frontend.torch_quantize import calibration_rows, quantize_graph

        graph = quantize_graph(graph, calibration_rows(names, inputs, calibration), options)
    module, places = convert_graph(graph)
    fields = getattr(module["main"].ret_ty, "fields", None)
    outputs = 1 if fields is None else len(fields)
    return Model(
        name=options.name or source.name,
        format="torch",
        sha256=digest,
        module=module,
        input_names=names,
        output_names=("output",) if outputs == 1 else tuple(f"output{index}" for index in range(outputs)),
        places=places,
    )


def quantize_torch(
    module: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    calibration: Sequence[npt.NDArray[np.generic]],
    options: ImportOptions,
) -> fx.GraphModule:
    """The graph that `load_torch` would convert: with quantize and dequantize, for evaluation or export.

    It takes the shapes of the example inputs.

    Raises:
        ModelError: the module can't be exported or quantised, or the rows don't fit.
    """
    from edgekit.frontend.torch_quantize import calibration_rows, quantize_graph

    inputs = tuple(example_inputs)
    graph = capture(module, inputs, imported_operators())
    names = tuple(str(node.target) for node in graph.graph.nodes if node.op == "placeholder")
    return quantize_graph(graph, calibration_rows(names, inputs, calibration), options)


def _inputs(
    program: nn.Module | ExportedProgram, example_inputs: Sequence[object] | None
) -> tuple[torch.Tensor, ...]:
    given = example_inputs
    if given is None and isinstance(program, ExportedProgram) and program.example_inputs is not None:
        arguments, keywords = program.example_inputs
        given = (*arguments, *keywords.values())
    if given is None:
        raise UsageError(
            "A torch module does not say what its inputs are.",
            hint="Give example_inputs=(tensor, …) in Python, --shape x=1,3,96,96 on the command line.",
        )
    tensors = [torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in given]
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors):
        raise UsageError("example_inputs must be a tuple of tensors, one for each argument of forward.")
    return tuple(value.detach().cpu() for value in tensors if isinstance(value, torch.Tensor))


def _check_parameters(program: nn.Module | ExportedProgram) -> None:
    """Constants may hold infinities (a mask); what was trained may not."""
    for name, value in program.named_parameters():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"The torch model's {printable(name)} has values that are no numbers.")


def _resized(
    names: Sequence[str], inputs: Sequence[torch.Tensor], options: ImportOptions
) -> tuple[torch.Tensor, ...]:
    """The example inputs in the shapes that the user asked for."""
    declared = {name: (None,) * value.ndim for name, value in zip(names, inputs, strict=True)}
    examples = {name: tuple(value.shape) for name, value in zip(names, inputs, strict=True)}
    shapes = fix_input_shapes(declared, {**examples, **options.shapes})
    return tuple(
        value if tuple(value.shape) == shapes[name] else torch.zeros(shapes[name], dtype=value.dtype)
        for name, value in zip(names, inputs, strict=True)
    )


def _digest(graph: fx.GraphModule) -> str:
    """SHA-256 (hex) over the graph's text and the tensors that it reads."""
    digest = hashlib.sha256(str(graph.graph).encode())
    for name, value in sorted(graph.state_dict().items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
