"""Float against int8, layer by layer: the signal-to-quantisation-noise ratio of every tensor.

Two are told of each operator: in the program, where it inherits the errors of those before it, and alone,
where its inputs are the reference's, rounded to their own scales.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Model, Quantization
from edgekit.compiler.comparison.advice import Evidence, advise
from edgekit.compiler.comparison.evaluate import HostProgram
from edgekit.compiler.comparison.reference import (
    FloatGraph,
    absorbed_activation,
    bindings_of,
    unrounded,
)
from edgekit.compiler.lowering import lower_traced
from edgekit.compiler.program import Program, Tensor
from edgekit.errors import ModelError
from edgekit.layer_errors import Comparison, LayerError, Reference

__all__ = ["compare_layers"]

Array = NDArray[Any]

_SAMPLE = 1024
"""Magnitudes kept of a tensor and row, for its percentiles."""
_LEAST_MATCHED = 0.5
"""Of the layers that a float source must have by name, to be the reference."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """Where an operator's output is found in the reference."""

    position: int
    tensor: Tensor
    order: tuple[int, ...] | None
    variable: str
    clamp: tuple[float, float]


@dataclass(slots=True)
class _Sums:
    """What is summed up over rows."""

    signal: float = 0.0
    noise: float = 0.0
    noise_alone: float = 0.0
    largest_error: float = 0.0
    largest: float = 0.0
    outside: int = 0
    count: int = 0
    magnitudes: list[Array] = field(default_factory=list)


