"""What there is to know of one operator of a torch graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.errors import ModelError
from edgekit.text import printable

__all__ = [
    "arguments",
    "constant_of",
    "describe_error",
    "is_real",
    "module_path",
    "operator_name",
    "shape_of",
    "tensor_of",
]


def describe_error(error: BaseException) -> str:
    """Type and first line of an error that torch or the user's code raised, harmless to show."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return printable(f"{type(error).__name__}: {lines[0].strip()}", 300)


def constant_of(graph_module: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    """The tensor that a get_attr node reads.

    Raises:
        ModelError: the node computes its value, where a constant is needed.
    """
    if node.op != "get_attr":
        raise ModelError(
            f"{printable(str(node.target))} {printable(module_path(node) or node.name)} needs constants, "
            "and its parameters are computed"
        )
    value: Any = graph_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, torch.Tensor)
    return value


def tensor_of(value: object) -> torch.Tensor | None:
    """The fake tensor of a node that makes one tensor; None for anything else."""
    found = value.meta.get("val") if isinstance(value, fx.Node) else None
    return found if isinstance(found, torch.Tensor) else None


def shape_of(value: object) -> tuple[int, ...] | None:
    tensor = tensor_of(value)
    if tensor is None or not all(isinstance(size, int) for size in tensor.shape):
        return None
    return tuple(tensor.shape)


def is_real(value: object) -> bool:
    tensor = tensor_of(value)
    return tensor is not None and tensor.dtype == torch.float32


def module_path(node: fx.Node) -> str:
    """Path of the innermost module that an operator belongs to, `features.3.conv`; "" for the top one."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values()]
    return str(paths[-1]) if paths else ""


def operator_name(node: fx.Node) -> str:
    """`relu.default` for aten.relu.default and for aten.relu_.default; "" for what is no operator."""
    if node.op != "call_function":
        return ""
    name = str(getattr(node.target, "__name__", ""))
    operator, dot, overload = name.partition(".")
    return operator.rstrip("_") + dot + overload


def arguments(node: fx.Node) -> tuple[Any, ...]:
    """The positional arguments of an operator: nodes, numbers, lists of them."""
    return node.args
