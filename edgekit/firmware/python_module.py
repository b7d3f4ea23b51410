"""The one-file Python module that calls a compiled model's shared library with ctypes and numpy."""

from __future__ import annotations

import keyword
import sys

import jinja2

from edgekit import __version__
from edgekit.artifacts import CompiledModel, TensorSpec
from edgekit.resources import firmware_templates_directory
from edgekit.target import Target

__all__ = ["module_name", "python_module"]

_TEMPLATE = "platform/linux/model.py.j2"


def module_name(library: str) -> str:
    """The name to import: the library's own, unless Python has that name already."""
    taken = keyword.iskeyword(library) or keyword.issoftkeyword(library) or library in sys.stdlib_module_names
    return f"{library}_model" if taken or library in ("numpy", "model") else library


def python_module(compiled: CompiledModel, target: Target, library: str) -> str:
    """The module's text. Names from the model stand in it only as Python string literals in ASCII."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(firmware_templates_directory()),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(_TEMPLATE).render(
        library=library,
        module=module_name(library),
        target=target.name,
        version=__version__,
        shared_object=f"lib{library}.so",
        model_hash=compiled.model_hash,
        inputs=[_literal(spec) for spec in compiled.inputs],
        outputs=[_literal(spec) for spec in compiled.outputs],
    )


def _literal(spec: TensorSpec) -> str:
    scale = None if spec.quantization is None else spec.quantization.scale
    zero_point = 0 if spec.quantization is None else spec.quantization.zero_point
    return f"({spec.name!a}, {spec.shape!r}, {spec.dtype!r}, {scale!r}, {zero_point!r})"
