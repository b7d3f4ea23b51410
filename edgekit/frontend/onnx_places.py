"""Where the operators of an ONNX graph stand in the file that the user has."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto

from edgekit.artifacts import Place

__all__ = ["places_by_output", "places_in_source"]

# An operator that fusion puts in place of another one.
_FUSED_FROM: Mapping[str, tuple[str, ...]] = {"Gemm": ("Gemm", "MatMul")}

_MAX_FUSED = 8


def places_by_output(graph: GraphProto) -> dict[str, Place]:
    """The place of every operator, by the name of each of its outputs."""
    places: dict[str, Place] = {}
    for index, node in enumerate(graph.node):
        place = Place(op=node.op_type, name=next(iter(node.output), ""), index=index)
        places.update(dict.fromkeys((name for name in node.output if name), place))
    return places


def places_in_source(source: GraphProto, rewritten: GraphProto) -> dict[str, Place]:
    """The places of the operators of a rewritten graph (fused, quantised), by output name.

    Rewrites keep the names of the tensors that they keep. A convolution that swallowed the batch
    normalisation and the activation behind it writes the tensor of the last of them; going up from there
    along first inputs leads to the convolution. What a quantiser added has no place of its own.
    """
    in_source = places_by_output(source)
    found: dict[str, Place] = {}
    for node in rewritten.node:
        wanted = _FUSED_FROM.get(node.op_type, (node.op_type,))
        for output in node.output:
            if output not in in_source:
                continue
            name = output
            for _ in range(_MAX_FUSED):
                place = in_source.get(name)
                if place is None or place.op in wanted:
                    break
                name = next(iter(source.node[place.index].input), "")
            place = in_source.get(name)
            found[output] = place if place is not None and place.op in wanted else in_source[output]
    return found
