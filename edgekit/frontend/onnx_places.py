"""Where the operators of an ONNX graph stand in the file that the user has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import GraphProto

from edgekit.artifacts import Place

__all__ = ["SourceNode", "places_in_source", "source_nodes"]

_FUSED_FROM: Mapping[str, tuple[str, ...]] = {
    "Conv": ("Conv",),
    "ConvTranspose": ("ConvTranspose",),
    "Gemm": ("Gemm", "MatMul"),
    "MatMul": ("MatMul", "Gemm"),
}
"""Operators that take in those behind them, and what they were. All others stand for what wrote their tensor,
even as another kind: the product that is left of a HardSwish is no earlier product of the file.
"""

_MAX_FUSED = 8


@dataclass(frozen=True, slots=True)
class SourceNode:
    """An operator of the file: its place, and the name of its first input."""

    place: Place
    first_input: str


def source_nodes(graph: GraphProto) -> dict[str, SourceNode]:
    """Every operator of a graph, by the name of each of its outputs."""
    nodes: dict[str, SourceNode] = {}
    for index, node in enumerate(graph.node):
        place = Place(op=node.op_type, name=next(iter(node.output), ""), index=index)
        found = SourceNode(place, next(iter(node.input), ""))
        nodes.update(dict.fromkeys((name for name in node.output if name), found))
    return nodes


def places_in_source(source: Mapping[str, SourceNode], rewritten: GraphProto) -> dict[str, Place]:
    """The places of the operators of a rewritten graph (folded, fused, quantised), by output name.

    Rewrites keep the names of the tensors that they keep. A convolution that swallowed the batch
    normalisation and the activation behind it writes the tensor of the last of them; going up from there
    along first inputs leads to the convolution. What a quantiser added has no place of its own.
    """
    found: dict[str, Place] = {}
    for node in rewritten.node:
        wanted = _FUSED_FROM.get(node.op_type)
        for output in node.output:
            last = source.get(output)
            if last is None:
                continue
            current: SourceNode | None = last
            if wanted is None:
                found[output] = last.place
                continue
            for _ in range(_MAX_FUSED):
                if current is None or current.place.op in wanted:
                    break
                current = source.get(current.first_input)
            fits = current is not None and current.place.op in wanted
            found[output] = current.place if current is not None and fits else last.place
    return found
