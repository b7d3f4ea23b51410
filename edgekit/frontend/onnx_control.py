"""If, Loop and Scan whose course is known while importing, written out; the others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from edgekit.frontend.onnx_graph import GraphWriter, attribute, constants_of, rename, shapes_of

__all__ = ["CONTROL", "inline_control_flow"]

CONTROL = ("If", "Loop", "Scan")
MAX_ROUNDS = 512
MAX_WRITTEN = 20_000


class _Inliner:
    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.writer = GraphWriter(self.graph)
        self.constants = constants_of(self.graph)
        self.shapes = shapes_of(self.graph)

    def run(self) -> bool:
        changed = False
        rules = {"If": self._if, "Loop": self._loop, "Scan": self._scan}
        for node in self.graph.node:
            rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            copy = NodeProto()
            copy.CopyFrom(node)
            # A form that is not known leaves the node as it is, to be refused where operators are.
            if rule is None or len(self.writer.nodes) > MAX_WRITTEN or not rule(copy):
                self.writer.keep(copy)
            else:
                changed = True
        if changed:
            self.writer.finish()
            # The outputs of what is gone may have had other shapes in the file's own words.
            del self.graph.value_info[:]
        return changed

    def _known(self, name: str) -> TensorProto | None:
        return self.constants.get(name)

    def _body(self, body: GraphProto, given: Mapping[str, str]) -> list[str]:
        """Write a nested graph out with its inputs bound; returns what its outputs are called now."""
        prefix = self.writer.name(self.writer.origin or "body")
        own = {tensor.name for tensor in body.initializer} | {
            n for node in body.node for n in node.output if n
        }

        def names(name: str) -> str:
            if name in given:
                return given[name]
            return f"{prefix}/{name}" if name in own else name

        for tensor in body.initializer:
            moved = TensorProto()
            moved.CopyFrom(tensor)
            moved.name = names(tensor.name)
            self.graph.initializer.append(moved)
        for node in body.node:
            self.writer.keep(rename(node, names))
        return [names(value.name) for value in body.output]

    def _same(self, source: str, output: str) -> None:
        if output:
            self.writer.node("Identity", [source], "", output=output)

    def _if(self, node: NodeProto) -> bool:
        condition = self._known(node.input[0])
        if condition is None:
            return False
        value = bool(onnx.numpy_helper.to_array(condition).reshape(-1)[0])
        branch = attribute(node, "then_branch" if value else "else_branch", None)
        if branch is None or branch.input or len(branch.output) != len(node.output):
            return False
        self.writer.origin = node.output[0]
        for source, output in zip(self._body(branch, {}), node.output, strict=True):
            self._same(source, output)
        return True

    def _loop(self, node: NodeProto) -> bool:
        body: GraphProto | None = attribute(node, "body", None)
        if body is None or len(node.input) < 2 or not node.input[0]:
            return False
        trips = self._known(node.input[0])
        start = self._known(node.input[1]) if node.input[1] else None
        if trips is None or (node.input[1] and start is None):
            return False
        count = int(onnx.numpy_helper.to_array(trips).reshape(-1)[0])
        if start is not None and not bool(onnx.numpy_helper.to_array(start).reshape(-1)[0]):
            count = 0
        carried = len(node.input) - 2
        scanned = len(body.output) - 1 - carried
        if not 0 <= count <= MAX_ROUNDS or len(body.input) != 2 + carried or scanned < 0:
            return False
        if not self._goes_on(body) or (scanned and count == 0):
            return False
        self.writer.origin = node.output[0]
        states = list(node.input[2:])
        rows: list[list[str]] = [[] for _ in range(scanned)]
        true = self.writer.constant(True, np.bool_)
        for i in range(count):
            given = [self.writer.constant(i, np.int64), true, *states]
            results = self._body(body, dict(zip((value.name for value in body.input), given, strict=True)))
            states = results[1 : 1 + carried]
            for row, value in zip(rows, results[1 + carried :], strict=True):
                row.append(value)
        outputs = [*node.output, *[""] * (carried + scanned - len(node.output))]
        for source, output in zip(states, outputs, strict=False):
            self._same(source, output)
        for row, output in zip(rows, outputs[carried:], strict=True):
            self._stacked(row, 0, output)
        return True

    def _goes_on(self, body: GraphProto) -> bool:
        """Whether the condition that a body computes is always true (given that it was)."""
        name, condition = body.output[0].name, body.input[1].name
        constants = constants_of(body) | self.constants
        for _ in range(len(body.node) + 1):
            if name == condition:
                return True
            if name in constants:
                return bool(onnx.numpy_helper.to_array(constants[name]).reshape(-1)[0])
            source = next((n for n in body.node if name in n.output), None)
            if source is None or source.op_type != "Identity":
                return False
            name = source.input[0]
        return False

    def _stacked(self, rows: list[str], axis: int, output: str) -> None:
        if not output:
            return
        parts = []
        for row in rows:
            if self.opset >= 13:
                axes = self.writer.constant([axis], np.int64)
                parts.append(self.writer.node("Unsqueeze", [row, axes], output))
            else:
                parts.append(self.writer.node("Unsqueeze", [row], output, axes=[axis]))
        self.writer.node("Concat", parts, "", output=output, axis=axis)

    def _scan(self, node: NodeProto) -> bool:
        body: GraphProto | None = attribute(node, "body", None)
        inputs = int(attribute(node, "num_scan_inputs", 0))
        states = len(node.input) - inputs
        if body is None or inputs < 1 or states < 0 or len(body.input) != len(node.input):
            return False
        scanned = len(body.output) - states
        axes = list(attribute(node, "scan_input_axes", [0] * inputs))
        backwards = list(attribute(node, "scan_input_directions", [0] * inputs))
        out_axes = list(attribute(node, "scan_output_axes", [0] * scanned))
        out_backwards = list(attribute(node, "scan_output_directions", [0] * scanned))
        shapes = [self.shapes.get(name) for name in node.input[states:]]
        if scanned < 0 or len(axes) != inputs or any(s is None for s in shapes):
            return False
        lengths = {s[a] for s, a in zip(shapes, axes, strict=True) if s is not None and -len(s) <= a < len(s)}
        if len(lengths) != 1 or min(out_axes, default=0) < 0:
            return False
        count = lengths.pop()
        if not 1 <= count <= MAX_ROUNDS:
            return False
        self.writer.origin = node.output[0]
        carried = list(node.input[:states])
        rows: list[list[str]] = [[] for _ in range(scanned)]
        for i in range(count):
            elements = []
            for name, axis, backward in zip(node.input[states:], axes, backwards, strict=True):
                index = self.writer.constant(count - 1 - i if backward else i, np.int64)
                elements.append(self.writer.node("Gather", [name, index], name, axis=axis))
            names = (value.name for value in body.input)
            results = self._body(body, dict(zip(names, [*carried, *elements], strict=True)))
            carried = results[:states]
            for row, value in zip(rows, results[states:], strict=True):
                row.append(value)
        for source, output in zip(carried, node.output, strict=False):
            self._same(source, output)
        for position, output in enumerate(node.output[states:]):
            row = rows[position][::-1] if out_backwards[position] else rows[position]
            self._stacked(row, out_axes[position], output)
        return True


def inline_control_flow(model: ModelProto) -> tuple[bool, dict[str, str]]:
    """Write out, in place, the control flow whose course is known.

    Returns:
        Whether there was any, and for each tensor written the one of the file that it stands for.
    """
    if not any(node.op_type in CONTROL for node in model.graph.node):
        return False, {}
    inliner = _Inliner(model)
    return inliner.run(), inliner.writer.origins
