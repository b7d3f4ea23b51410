"""Whether a data set is one that a torch module can learn from: its rows' shape, its classes, the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekit.data import DataSet, Part
from edgekit.errors import ModelError
from edgekit.row_shapes import fits, shape_hint
from edgekit.text import printable

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["check_classes", "rows_as_input"]


def rows_as_input(data: DataSet, example: torch.Tensor) -> DataSet:
    """The data set with its rows in the shape of a module's input, where they differ in dimensions of one.

    A data set of several inputs is left as it is.

    Args:
        example: the module's input, batch first.

    Raises:
        ModelError: the rows have another shape.
    """
    shape = tuple(example.shape[1:])

    def shaped(part: Part) -> Part:
        if len(part.inputs) != 1:
            return part
        (x,) = part.inputs
        if not fits(x.shape[1:], shape):
            raise ModelError(
                f"{data.source}: a row of x is {x.shape[1:]}, and the model's input is {shape}",
                hint=shape_hint(x.shape, shape),
            )
        return Part((x.reshape(len(x), *shape),), part.y)

    return replace(data, parts={name: shaped(part) for name, part in data.parts.items()})


def check_classes(module: nn.Module, example: Sequence[torch.Tensor], data: DataSet) -> None:
    """Refuse a module that answers no classes, and labels that are none of them.

    Trainings and accuracies take the module's answers (rows, classes) as logits. Over a single number they
    would teach nothing, and any network would agree with any other.

    Raises:
        ModelError: the module answers something else, or a label is beyond its classes.
    """
    import torch

    from edgekit.compress.modules import evaluation_mode

    with evaluation_mode(module), torch.no_grad():
        answer = module(*example)
    shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else None
    if shape is None or len(shape) != 2 or shape[1] < 2:
        raise ModelError(
            f"the model answers {'several values' if shape is None else shape}; what trains it and judges it "
            "takes one value for each of two or more classes, (rows, classes)",
            hint="edgekit compress serves any model without y, by steps that don't train: channels by l1, l2 "
            'or bn_scale, magnitude, quantize with method = "ptq"',
        )
    for name, part in data.parts.items():
        if part.y is not None and int(part.y.max()) >= shape[1]:
            raise ModelError(
                f"{data.source}: y{'' if name == 'all' else '_' + printable(name)} has class "
                f"{int(part.y.max())}, and the model answers {shape[1]} classes, from 0",
                hint="classes, y = np.unique(y, return_inverse=True) counts them from 0",
            )
