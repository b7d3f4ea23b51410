"""Where a torch model comes from: an object in Python, `package.module:factory`, or a `.pt2` file.

A factory is the user's own code and is called as such; its weights come from a safetensors file, which holds
tensors and nothing else. A `.pt2` archive can run code while torch loads it, so that it is opened only when
the user says that it is trusted.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifacts import ImportOptions, TorchProgram
from edgekit.errors import ModelError, UsageError
from edgekit.frontend.shapes import MAX_ELEMENTS, shape_text, show_name
from edgekit.frontend.source import MAX_MODEL_BYTES, describe_path, read_head, read_regular_file
from edgekit.frontend.torch_quiet import quiet, require_torch
from edgekit.text import function_name, printable

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["load_weights", "open_factory", "open_pt2"]

_ZIP_MAGIC = b"PK\x03\x04"


def open_factory(text: str, options: ImportOptions, folder: Path | None = None) -> TorchProgram:
    """Call `package.module:factory` and give its module the weights of the options.

    Args:
        text: The factory takes no arguments and returns a module, or (module, example inputs).
        options: `weights` and `shapes` are used; the shapes make example inputs where the factory gives none.
        folder: Where the package is looked for first; the current folder by default.

    Raises:
        ModelError: the factory can't be found or raises, or the weights don't fit.
        UsageError: nothing says what the inputs are.
    """
    require_torch()
    from torch import nn

    with _importable(folder):
        result = _call(text)
    module, given = (
        (result[0], result[1]) if isinstance(result, tuple) and len(result) == 2 else (result, None)
    )
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"The factory {text} returned {printable(type(module).__name__, 80)}; "
            "it must return a torch.nn.Module, or (module, example_inputs)."
        )
    if options.weights is not None:
        load_weights(module, options.weights)
    inputs = _examples(given, text) if given is not None else _inputs_of_shapes(module, options.shapes, text)
    return TorchProgram(module, tuple(inputs), function_name(text))


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """A console script does not search the current folder for modules; a project's model lives there."""
    extra = str((folder or Path()).resolve())
    sys.path.insert(0, extra)
    try:
        yield
    finally:
        sys.path.remove(extra)


def _call(text: str) -> Any:
    module_name, _, function_name = text.partition(":")
    try:
        importlib.invalidate_caches()
        factory = getattr(importlib.import_module(module_name), function_name, None)
        if factory is None:
            raise ModelError(f"The module {module_name} has no {function_name}.")
        if not callable(factory):
            raise ModelError(f"{text} is not a function.")
        return factory()
    except ModelError:
        raise
    except (Exception, SystemExit) as error:  # The user's own code may raise anything.
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename != __file__ and "importlib" not in frame.filename
        ]
        where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""  # noqa: PTH119
        raise ModelError(
            f"The factory {text} failed: {printable(last, 300)}{printable(where, 120)}"
        ) from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Put the tensors of a safetensors file into a module; each must be there with its shape, and no other.

    Raises:
        ModelError: the file is damaged, or its tensors aren't the module's.
    """
    import safetensors
    import safetensors.torch

    if path.suffix.lower() != ".safetensors":
        raise ModelError(
            f"{describe_path(path)} is no .safetensors file; other formats can run code when loaded.",
            hint="safetensors.torch.save_file(module.state_dict(), 'weights.safetensors')",
        )
    content = read_regular_file(path, MAX_MODEL_BYTES)
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{describe_path(path)} is no safetensors file: {printable(str(error), 200)}"
        ) from None
    own = module.state_dict()
    # Counters of training steps are in some files and not in others, and mean nothing here.
    wanted = {name for name in own if not name.endswith("num_batches_tracked")}
    problems = [f"{name} is missing" for name in sorted(wanted - tensors.keys())]
    problems += [f"{name} is not the module's" for name in sorted(tensors.keys() - own.keys())]
    problems += [
        f"{name} is {shape_text(tuple(tensors[name].shape))}, "
        f"the module's {shape_text(tuple(own[name].shape))}"
        for name in sorted(own.keys() & tensors.keys())
        if tensors[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(printable(problem, 160) for problem in problems[:8])
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ModelError(f"The weights in {describe_path(path)} are not those of the module: {shown}{more}")
    module.load_state_dict(tensors, strict=False)


def _examples(given: object, text: str) -> Sequence[torch.Tensor]:
    import torch

    values = (given,) if isinstance(given, torch.Tensor) else given
    if not isinstance(values, (tuple, list)) or not all(isinstance(value, torch.Tensor) for value in values):
        raise ModelError(f"The example inputs of {text} must be tensors, one for each argument of forward.")
    return values


def _inputs_of_shapes(
    module: nn.Module, shapes: Mapping[str, tuple[int, ...]], text: str
) -> tuple[torch.Tensor, ...]:
    """float32 zeros of the shapes that the user gave, in the order of forward's arguments."""
    import inspect

    import torch

    parameters = list(inspect.signature(module.forward).parameters.values())
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in parameters if p.default is p.empty and p.name in names]
    missing = [name for name in required if name not in shapes]
    unknown = [name for name in shapes if name not in names]
    if missing or unknown:
        raise UsageError(
            f"The module of {text} takes {', '.join(map(show_name, names)) or 'no inputs'}"
            + (f"; nothing says the shape of {', '.join(map(show_name, missing))}" if missing else "")
            + (f"; it has no {', '.join(show_name(name) for name in unknown)}" if unknown else ""),
            hint=f"--shape {(missing or names or ['x'])[0]}=1,3,96,96 (once per input), "
            "or let the factory return (module, example_inputs)",
        )
    for name, shape in shapes.items():
        elements = 1
        for size in shape:
            elements *= size
            if size < 1 or elements > MAX_ELEMENTS:
                raise UsageError(f"--shape {show_name(name)}={shape_text(shape)} is not a sensible shape.")
    return tuple(torch.zeros(shapes[name]) for name in names if name in shapes)


def open_pt2(path: Path, options: ImportOptions) -> TorchProgram:
    """Load an exported program.

    Raises:
        ModelError: it isn't trusted, or torch can't load it.
    """
    if read_head(path, len(_ZIP_MAGIC)) != _ZIP_MAGIC:
        raise ModelError(f"{describe_path(path)} is no .pt2 archive.")
    if not options.trusted:
        raise ModelError(
            f"{describe_path(path)} was not opened: loading a .pt2 archive can run code hidden in it.",
            hint="--trust loads it, if you know where it comes from; package.module:factory with "
            "--weights FILE.safetensors needs no trust in the file",
        )
    require_torch()
    import torch

    try:
        with quiet():
            program = torch.export.load(path)
    except Exception as error:  # torch raises whatever the archive makes it raise.
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        raise ModelError(f"torch cannot load {describe_path(path)}: {printable(last, 300)}") from error
    return TorchProgram(program, None, path.stem)
