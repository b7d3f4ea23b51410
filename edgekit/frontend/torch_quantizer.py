"""Which tensors of a torch graph are stored as integers: the quantiser that torchao's PT2E asks.

A tensor is annotated where the operator that makes or reads it has an integer form, and nowhere else:
between two operators in float there is no quantize. Operators that only move values share the scale of what
they read; an activation that only bounds its input becomes the clamp of the operator before it, so that
nothing is quantised between the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import fx
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.observer import MovingAverageMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    DerivedQuantizationSpec,
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY, QuantizationSpecBase

from edgekit.artifacts import CalibrationMethod
from edgekit.frontend.torch_nodes import arguments, constant_of, is_real, operator_name, shape_of
from edgekit.frontend.torch_observers import (
    ACTIVATION_OBSERVERS,
    PerChannelWeightObserver,
    TrainedPerChannelWeightObserver,
)

__all__ = ["EdgekitQuantizer"]

Spec: TypeAlias = QuantizationSpecBase

_BIAS_MAX = 2**31 - 128
"""Largest float32 below 2³¹."""


# Operator → axis of its weights along which output channels lie.
_WEIGHTED: Mapping[str, int] = {
    "conv1d.default": 0,
    "conv2d.default": 0,
    "conv_transpose1d.default": 1,
    "conv_transpose2d.input": 1,
    "linear.default": 0,
}

_TRANSPOSED = frozenset({"conv_transpose1d.default", "conv_transpose2d.input"})

# Of those, the ones that PT2E folds a batch normalisation into after training.
_FOLDED_WEIGHTS = frozenset(_WEIGHTED) - {"linear.default"}
_NORM = "batch_norm.default"

# Bounds: part of the operator before them where it has no other reader.
_BOUNDS = frozenset(
    {
        "relu.default",
        "relu6.default",
        "hardtanh.default",
        "clamp.default",
        "clamp_min.default",
        "clamp_max.default",
    }
)
_TAKES_BOUNDS = frozenset(
    {
        *_WEIGHTED,
        "add.Tensor", "sub.Tensor", "mul.Tensor", "matmul.default", "bmm.default", "mm.default",
        "adaptive_avg_pool2d.default", "adaptive_avg_pool1d.default", "mean.dim",
        "batch_norm.default",
    }
)  # fmt: skip

# Computed from their float operands, with an output scale of their own.
_COMPUTED = frozenset(
    {
        "add.Tensor", "sub.Tensor", "rsub.Scalar", "mul.Tensor", "add.Scalar", "sub.Scalar", "mul.Scalar",
        "maximum.default", "minimum.default",
        "adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "mean.dim",
        "leaky_relu.default", "prelu.default", "hardswish.default", "gelu.default", "silu.default",
        "elu.default", "celu.default", "selu.default", "softplus.default", "softsign.default",
        "exp.default", "log.default", "sqrt.default", "rsqrt.default", "abs.default", "neg.default",
        "square.default", "erf.default", "pow.Tensor_Scalar", "sin.default", "cos.default", "mish.default",
        "layer_norm.default",
    }
)  # fmt: skip

# Of those, the ones whose other operands are parameters that stay float32.
_READS_ONE = frozenset({"layer_norm.default", "prelu.default"})

# Results whose range is known: real = scale · (stored − zero point), for int8 and for int16 (TFLite's).
_FIXED: Mapping[str, tuple[tuple[float, int], tuple[float, int]]] = {
    "softmax.int": ((1 / 256, -128), (1 / 32768, 0)),
    "_softmax.default": ((1 / 256, -128), (1 / 32768, 0)),
    "sigmoid.default": ((1 / 256, -128), (1 / 32768, 0)),
    "hardsigmoid.default": ((1 / 256, -128), (1 / 32768, 0)),
    "tanh.default": ((1 / 128, 0), (1 / 32768, 0)),
}

# Stored at the scale of what they read.
_MOVING = frozenset(
    {
        "max_pool1d.default", "max_pool2d.default", "max_pool2d_with_indices.default", "avg_pool1d.default",
        "avg_pool2d.default", "view.default", "reshape.default", "flatten.using_ints", "unflatten.int",
        "permute.default", "transpose.int", "squeeze.default", "squeeze.dim", "squeeze.dims",
        "unsqueeze.default", "slice.Tensor", "select.int", "narrow.default", "constant_pad_nd.default",
        "pad.default", "expand.default", "repeat.default", "flip.default", "roll.default",
        "upsample_nearest2d.vec", "upsample_bilinear2d.vec", "pixel_shuffle.default", "index_select.default",
        "contiguous.default", "clone.default", "dropout.default",
    }
)  # fmt: skip
_SPLITTING = frozenset({"split.Tensor", "split_with_sizes.default", "chunk.default", "unbind.int"})
_JOINING = frozenset({"cat.default", "concat.default", "stack.default"})
_PRODUCTS = frozenset({"matmul.default", "bmm.default", "mm.default"})

_MOVES_OR_JOINS = _MOVING | _SPLITTING | _JOINING | {"getitem"}


class EdgekitQuantizer(Quantizer):  # type: ignore[misc]
    """int8 weights, a symmetric scale an output channel; activations of int8 (affine) or int16 (symmetric).

    Args:
        activations: The integers of activations.
        method: How an activation's range is chosen in calibration; not asked in training.
        training: Put in fake quantisation for quantisation-aware training. Biases then stay float32; the
            compiler counts them in input scale × weight scale, as it does for any float bias.
    """

    def __init__(
        self,
        activations: Literal["int8", "int16"] = "int8",
        method: CalibrationMethod = "minmax",
        *,
        training: bool = False,
    ) -> None:
        super().__init__()
        self._narrow = activations == "int8"
        self._training = training
        self._activation = _activation_spec(self._narrow, method, training)
        self._roots: dict[fx.Node, Spec] = {}
        """Values stored as integers, each with the specification that its scale comes from."""
        self._transparent: set[fx.Node] = set()
        """Values that are quantised already, at the scale of what they read times a number."""
        self._bound_later: set[fx.Node] = set()
        self._leads_to_integers: dict[fx.Node, bool] = {}
        self._module: fx.GraphModule | None = None

    # --- what PT2E calls ------------------------------------------------------------------------------------

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        self._module = model
        self._roots.clear()
        self._transparent.clear()
        self._leads_to_integers.clear()
        nodes = list(model.graph.nodes)
        self._bound_later.clear()
        for node in nodes:
            if self._takes_bound(node):
                self._bound_later.add(node)
        for node in reversed(nodes):
            self._leads_to_integers[node] = self._is_integer_operator(node) or (
                operator_name(node) in _MOVES_OR_JOINS
                and any(self._leads_to_integers.get(user, False) for user in node.users)
            )
        for node in nodes:
            self._annotate_node(node)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Every annotation is made here; there is none of anybody else's to check."""

    # --- one operator ---------------------------------------------------------------------------------------

    def _annotate_node(self, node: fx.Node) -> None:
        name = operator_name(node)
        if name in _WEIGHTED and self._has_constant_weights(node):
            self._weighted(node, _WEIGHTED[name])
        elif name in _PRODUCTS and is_real(node):
            self._product(node)
        elif name in _FIXED and is_real(node):
            self._fixed(node, name)
        elif name in _BOUNDS and is_real(node):
            self._bound(node)
        elif name == _NORM:
            self._norm(node)
        elif self._is_scaling(node):
            self._annotate(node, {arguments(node)[0]: self._input(arguments(node)[0])}, None)
            self._transparent.add(node)
        elif name in _COMPUTED and self._is_integer_operator(node):
            inputs = [argument for argument in _operands(node) if is_real(argument)]
            if name in _READS_ONE:
                inputs = inputs[:1]
            self._annotate(node, {value: self._input(value) for value in inputs}, self._activation)
        elif name in _JOINING and is_real(node):
            self._joined(node)
        elif name in _MOVING and is_real(node):
            self._moved(node)
        elif name in _SPLITTING:
            self._split(node)

    def _weighted(self, node: fx.Node, axis: int) -> None:
        source, weight = arguments(node)[:2]
        assert isinstance(source, fx.Node)
        assert isinstance(weight, fx.Node)
        inputs: dict[fx.Node, Spec | None] = {source: self._input(source), weight: self._weight(axis)}
        bias = arguments(node)[2] if len(arguments(node)) > 2 else None
        counted = self._narrow and not self._training and source not in self._transparent
        if operator_name(node) in _TRANSPOSED and _groups(node) > 1:
            counted = False  # its weights have a scale for the channels of one group, its bias one for all
        if isinstance(bias, fx.Node) and bias.op == "get_attr" and counted:
            inputs[bias] = _bias_spec((source, node), (weight, node))
        self._annotate(node, inputs, self._activation)

    def _product(self, node: fx.Node) -> None:
        """A matrix product; one of its sides may be a parameter, whose columns then are output channels."""
        inputs: dict[fx.Node, Spec | None] = {}
        for position, value in enumerate(_operands(node)[:2]):
            rank = len(shape_of(value) or ())
            if value.op == "get_attr" and position == 1 and rank == 2:
                inputs[value] = self._weight(rank - 1)
            else:
                inputs[value] = self._input(value)
        self._annotate(node, inputs, self._activation)

    def _fixed(self, node: fx.Node, name: str) -> None:
        source = arguments(node)[0]
        assert isinstance(source, fx.Node)
        scale, zero_point = _FIXED[name][0 if self._narrow else 1]
        low, high = (-128, 127) if self._narrow else (-32768, 32767)
        spec = FixedQParamsQuantizationSpec(
            dtype=torch.int8 if self._narrow else torch.int16,
            scale=scale,
            zero_point=zero_point,
            quant_min=low,
            quant_max=high,
            qscheme=torch.per_tensor_affine,
        )
        # Scores behind a mask hold minus infinity, which no integer stands for.
        stored = source in self._roots or source in self._transparent or source.op == "placeholder"
        readable = stored or self._is_integer_operator(source)
        self._annotate(node, {source: self._input(source)} if readable else {}, spec)

    def _bound(self, node: fx.Node) -> None:
        source = arguments(node)[0]
        assert isinstance(source, fx.Node)
        inputs = {} if source in self._bound_later else {source: self._input(source)}
        self._annotate(node, inputs, self._activation)

    def _norm(self, node: fx.Node) -> None:
        """A normalisation in a training graph; behind a convolution PT2E folds it into the weights."""
        if node not in self._bound_later and arguments(node)[0] in self._bound_later:
            self._annotate(node, {}, self._activation)

    def _joined(self, node: fx.Node) -> None:
        values = [value for value in _operands(node) if is_real(value)]
        if not self._is_reached(node, values):
            return
        roots = [self._roots.get(value, self._activation) for value in values]
        if any(root != roots[0] for root in roots) or any(value in self._transparent for value in values):
            self._annotate(node, {value: self._input(value) for value in values}, self._activation)
            return
        first = values[0]
        shared = SharedQuantizationSpec((first, node))
        inputs: dict[fx.Node, Spec | None] = dict.fromkeys(values, shared)
        inputs[first] = self._input(first)
        self._annotate(node, inputs, shared, roots[0])

    def _moved(self, node: fx.Node) -> None:
        source = arguments(node)[0]
        if not isinstance(source, fx.Node) or not self._is_reached(node, [source]):
            return
        if source in self._transparent:
            self._transparent.add(node)
            return
        self._annotate(
            node,
            {source: self._input(source)},
            SharedQuantizationSpec((source, node)),
            self._roots.get(source, self._activation),
        )

    def _split(self, node: fx.Node) -> None:
        source = arguments(node)[0]
        if not isinstance(source, fx.Node) or not is_real(source) or not self._is_reached(node, [source]):
            return
        if source in self._transparent:
            self._transparent.update(node.users)
            return
        self._annotate(node, {source: self._input(source)}, None)
        for part in node.users:
            if operator_name(part) == "getitem":
                shared = SharedQuantizationSpec((source, node))
                self._annotate(part, {}, shared, self._roots.get(source, self._activation))

    # --- helpers --------------------------------------------------------------------------------------------

    def _annotate(
        self,
        node: fx.Node,
        inputs: Mapping[fx.Node, Spec | None],
        output: Spec | None,
        root: Spec | None = None,
    ) -> None:
        known = {value: spec for value, spec in inputs.items() if spec is not None}
        later = node in self._bound_later
        annotation = QuantizationAnnotation(
            input_qspec_map=known, output_qspec=None if later else output, _annotated=True
        )
        node.meta[Q_ANNOTATION_KEY] = annotation
        if output is not None and not later:
            self._roots[node] = root or output

    def _input(self, value: fx.Node) -> Spec | None:
        """The specification of a value that is read; None for one that needs no quantize of its own."""
        if value in self._transparent:
            return None
        return self._roots.get(value, self._activation)

    def _weight(self, axis: int) -> QuantizationSpec:
        observer = PerChannelWeightObserver
        constructor: Any = observer
        if self._training:
            constructor = FakeQuantize.with_args(observer=TrainedPerChannelWeightObserver, ch_axis=axis)
        return QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=constructor,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=axis,
        )

    def _has_constant_weights(self, node: fx.Node) -> bool:
        weight = arguments(node)[1]
        return is_real(node) and isinstance(weight, fx.Node) and weight.op == "get_attr"

    def _is_scaling(self, node: fx.Node) -> bool:
        """A value times a positive number: the same integers at another scale."""
        if operator_name(node) not in ("mul.Tensor", "mul.Scalar") or len(arguments(node)) < 2:
            return False
        source, factor = arguments(node)[:2]
        return (
            isinstance(source, fx.Node)
            and is_real(source)
            and isinstance(factor, int | float)
            and 0 < factor < math.inf
            and source not in self._transparent
            and node not in self._bound_later
            and (source in self._roots or source.op == "placeholder")
        )

    def _is_integer_operator(self, node: fx.Node) -> bool:
        """Whether an operator computes in integers, apart from those that only move them."""
        name = operator_name(node)
        if name in _WEIGHTED:
            return self._has_constant_weights(node)
        if not is_real(node) or not (
            name in _COMPUTED or name in _PRODUCTS or name in _FIXED or name in _BOUNDS
        ):
            return False
        operands = _operands(node)
        if name not in _READS_ONE and not all(is_real(value) for value in operands):
            return False
        return all(self._is_finite_constant(value) for value in operands if value.op == "get_attr")

    def _is_finite_constant(self, value: fx.Node) -> bool:
        """A mask of minus infinities has no scale."""
        assert self._module is not None
        return bool(torch.isfinite(constant_of(self._module, value)).all())

    def _is_reached(self, node: fx.Node, sources: Sequence[fx.Node]) -> bool:
        """Whether a value is stored as integers when it gets here, or by what reads it behind."""
        if any(source in self._roots or source in self._transparent for source in sources):
            return True
        return all(source.op == "placeholder" for source in sources) and self._leads_to_integers[node]

    def _takes_bound(self, node: fx.Node) -> bool:
        """Whether an operator's only reader is a bound, which becomes its clamp."""
        if operator_name(node) not in _TAKES_BOUNDS or len(node.users) != 1:
            return False
        (user,) = node.users
        if operator_name(node) == _NORM and arguments(node)[0] not in self._bound_later:
            return False
        if operator_name(user) == _NORM:
            return self._training and operator_name(node) in _FOLDED_WEIGHTS and arguments(user)[0] is node
        return operator_name(user) in _BOUNDS and arguments(user)[0] is node


