"""Write GRU, LSTM and RNN out in plain operators, one set a time step (onnx/defs/rnn has the equations).

The products with the input are one matrix product over all time steps; those with the state follow step by
step. The length of the sequence is fixed, as everything on a board is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from edgekit.artifacts import Place
from edgekit.errors import ModelError
from edgekit.frontend.onnx_graph import GraphWriter, attribute, constants_of, shapes_of
from edgekit.frontend.shapes import show_name
from edgekit.frontend.unsupported import Unsupported, refuse

__all__ = ["expand_recurrent"]

MAX_STEPS = 512

GATES: Mapping[str, int] = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "RNN": ("Tanh",),
    "GRU": ("Sigmoid", "Tanh"),
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}
# Of activations that have them: (alpha, beta) unless the file says otherwise; None takes none.
PARAMETERS: Mapping[str, tuple[float | None, float | None]] = {
    "Affine": (1.0, 0.0),
    "Elu": (1.0, None),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "Relu": (None, None),
    "ScaledTanh": (1.0, 1.0),
    "Sigmoid": (None, None),
    "Softplus": (None, None),
    "Softsign": (None, None),
    "Tanh": (None, None),
    "ThresholdedRelu": (1.0, None),
}


class _NotExpanded(Exception):
    """Why a node stays as it is and is refused."""


@dataclass(frozen=True, slots=True)
class _Activation:
    kind: str
    alpha: float | None
    beta: float | None


def _activations(node: NodeProto, directions: int) -> list[list[_Activation]]:
    """The activations of each direction, in the order of the equations (f, g, h)."""
    defaults = DEFAULTS[node.op_type]
    named = [bytes(a).decode("ascii", "replace") for a in attribute(node, "activations", ())]
    alphas = list(attribute(node, "activation_alpha", ()))
    betas = list(attribute(node, "activation_beta", ()))
    kinds = named or list(defaults) * directions
    if len(kinds) != len(defaults) * directions:
        raise _NotExpanded(f"it has {len(kinds)} activations for {directions} directions")
    found = []
    for given in kinds:
        kind = next((k for k in PARAMETERS if k.lower() == given.lower()), None)
        if kind is None:
            raise _NotExpanded(f"the activation {show_name(given)} has no converter")
        alpha, beta = PARAMETERS[kind]
        # The values are taken one by one, by the activations that have one.
        if alpha is not None and alphas:
            alpha = float(alphas.pop(0))
        if beta is not None and betas:
            beta = float(betas.pop(0))
        found.append(_Activation(kind, alpha, beta))
    count = len(defaults)
    return [found[d * count : (d + 1) * count] for d in range(directions)]


class _Cell:
    """One direction of one recurrent node."""

    def __init__(
        self,
        writer: GraphWriter,
        node: NodeProto,
        hidden: int,
        direction: int,
        activations: list[_Activation],
    ) -> None:
        self.writer = writer
        self.base = f"{next(name for name in node.output if name)}/{direction}"
        self.node = node
        self.hidden = hidden
        self.direction = direction
        self.activations = activations
        self.clip = float(attribute(node, "clip", 0.0))

    def emit(self, kind: str, *inputs: str, **attributes: object) -> str:
        return self.writer.node(kind, inputs, self.base, **attributes)

    def ints(self, *values: int) -> str:
        return self.writer.constant(values, np.int64)

    def number(self, value: float) -> str:
        return self.writer.constant(value, np.float32)

    def operand(self, position: int) -> str | None:
        names = self.node.input
        return names[position] if position < len(names) and names[position] else None

    def own(self, name: str) -> str:
        """The part of an operand (directions, …) that belongs to this direction."""
        return self.emit("Gather", name, self.writer.constant(self.direction, np.int64), axis=0)

    def part(self, value: str, first: int, last: int, axis: int = -1) -> str:
        """Gates `first` to `last`, last not included."""
        bounds = self.ints(first * self.hidden), self.ints(last * self.hidden)
        return self.emit("Slice", value, *bounds, self.ints(axis))

    def matrix(self, position: int) -> str:
        name = self.operand(position)
        if name is None:
            raise _NotExpanded("it has no weights")
        return self.emit("Transpose", self.own(name), perm=[1, 0])

    def activate(self, index: int, value: str) -> str:
        """The activation at `index` (f, g, h), behind the limit of `clip`."""
        chosen = self.activations[index]
        if self.clip:
            value = self.emit("Clip", value, self.number(-self.clip), self.number(self.clip))
        return self.function(chosen, value)

    def function(self, chosen: _Activation, value: str) -> str:
        if chosen.kind == "Affine":
            line = self.emit("Mul", value, self.number(chosen.alpha or 0.0))
            return self.emit("Add", line, self.number(chosen.beta or 0.0))
        if chosen.kind == "ScaledTanh":
            inner = self.emit("Tanh", self.emit("Mul", value, self.number(chosen.beta or 0.0)))
            return self.emit("Mul", inner, self.number(chosen.alpha or 0.0))
        named = {"alpha": chosen.alpha, "beta": chosen.beta}
        return self.emit(chosen.kind, value, **{k: v for k, v in named.items() if v is not None})

    def add(self, *values: str | None) -> str:
        """The sum of what is there."""
        found = [value for value in values if value is not None]
        total = found[0]
        for value in found[1:]:
            total = self.emit("Add", total, value)
        return total

    def multiply(self, left: str | None, right: str | None) -> str | None:
        return None if left is None or right is None else self.emit("Mul", left, right)

    def biases(self) -> tuple[str | None, str | None]:
        """Of the input's and of the state's products."""
        name = self.operand(3)
        if name is None:
            return None, None
        gates = GATES[self.node.op_type]
        both = self.own(name)
        return self.part(both, 0, gates), self.part(both, gates, 2 * gates)

    def product(self, state: str | None, weights: str) -> str | None:
        return None if state is None else self.emit("MatMul", state, weights)


class _Rnn(_Cell):
    def prepare(self, x: str) -> str:
        self.recurrent = self.matrix(2)
        return self.add(self.emit("MatMul", x, self.matrix(1)), *self.biases())

    def step(self, x: str, h: str | None, c: str | None) -> tuple[str, str | None]:
        return self.activate(0, self.add(x, self.product(h, self.recurrent))), None


class _Gru(_Cell):
    def prepare(self, x: str) -> str:
        self.linear = int(attribute(self.node, "linear_before_reset", 0))
        recurrent = self.matrix(2)
        self.recurrent = recurrent
        self.gates_weights = self.part(recurrent, 0, 2)
        self.candidate_weights = self.part(recurrent, 2, 3)
        of_input, of_state = self.biases()
        self.candidate_bias = None if of_state is None else self.part(of_state, 2, 3)
        if of_state is not None:
            # The candidate's share stays with the state where it is reset behind the product.
            zero = self.writer.constant(np.zeros(self.hidden), np.float32)
            gates = self.part(of_state, 0, 2)
            share = zero if self.linear else self.part(of_state, 2, 3)
            of_state = self.emit("Concat", gates, share, axis=0)
        return self.add(self.emit("MatMul", x, self.matrix(1)), of_input, of_state)

    def step(self, x: str, h: str | None, c: str | None) -> tuple[str, str | None]:
        gates = self.activate(0, self.add(self.part(x, 0, 2), self.product(h, self.gates_weights)))
        update, reset = self.part(gates, 0, 1), self.part(gates, 1, 2)
        if self.linear:
            inner = self.product(h, self.candidate_weights)
            inner = self.candidate_bias if inner is None else self.add(inner, self.candidate_bias)
            share = self.multiply(reset, inner)
        else:
            share = self.product(self.multiply(reset, h), self.candidate_weights)
        candidate = self.activate(1, self.add(self.part(x, 2, 3), share))
        # (1 − z)·candidate + z·h
        rest = self.emit("Mul", self.emit("Sub", self.number(1.0), update), candidate)
        return self.add(rest, self.multiply(update, h)), None


class _Lstm(_Cell):
    def prepare(self, x: str) -> str:
        self.recurrent = self.matrix(2)
        self.coupled = bool(attribute(self.node, "input_forget", 0))
        peepholes = self.operand(7)
        self.peepholes: list[str | None] = [None, None, None]
        if peepholes is not None:
            own = self.own(peepholes)
            self.peepholes = [self.part(own, i, i + 1) for i in range(3)]
        return self.add(self.emit("MatMul", x, self.matrix(1)), *self.biases())

    def step(self, x: str, h: str | None, c: str | None) -> tuple[str, str | None]:
        total = self.add(x, self.product(h, self.recurrent))
        i, o, f, g = (self.part(total, gate, gate + 1) for gate in range(4))
        entry = self.activate(0, self.add(i, self.multiply(self.peepholes[0], c)))
        if self.coupled:
            forget = self.emit("Sub", self.number(1.0), entry)
        else:
            forget = self.activate(0, self.add(f, self.multiply(self.peepholes[2], c)))
        cell = self.add(self.emit("Mul", entry, self.activate(1, g)), self.multiply(forget, c))
        exit_gate = self.activate(0, self.add(o, self.multiply(self.peepholes[1], cell)))
        return self.emit("Mul", exit_gate, self.function(self.activations[2], cell)), cell


_CELLS: Mapping[str, Callable[..., _Rnn | _Gru | _Lstm]] = {"RNN": _Rnn, "GRU": _Gru, "LSTM": _Lstm}


def _expand(
    writer: GraphWriter,
    node: NodeProto,
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, onnx.TensorProto],
) -> None:
    x_shape, recurrent = shapes.get(node.input[0]), shapes.get(node.input[2])
    if x_shape is None or recurrent is None or len(x_shape) != 3 or len(recurrent) != 3:
        raise _NotExpanded("the shape of its input or weights is not known")
    batch_first = bool(attribute(node, "layout", 0))
    steps, batch = (x_shape[1], x_shape[0]) if batch_first else (x_shape[0], x_shape[1])
    if steps > MAX_STEPS:
        raise _NotExpanded(f"a sequence of {steps} steps; at most {MAX_STEPS} are written out")
    _check_lengths(node, steps, constants)
    direction = bytes(attribute(node, "direction", b"forward"))
    backwards = {b"forward": [False], b"reverse": [True], b"bidirectional": [False, True]}.get(direction)
    if backwards is None or recurrent[0] != len(backwards):
        raise _NotExpanded("its direction does not fit its weights")
    hidden = recurrent[2]
    writer.origin = next(name for name in node.output if name)
    base = writer.origin
    x = node.input[0]
    if batch_first:
        x = writer.node("Transpose", [x], base, perm=[1, 0, 2])
    activations = _activations(node, len(backwards))
    sequences: list[list[str]] = []
    finals: list[tuple[str, str | None]] = []
    for index, backward in enumerate(backwards):
        cell = _CELLS[node.op_type](writer, node, hidden, index, activations[index])
        states = [_initial(cell, node, position, batch_first) for position in (5, 6)]
        h, c = states[0], states[1] if node.op_type == "LSTM" else None
        products = cell.prepare(x)
        written: dict[int, str] = {}
        for t in reversed(range(steps)) if backward else range(steps):
            now = writer.node("Gather", [products, writer.constant(t, np.int64)], base, axis=0)
            h, c = cell.step(now, h, c)
            written[t] = h
        assert h is not None
        sequences.append([written[t] for t in range(steps)])
        finals.append((h, c))
    _write_outputs(writer, node, sequences, finals, (steps, batch, hidden), batch_first)


def _check_lengths(node: NodeProto, steps: int, constants: Mapping[str, onnx.TensorProto]) -> None:
    if len(node.input) <= 4 or not node.input[4]:
        return
    lengths = constants.get(node.input[4])
    if lengths is None or np.any(onnx.numpy_helper.to_array(lengths) != steps):
        raise _NotExpanded("sequences of different lengths in one batch have no converter")


def _initial(cell: _Cell, node: NodeProto, position: int, batch_first: bool) -> str | None:
    if position == 6 and node.op_type != "LSTM":
        return None
    name = cell.operand(position)
    if name is None:
        return None
    index = cell.writer.constant(cell.direction, np.int64)
    return cell.emit("Gather", name, index, axis=1 if batch_first else 0)


def _write_outputs(
    writer: GraphWriter,
    node: NodeProto,
    sequences: Sequence[Sequence[str]],
    finals: Sequence[tuple[str, str | None]],
    sizes: tuple[int, int, int],
    batch_first: bool,
) -> None:
    """Y (steps, directions, batch, hidden), and the last states (directions, batch, hidden)."""
    steps, batch, hidden = sizes
    directions = len(sequences)
    base = writer.origin

    def joined(values: Sequence[str], shape: Sequence[int], output: str, order: Sequence[int]) -> None:
        whole = values[0] if len(values) == 1 else writer.node("Concat", values, base, axis=0)
        wanted = writer.constant(shape, np.int64)
        if batch_first:
            whole = writer.node("Reshape", [whole, wanted], base)
            writer.node("Transpose", [whole], base, output=output, perm=list(order))
        else:
            writer.node("Reshape", [whole, wanted], base, output=output)

    outputs = [*node.output, "", "", ""]
    if outputs[0]:
        values = [sequences[d][t] for t in range(steps) for d in range(directions)]
        joined(values, (steps, directions, batch, hidden), outputs[0], (2, 0, 1, 3))
    for position in (0, 1):
        if outputs[1 + position]:
            states = [state for final in finals if (state := final[position]) is not None]
            joined(states, (directions, batch, hidden), outputs[1 + position], (1, 0, 2))


def expand_recurrent(model: ModelProto) -> dict[str, str]:
    """Rewrite a model with inferred shapes in place.

    Returns:
        For each tensor written, the one of the file that it stands for; empty when nothing was rewritten.

    Raises:
        UnsupportedError: forms that are not written out, all of them at once.
    """
    graph = model.graph
    if not any(node.op_type in GATES and node.domain in ("", "ai.onnx") for node in graph.node):
        return {}
    shapes, constants = shapes_of(graph), constants_of(graph)
    writer = GraphWriter(graph)
    found: list[Unsupported] = []
    for index, node in enumerate(graph.node):
        if node.op_type not in GATES or node.domain not in ("", "ai.onnx"):
            writer.keep(node)
            continue
        copy = NodeProto()
        copy.CopyFrom(node)
        if len(copy.input) < 3 or not any(copy.output):
            raise ModelError(f"{copy.op_type} (operator {index}) of the ONNX file lacks operands.")
        try:
            _expand(writer, copy, shapes, constants)
        except _NotExpanded as reason:
            name = next(name for name in copy.output if name)
            found.append(Unsupported(Place(copy.op_type, name, index), str(reason)))
    refuse(found)
    writer.finish()
    return writer.origins
