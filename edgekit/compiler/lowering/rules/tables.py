"""Functions of one int8 tensor: whatever the graph says elementwise of it becomes one table.

A table grows while the graph is walked (`Tabulated`): each function is applied to the 256 results so far. The
quantize that fixes the output's scale turns it into a `Lookup`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op, tables
from edgekit.compiler.lowering.builder import Order, ProgramBuilder, identity_order
from edgekit.compiler.lowering.rules.site import Rule, Site, shape_of
from edgekit.compiler.lowering.values import (
    Constant,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Tabulated,
    Value,
)

__all__ = [
    "Fixed",
    "as_float",
    "combined",
    "leaky_relu",
    "looked_up",
    "reals_of_constant",
    "scalar_constant",
    "softplus",
    "tabulate",
    "unary",
    "where",
]

Fixed = Callable[[Quantization], NDArray[np.int8]]

_LITERT: Mapping[str, Callable[[Quantization, Quantization], NDArray[np.int8]]] = {
    "ABS": tables.fixed_absolute,
    "ELU": tables.elu,
    "HARD_SWISH": tables.fixed_hard_swish,
    "NEG": lambda source, output: tables.wrapped_negative(),
    "RSQRT": tables.fixed_rsqrt,
    "SQRT": tables.truncated_sqrt,
}
"""TFLite's operators, by the name that a source gives them, whose integers are not the rounded real function.

The functions of other formats are rounded: that is nearer to their reals."""

_LITERT_WITH_OPERANDS = frozenset({"ADD", "DIV", "LEAKY_RELU", "MUL", "SUB"})
"""Likewise, where the rule that met the operator knows its arithmetic (`Tabulated.fixed`)."""


def tabulate(site: Site, value: Value) -> Tabulated | None:
    """The value as a table, where it is a function of one int8 tensor."""
    if isinstance(value, Tabulated):
        return value
    if isinstance(value, Pending):
        return value.table
    if isinstance(value, Real) and value.dtype == "int8":
        return Tabulated(value, tables.reals_of(value.quantization), shape_of(site, value), None)
    return None


def _table(site: Site, source: Real, results: NDArray[np.generic], fixed: Fixed | None = None) -> Tabulated:
    return Tabulated(source, results, site.shape, site.place, fixed)


def _needs_table(site: Site, value: Value) -> Tabulated:
    table = tabulate(site, value)
    if table is not None:
        return table
    if isinstance(value, Pending):
        raise NoIntegerForm("no quantize between it and the operator that makes its input")
    raise NoIntegerForm("its input is not quantised to int8")


def reals_of_constant(value: Constant | QuantizedConstant) -> NDArray[np.generic]:
    return value.reals().astype(np.float32) if isinstance(value, QuantizedConstant) else value.array


def unary(function: Callable[[Any], Any]) -> Rule:
    """An operator of one tensor, element by element."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        value = args[0]
        if isinstance(value, (Constant, QuantizedConstant)):
            return Constant(_evaluated(function, reals_of_constant(value)))
        table = _needs_table(site, value)
        return _table(site, table.source, _evaluated(function, table.results))

    return rule


def _evaluated(function: Callable[..., Any], *operands: NDArray[np.generic]) -> NDArray[np.generic]:
    """The function in the type of its operands; what numpy widens is narrowed again."""
    with np.errstate(all="ignore"):
        result = np.asarray(function(*operands))
    return result.astype(np.float32) if result.dtype == np.float64 else result


def scalar_constant(value: Value, rank: int) -> NDArray[np.generic] | None:
    """The one element of a constant that broadcasts to a tensor of `rank` dimensions, as (), else None."""
    if not isinstance(value, (Constant, QuantizedConstant)):
        return None
    reals = reals_of_constant(value)
    return reals.reshape(()) if reals.size == 1 and reals.ndim <= rank else None