def _groups(transposed: fx.Node) -> int:
    given = arguments(transposed)
    groups: Any = given[6] if len(given) > 6 else transposed.kwargs.get("groups", 1)
    return int(groups)


def _operands(node: fx.Node) -> list[fx.Node]:
    """Nodes among the arguments, and in the list that is the first argument of a join; each once."""
    found: dict[fx.Node, None] = {}
    for argument in arguments(node):
        for value in argument if isinstance(argument, list | tuple) else (argument,):
            if isinstance(value, fx.Node):
                found[value] = None
    return list(found)


def _activation_spec(narrow: bool, method: CalibrationMethod, training: bool) -> QuantizationSpec:
    constructor: Any = ACTIVATION_OBSERVERS[method]
    if training:
        constructor = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver)
    return QuantizationSpec(
        dtype=torch.int8 if narrow else torch.int16,
        observer_or_fake_quant_ctr=constructor,
        quant_min=-128 if narrow else -32767,
        quant_max=127 if narrow else 32767,
        qscheme=torch.per_tensor_affine if narrow else torch.per_tensor_symmetric,
    )


def _bias_spec(source: tuple[fx.Node, fx.Node], weight: tuple[fx.Node, fx.Node]) -> DerivedQuantizationSpec:
    """int32 at input scale × weight scale, in which sums are counted."""
    return DerivedQuantizationSpec(
        derived_from=[source, weight],
        derive_qparams_fn=_bias_qparams,
        dtype=torch.int32,
        quant_min=-_BIAS_MAX,
        quant_max=_BIAS_MAX,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )


def _bias_qparams(observers: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    (input_scale, _), (weight_scale, zero_point) = (observer.calculate_qparams() for observer in observers)
    return input_scale * weight_scale, torch.zeros_like(zero_point)
