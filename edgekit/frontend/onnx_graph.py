"""Building blocks for rewriting ONNX graphs: names that are free, constants, nested graphs, renaming."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

__all__ = ["GraphWriter", "attribute", "constants_of", "nested_graphs", "rename", "shapes_of", "sort_nodes"]


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def nested_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all graphs that its nodes hold; the check of the wire format bounds their depth."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from nested_graphs(item.g)
            for inner in item.graphs:
                yield from nested_graphs(inner)


def constants_of(graph: GraphProto) -> dict[str, TensorProto]:
    """The constants of a graph by name: initializers and Constant nodes with a tensor."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            value = attribute(node, "value", None)
            if isinstance(value, TensorProto):
                found[node.output[0]] = value
    return found


def sort_nodes(graph: GraphProto) -> None:
    """Put each node behind those whose results it reads, where a file has them in another order.

    ONNX Runtime takes such files, and its converter to float16 writes them. Nodes on a cycle stay behind.
    """
    produced = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waits = [{produced[name] for name in _reads(node) if name in produced} for node in graph.node]
    if all(before < index for index, others in enumerate(waits) for before in others):
        return
    readers: dict[int, list[int]] = {}
    for index, others in enumerate(waits):
        for before in others:
            readers.setdefault(before, []).append(index)
    missing = [len(others) for others in waits]
    ready = [index for index, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        done = heapq.heappop(ready)
        order.append(done)
        for index in readers.get(done, ()):
            missing[index] -= 1
            if missing[index] == 0:
                heapq.heappush(ready, index)
    placed = set(order)
    order += [index for index in range(len(waits)) if index not in placed]
    nodes = [graph.node[index] for index in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _reads(node: NodeProto) -> Iterator[str]:
    """What a node reads, its nested graphs included."""
    yield from node.input
    for item in node.attribute:
        for inner in [item.g] if item.type == AttributeProto.GRAPH else list(item.graphs):
            for nested in inner.node:
                yield from _reads(nested)


def rename(node: NodeProto, names: Callable[[str], str]) -> NodeProto:
    """A copy of a node with its operands, results and what its nested graphs read renamed."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names(name) if name else "" for name in node.input]
    copy.output[:] = [names(name) if name else "" for name in node.output]
    for item in copy.attribute:
        for inner in [item.g] if item.type == AttributeProto.GRAPH else list(item.graphs):
            _rename_graph(inner, names)
    return copy


def _rename_graph(graph: GraphProto, names: Callable[[str], str]) -> None:
    """Rename what a nested graph reads from outside; names of its own stay."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}

    def outer(name: str) -> str:
        return name if name in own else names(name)

    nodes = [rename(node, outer) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.output:
        value.name = outer(value.name)


class GraphWriter:
    """Collects the nodes of a rewritten graph in order; new names do not collide with those of the file."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self.nodes: list[NodeProto] = []
        self._taken = {name for inner in nested_graphs(graph) for name in _names(inner)}
        self._count = 0
        self.origin = ""
        """The tensor of the file that what is written now stands for."""
        self.origins: dict[str, str] = {}

    def name(self, base: str) -> str:
        while True:
            self._count += 1
            found = f"{base}/{self._count}"
            if found not in self._taken:
                self._taken.add(found)
                return found

    def constant(self, values: npt.ArrayLike, dtype: Any, base: str = "constant") -> str:
        name = self.name(base)
        array = np.asarray(values, dtype=dtype)
        self._graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: Iterable[str], base: str, output: Any = None, **attributes: Any) -> str:
        """Append a node of one output; returns the output's name."""
        name: str = output or self.name(base)
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        self.origins[name] = self.origin
        return name

    def keep(self, node: NodeProto) -> None:
        self.nodes.append(node)

    def finish(self) -> None:
        """Put the collected nodes in place of the graph's."""
        nodes = list(self.nodes)
        del self._graph.node[:]
        self._graph.node.extend(nodes)


def _names(graph: GraphProto) -> Iterator[str]:
    for values in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in values:
            yield value.name
    for node in graph.node:
        yield from node.input
        yield from node.output


def shapes_of(graph: GraphProto) -> Mapping[str, tuple[int, ...]]:
    """The fixed shapes that a graph states, by tensor."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    return shapes