def combined(
    site: Site, args: Sequence[Value], function: Callable[..., Any], fixed: Fixed | None = None
) -> Value | None:
    """Operands that are constants, or functions of the same tensor and single numbers, as one; else None.

    `fixed` holds where no operand is itself a table.
    """
    if all(isinstance(value, (Constant, QuantizedConstant)) for value in args):
        constants = [value for value in args if isinstance(value, (Constant, QuantizedConstant))]
        return Constant(_evaluated(function, *map(reals_of_constant, constants)))
    found = [tabulate(site, value) for value in args]
    sources = [table.source for table in found if table is not None]
    rank = max((len(source.order) for source in sources), default=0)
    operands = []
    for value, table in zip(args, found, strict=True):
        results = scalar_constant(value, rank) if table is None else table.results
        if results is None:
            return None
        operands.append(results)
    if any((source.tensor, source.order) != (sources[0].tensor, sources[0].order) for source in sources):
        return None
    if any(isinstance(value, (Pending, Tabulated)) for value in args):
        fixed = None
    return _table(site, sources[0], _evaluated(function, *operands), fixed)


def leaky_relu(site: Site, args: Sequence[Value]) -> Value:
    return sloped(site, args[0], float(site.attrs.alpha))


def sloped(site: Site, value: Value, slope: float) -> Value:
    """x where it is positive, else slope · x."""
    result = unary(lambda x: np.where(x > 0, x, x * np.float32(slope)))(site, [value])
    if isinstance(result, Tabulated) and isinstance(value, Real):
        return replace(
            result, fixed=lambda output: tables.fixed_leaky_relu(value.quantization, output, slope)
        )
    return result


def softplus(site: Site, args: Sequence[Value]) -> Value:
    """log(1 + exp(beta · x)) / beta; x itself where beta · x exceeds the threshold (torch)."""
    beta, threshold = float(site.attrs.beta), float(site.attrs.threshold)

    def function(values: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = values * np.float32(beta)
        soft = tables.elementary(lambda x: np.logaddexp(0.0, x))(scaled) / np.float32(beta)
        return np.where(scaled > threshold, values, soft)

    return unary(function)(site, args)


def where(site: Site, args: Sequence[Value]) -> Value:
    result = combined(site, args, np.where)
    if result is None:
        raise NoIntegerForm("a choice between different tensors")
    return result


def looked_up(site: Site, value: Tabulated, quantization: Quantization) -> tuple[int, Order]:
    """Emit the table that stores its results as `quantization` says: tensor and order."""
    table = _stored_table(value, quantization)
    source = value.source
    shape = site.builder.tensors[source.tensor].shape
    # The site is that of the quantize; what a reader looks for is the function.
    name = site.name if value.place is None else value.place.name
    tensor = site.builder.step(op.Lookup(table), (source.tensor,), value.place, name, shape, quantization)
    return tensor, source.order


def _stored_table(value: Tabulated, quantization: Quantization) -> NDArray[np.int8]:
    name = "" if value.place is None else value.place.op
    try:
        if name in _LITERT:
            return _LITERT[name](value.source.quantization, quantization)
        if name in _LITERT_WITH_OPERANDS and value.fixed is not None:
            return value.fixed(quantization)
    except ValueError:
        # A scale that LiteRT's fixed point does not take: there the real function is rounded.
        pass
    return tables.rounded(value.results, quantization)


def as_float(builder: ProgramBuilder, value: Tabulated, because: str) -> int:
    """The results as a tensor, each exactly as the table has it, in the logical order."""
    order = identity_order(len(value.source.order))
    source = builder.in_order(value.source.tensor, value.source.order, order, value.place)
    table = np.ascontiguousarray(value.results)
    tensor = builder.tensors[source]
    name, dtype = tensor.name, str(table.dtype)
    return builder.step(
        op.Lookup(table), (source,), value.place, name, tensor.shape, None, dtype, float_because=because
    )