def compare_layers(
    model: Model,
    source: Model | None,
    rows: Sequence[Sequence[Array]],
    advanced: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Run rows through the program and through the float reference.

    Args:
        model: the quantised model.
        source: the float model that it was made of, where there is one.
        rows: for each row the stored inputs, in the order of the model's inputs.
        advanced: told how many rows are done.

    Raises:
        UnsupportedError: the model has operators that cannot be compiled.
        ModelError: nothing in it is quantised.
    """
    program, layers, graph, reference = _prepare(model, source)
    host = HostProgram(program)
    sums = [_Sums() for _ in layers]
    rng = np.random.default_rng(0)
    for done, row in enumerate(rows, 1):
        values = graph.run(_real_inputs(program, graph, row))
        wanted = [_physical(values[layer.variable], layer) for layer in layers]
        instead = {
            layer.position: _stored(real, layer.tensor) for layer, real in zip(layers, wanted, strict=True)
        }
        outputs, alone = host.run(row), host.run(row, instead)
        for layer, real, total in zip(layers, wanted, sums, strict=True):
            _add(total, layer, real, outputs[layer.position], alone[layer.position], rng)
        advanced(done)
    errors = tuple(_error(program, layer, total) for layer, total in zip(layers, sums, strict=True))
    return Comparison(len(rows), reference, errors, _worst(errors))


# --- where the reference has each layer ---------------------------------------------------------------------


def _prepare(model: Model, source: Model | None) -> tuple[Program, list[_Layer], FloatGraph, Reference]:
    program, traces = lower_traced(model)
    unrounded_model = unrounded(model)
    by_tensor: dict[int, tuple[str, tuple[int, ...] | None]] = {}
    for trace in traces:
        by_tensor.setdefault(trace.tensor, (trace.variable, trace.order))
    found = [
        (position, program.tensors[step.output], *by_tensor[step.output])
        for position, step in enumerate(program.steps)
        if step.output in by_tensor
    ]
    quantised = [entry for entry in found if entry[1].quantization is not None]
    if not quantised:
        raise ModelError(
            f"{model.name} has no quantised tensor to compare", hint="leave --data out: it computes in float"
        )
    if source is not None:
        names = _names_in_source(model, source, unrounded_model.origins, {entry[2] for entry in found})
        layers = [_layer(*entry[:3], names[entry[2]], entry[3]) for entry in found if entry[2] in names]
        if len(layers) >= _LEAST_MATCHED * len(found):
            return program, *_matching(layers, source.module, "source")
    names = unrounded_model.names
    layers = [_layer(*entry[:3], names[entry[2]], entry[3]) for entry in found if entry[2] in names]
    return program, *_matching(layers, unrounded_model.module, "dequantized")


def _matching(
    layers: Sequence[_Layer], module: Any, reference: Reference
) -> tuple[list[_Layer], FloatGraph, Reference]:
    """The layers whose variable exists in the graph and has as many values."""
    graph = FloatGraph(module, [layer.variable for layer in layers])
    sizes = graph.sizes
    kept = [layer for layer in layers if sizes.get(layer.variable) == math.prod(layer.tensor.shape)]
    return kept, graph, reference


def _layer(position: int, tensor: Tensor, _: str, variable: str, order: tuple[int, ...] | None) -> _Layer:
    return _Layer(position, tensor, order, variable, _absorbed(tensor))


def _absorbed(tensor: Tensor) -> tuple[float, float]:
    if tensor.quantization is None:
        return -math.inf, math.inf
    limits = np.iinfo(tensor.dtype)
    quantization = tensor.quantization
    return absorbed_activation(quantization.scale, quantization.zero_point, int(limits.min), int(limits.max))


def _names_in_source(
    model: Model, source: Model, origins: Mapping[str, str], layers: Collection[str]
) -> Mapping[str, str]:
    """A variable of the quantised model to the variable of the float one with the same name in the file.

    The last one there: a convolution and its bias have one place. Where several of the `layers` have one
    place too, as the steps that a recurrent node is written out to, the name says nothing.
    """
    in_source = [
        (source.places[binding.var.name].name, binding.var.name)
        for binding in bindings_of(source.module)
        if binding.var.name in source.places
    ]
    by_place = dict(in_source)
    places = {
        binding.var.name: place.name
        for binding in bindings_of(model.module)
        if (place := model.places.get(origins.get(binding.var.name, binding.var.name))) is not None
    }
    sources = Counter(place for place, _ in in_source)
    readings = Counter(places[variable] for variable in layers if variable in places)
    return {
        variable: by_place[place]
        for variable, place in places.items()
        if place in by_place and (sources[place] == 1 or readings[place] <= 1)
    }


# --- one row ------------------------------------------------------------------------------------------------


def _real_inputs(program: Program, graph: FloatGraph, row: Sequence[Array]) -> list[Array]:
    """The row as the reference takes it: reals where its input is float, as stored elsewhere."""
    inputs = []
    for (spec, _), values, dtype in zip(program.inputs, row, graph.input_types, strict=True):
        if dtype == "float32" and spec.quantization is not None:
            values = _reals(values, spec.quantization)
        inputs.append(np.ascontiguousarray(values, dtype).reshape(spec.shape))
    return inputs


def _reals(stored: Array, quantization: Quantization | None) -> Array:
    if quantization is None:
        return stored.astype(np.float32)
    shifted = stored.astype(np.float32) - np.float32(quantization.zero_point)
    reals: Array = shifted * np.float32(quantization.scale)
    return reals


def _physical(real: Array, layer: _Layer) -> Array:
    """The reference's values as the program lays them out, through the activation that the range absorbed."""
    if layer.order is not None and real.ndim == len(layer.order):
        real = real.transpose(layer.order)
    return np.clip(real.reshape(layer.tensor.shape), *layer.clamp)


def _stored(real: Array, tensor: Tensor) -> Array:
    if tensor.quantization is None:
        return real.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    quotient = np.round(real.astype(np.float64) / tensor.quantization.scale)
    return np.clip(quotient + tensor.quantization.zero_point, limits.min, limits.max).astype(tensor.dtype)


def _add(
    total: _Sums, layer: _Layer, real: Array, output: Array, alone: Array, rng: np.random.Generator
) -> None:
    quantization = layer.tensor.quantization
    wanted = real.astype(np.float64)
    error = np.abs(wanted - _reals(output, quantization))
    total.signal += float((wanted**2).sum())
    total.noise += float((error**2).sum())
    total.noise_alone += float(((wanted - _reals(alone, quantization)) ** 2).sum())
    total.largest_error = max(total.largest_error, float(error.max(initial=0.0)))
    magnitudes = np.abs(wanted).ravel()
    total.largest = max(total.largest, float(magnitudes.max(initial=0.0)))
    total.count += magnitudes.size
    total.magnitudes.append(rng.choice(magnitudes, min(_SAMPLE, magnitudes.size), replace=False))
    if quantization is not None:
        low, high = _range(layer.tensor)
        half = quantization.scale / 2
        total.outside += int(((wanted > high + half) | (wanted < low - half)).sum())


def _range(tensor: Tensor) -> tuple[float, float]:
    assert tensor.quantization is not None
    limits = np.iinfo(tensor.dtype)
    scale, zero_point = tensor.quantization.scale, tensor.quantization.zero_point
    return scale * (limits.min - zero_point), scale * (limits.max - zero_point)


# --- what comes out -----------------------------------------------------------------------------------------


def _decibels(signal: float, noise: float) -> float | None:
    return None if signal == 0 or noise == 0 else 10 * math.log10(signal / noise)


def _error(program: Program, layer: _Layer, total: _Sums) -> LayerError:
    step = program.steps[layer.position]
    saturated = total.outside / total.count if total.count else 0.0
    alone = _decibels(total.signal, total.noise_alone)
    quantized = layer.tensor.quantization is not None
    evidence = Evidence(
        operator=step.operator,
        alone_db=alone,
        saturated=saturated,
        largest=total.largest,
        usual=float(np.quantile(np.concatenate(total.magnitudes), 0.999)) if total.magnitudes else 0.0,
        reach=max(map(abs, _range(layer.tensor))) if quantized else None,
    )
    return LayerError(
        index=layer.position,
        name=layer.tensor.name,
        op=step.operator.label,
        dtype=layer.tensor.dtype,
        sqnr_db=_decibels(total.signal, total.noise),
        alone_db=alone,
        max_abs_error=total.largest_error,
        saturated=saturated,
        advice=advise(evidence) if quantized else (),
    )


def _worst(layers: Sequence[LayerError], count: int = 3) -> tuple[int, ...]:
    """The layers that lose most by themselves."""
    lossy = [(layer.alone_db, index) for index, layer in enumerate(layers) if layer.alone_db is not None]
    return tuple(index for _, index in sorted(lossy)[:count])
