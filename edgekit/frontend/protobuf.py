"""Bound what a protobuf file unpacks to, before it is unpacked.

An empty message takes two bytes in a file and a hundred or more in memory, so a file of a few hundred
megabytes can ask for tens of gigabytes. This walk over the wire format counts what would be allocated and
gives up early; weights are skipped in one step. Format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.errors import ModelError

__all__ = ["check_onnx_wire"]

MAX_ENTRIES = 1_000_000
"""Fields of all messages together. A model of 1,000 nodes has about 20,000."""

MAX_PACKED_BYTES = 32 * 1024 * 1024
"""Packed variable-length integers: a byte of them unpacks to eight."""

MAX_DEPTH = 16

# Field number → message type, of everything in onnx.proto that nests; all else is skipped in one step.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 8: "Leaf", 14: "Leaf", 20: "Training", 25: "Function", 26: "Leaf"},
    "Training": {1: "Graph", 2: "Graph", 3: "Leaf", 4: "Leaf"},
    "Function": {7: "Node", 9: "Leaf", 11: "Attribute", 12: "Value", 14: "Leaf"},
    "Graph": {
        1: "Node", 5: "Tensor", 11: "Value", 12: "Value", 13: "Value", 14: "Annotation", 15: "Sparse",
        16: "Leaf",
    },
    "Node": {5: "Attribute", 9: "Leaf", 10: "NodeDevices"},
    "NodeDevices": {2: "Sharding"},
    "Sharding": {3: "Leaf", 4: "ShardedDimension"},
    "ShardedDimension": {2: "Leaf"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 14: "Type", 15: "Type", 22: "Sparse",
        23: "Sparse",
    },
    "Annotation": {2: "Leaf"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {3: "Leaf", 13: "Leaf", 16: "Leaf"},
    "Value": {2: "Type", 4: "Leaf"},
    "Type": {1: "TensorType", 4: "Wrapped", 5: "Wrapped", 8: "TensorType", 9: "Wrapped"},
    "Wrapped": {1: "Type", 2: "Type"},
    "TensorType": {2: "Shape"},
    "Shape": {1: "Leaf"},
    "Leaf": {},
}  # fmt: skip

# Packed repeated integers: tensors' dims, int32_data, int64_data, uint64_data and attributes' ints.
_PACKED: Mapping[str, frozenset[int]] = {"Tensor": frozenset({1, 5, 7, 11}), "Attribute": frozenset({8})}


# Strings, which protobuf hands over as bytes where they are not UTF-8.
_STRINGS: Mapping[str, frozenset[int]] = {
    "Model": frozenset({2, 3, 4, 6}),
    "Function": frozenset({1, 4, 5, 6, 8, 10, 13}),
    "Graph": frozenset({2, 10}),
    "Node": frozenset({1, 2, 3, 4, 6, 7, 8}),
    "Attribute": frozenset({1, 13, 21}),
    "Tensor": frozenset({8, 12}),
    "Value": frozenset({1, 3}),
    "Leaf": frozenset({1, 2, 3}),
}

MAX_STRING_BYTES = 1 << 20


class _Walk:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._entries = 0
        self._packed = 0

    def _damaged(self, why: str) -> ModelError:
        return ModelError(f"The ONNX file is damaged: {why}.", hint="Export or download the file again.")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 64:
            byte = self._content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
        raise self._damaged("a number runs past its end")

    def _string(self, position: int, size: int) -> None:
        if size > MAX_STRING_BYTES:
            raise self._damaged(f"a text of {size:,} bytes")
        try:
            self._content[position : position + size].decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged("a name that is not UTF-8") from None

    def message(self, kind: str, position: int, end: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._damaged(f"messages nested more than {MAX_DEPTH} deep")
        inner, packed = _MESSAGES[kind], _PACKED.get(kind, frozenset())
        strings = _STRINGS.get(kind, frozenset())
        while position < end:
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise ModelError(
                    f"The ONNX file has more than {MAX_ENTRIES:,} entries, far more than a model needs."
                )
            tag, position = self._varint(position, end)
            field, wire = tag >> 3, tag & 7
            if wire == 0:
                _, position = self._varint(position, end)
            elif wire in (1, 5):
                position += 8 if wire == 1 else 4
            elif wire == 2:
                size, position = self._varint(position, end)
                if size > end - position:
                    raise self._damaged(f"a field of {size:,} bytes where {end - position:,} are left")
                if field in packed:
                    self._packed += size
                    if self._packed > MAX_PACKED_BYTES:
                        raise ModelError(
                            "The ONNX file stores its weights as lists of numbers; save them as raw data."
                        )
                if field in strings:
                    self._string(position, size)
                if field in inner:
                    self.message(inner[field], position, position + size, depth + 1)
                position += size
            else:
                raise self._damaged(f"a field of the unknown kind {wire}")
            if position > end:
                raise self._damaged("a field runs past its end")


def check_onnx_wire(content: bytes) -> None:
    """Check that a serialised ModelProto is well formed and unpacks within bounds.

    Raises:
        ModelError: it does not.
    """
    _Walk(content).message("Model", 0, len(content), 0)
