"""One Relax binding under translation, and what every rule asks of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.artifacts import Place, Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import quantize_multiplier, round_half_away
from edgekit.compiler.lowering.builder import Order, ProgramBuilder
from edgekit.compiler.lowering.values import (
    Constant,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Value,
)

if TYPE_CHECKING:
    from tvm import relax


__all__ = [
    "Rule",
    "Site",
    "full_range",
    "in_order",
    "integers_of",
    "quantization_of",
    "real_operand",
    "rescale_of",
    "same_quantization",
    "scalar_of",
    "shape_of",
    "stored_bound",
    "with_tensor",
]


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One Relax binding under translation."""

    builder: ProgramBuilder
    call: relax.Call
    name: str
    place: Place | None
    shape: tuple[int, ...]
    """Logical shape of the result; () for tuples."""
    rounding: op.Rounding = "double"
    """Of convolutions: two roundings where the source's own kernels have two."""

    @property
    def attrs(self) -> Any:
        return self.call.attrs

    def physical(self, order: Order) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in order)


Rule = Callable[[Site, Sequence[Value]], Value]


def integers_of(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def scalar_of(value: Any) -> float:
    """A number given as a PrimValue, an immediate or a constant of one element."""
    if isinstance(value, Constant):
        if value.array.size != 1:
            raise NoIntegerForm("a bound that is not a single number")
        return float(value.array.reshape(()))
    for attribute in ("value", "imm"):
        value = getattr(value, attribute, value)
    return float(value)


def real_operand(value: Value, what: str, *, dtypes: Sequence[str] = ("int8",)) -> Real:
    """The operand as a stored tensor of one of `dtypes`."""
    if isinstance(value, Real):
        if value.dtype not in dtypes:
            raise NoIntegerForm(f"{what} is {value.dtype}")
        return value
    if isinstance(value, Pending):
        raise NoIntegerForm(f"no quantize between it and the operator that makes {what}")
    if isinstance(value, (Constant, QuantizedConstant)):
        raise NoIntegerForm(f"{what} is a constant")
    raise NoIntegerForm(f"{what} is not quantised to int8")


def in_order(site: Site, value: Real | Stored, wanted: Order) -> int:
    return site.builder.in_order(value.tensor, value.order, wanted, site.place)


def shape_of(site: Site, value: Real | Stored) -> tuple[int, ...]:
    """Logical shape of a stored value."""
    physical = site.builder.tensors[value.tensor].shape
    logical = [0] * len(physical)
    for position, axis in enumerate(value.order):
        logical[axis] = physical[position]
    return tuple(logical)


def with_tensor(value: Real | Stored, tensor: int, order: Order) -> Real | Stored:
    if isinstance(value, Real):
        return Real(tensor, order, value.quantization, value.dtype)
    return Stored(tensor, order, value.offset)


def quantization_of(site: Site, value: Real | Stored) -> Quantization | None:
    if isinstance(value, Real):
        return value.quantization
    return site.builder.tensors[value.tensor].quantization


def stored_bound(real: float, quantization: Quantization, dtype: str = "int8") -> int:
    """A real bound as a stored value: zero_point + round(real / scale) in float32, saturated (TFLite)."""
    limits = np.iinfo(dtype)
    if math.isinf(real):
        return int(limits.min if real < 0 else limits.max)
    ratio = np.float32(real) / np.float32(quantization.scale)
    steps = float(round_half_away(np.asarray(np.float64(ratio))))
    return int(np.clip(quantization.zero_point + steps, limits.min, limits.max))


def full_range(dtype: str) -> op.Clamp:
    """The bounds of the type itself."""
    limits = np.iinfo(dtype)
    return op.Clamp(int(limits.min), int(limits.max))


def rescale_of(real: float) -> op.Rescale:
    try:
        multiplier, shift = quantize_multiplier(real)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from None
    return op.Rescale(multiplier, shift)


def same_quantization(first: Quantization, second: Quantization) -> bool:
    return first.zero_point == second.zero_point and np.float32(first.scale) == np.float32(second.scale)
