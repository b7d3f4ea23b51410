"""A bounds-checked reader of FlatBuffers: every offset is checked before it is followed.

The generated accessors of the `tflite` package trust their input; a damaged file makes them read anywhere
or loop for hours. This reader is run over a file first. Layout: https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from edgekit.errors import ModelError

__all__ = ["FlatBuffer", "Table"]

_U8 = struct.Struct("<B")
_I8 = struct.Struct("<b")
_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_F32 = struct.Struct("<f")


class FlatBuffer:
    """A FlatBuffer and a budget of elements that may be read from it.

    The budget bounds the work: a few bytes can make every table point to one huge vector, so the size of
    the file does not.
    """

    def __init__(self, content: bytes, *, what: str, budget: int) -> None:
        self.content = memoryview(content)
        self._what = what
        self._budget = budget

    def damaged(self, why: str) -> ModelError:
        return ModelError(f"{self._what} is damaged: {why}.", hint="Export or download the file again.")

    def spend(self, elements: int) -> None:
        self._budget -= elements
        if self._budget < 0:
            raise self.damaged("its tables refer to far more elements than the format needs")

    def read(self, kind: struct.Struct, position: int) -> int:
        if position < 0 or position + kind.size > len(self.content):
            raise self.damaged(f"it refers to byte {position}, past its end at {len(self.content)}")
        value: int = kind.unpack_from(self.content, position)[0]
        return value

    def follow(self, position: int) -> int:
        """The target of the unsigned offset at `position`, relative to that position."""
        target = position + self.read(_U32, position)
        if target == position:
            raise self.damaged(f"a null offset at byte {position}")
        return target

    def root(self, identifier: bytes) -> Table:
        if len(self.content) < 12 or bytes(self.content[4:8]) != identifier:
            raise self.damaged(f"it does not carry the identifier {identifier.decode('ascii')}")
        return self.table(self.follow(0))

    def table(self, position: int) -> Table:
        self.spend(1)
        vtable = position - self.read(_I32, position)
        vtable_size = self.read(_U16, vtable)
        object_size = self.read(_U16, vtable + 2)
        if vtable_size < 4 or vtable_size % 2 or vtable + vtable_size > len(self.content):
            raise self.damaged(f"the table at byte {position} has a vtable of {vtable_size} bytes")
        if object_size < 4 or position + object_size > len(self.content):
            raise self.damaged(f"the table at byte {position} ends past the end of the file")
        return Table(self, position, vtable, vtable_size, object_size)


@dataclass(frozen=True, slots=True)
class Table:
    """One table. Fields are numbered as in the schema, from 0; an absent field has its default."""

    buffer: FlatBuffer
    position: int
    vtable: int
    vtable_size: int
    object_size: int

    def _field(self, field: int, size: int) -> int | None:
        slot = 4 + 2 * field
        if slot + 2 > self.vtable_size:
            return None
        offset = self.buffer.read(_U16, self.vtable + slot)
        if offset == 0:
            return None
        if offset < 4 or offset + size > self.object_size:
            raise self.buffer.damaged(f"field {field} of the table at byte {self.position} lies outside it")
        return self.position + offset

    def _scalar(self, field: int, kind: struct.Struct, default: int) -> int:
        position = self._field(field, kind.size)
        return default if position is None else self.buffer.read(kind, position)

    def boolean(self, field: int) -> bool:
        return self._scalar(field, _U8, 0) != 0

    def i8(self, field: int, default: int = 0) -> int:
        return self._scalar(field, _I8, default)

    def u8(self, field: int, default: int = 0) -> int:
        return self._scalar(field, _U8, default)

    def i32(self, field: int, default: int = 0) -> int:
        return self._scalar(field, _I32, default)

    def u32(self, field: int, default: int = 0) -> int:
        return self._scalar(field, _U32, default)

    def u64(self, field: int, default: int = 0) -> int:
        return self._scalar(field, _U64, default)

    def f32(self, field: int, default: float = 0.0) -> float:
        position = self._field(field, 4)
        return default if position is None else float(self.buffer.read(_F32, position))

    def table(self, field: int) -> Table | None:
        position = self._field(field, 4)
        return None if position is None else self.buffer.table(self.buffer.follow(position))

    def _vector(self, field: int, item_size: int) -> tuple[int, int] | None:
        """(position of the first element, number of elements), checked to lie inside the file."""
        position = self._field(field, 4)
        if position is None:
            return None
        start = self.buffer.follow(position)
        count = self.buffer.read(_U32, start)
        if start + 4 + count * item_size > len(self.buffer.content):
            raise self.buffer.damaged(f"the vector at byte {start} has {count} elements, past the end")
        return start + 4, count

    def data(self, field: int) -> memoryview | None:
        """A vector of bytes, not copied. Costs nothing of the budget."""
        found = self._vector(field, 1)
        return None if found is None else self.buffer.content[found[0] : found[0] + found[1]]

    def string(self, field: int, limit: int) -> str:
        """A string of at most `limit` bytes; bytes that are not UTF-8 become replacement characters."""
        data = self.data(field)
        if data is None:
            return ""
        if len(data) > limit:
            raise self.buffer.damaged(f"a name of {len(data):,} bytes (at most {limit:,} are accepted)")
        self.buffer.spend(1 + len(data) // 16)
        return bytes(data).decode("utf-8", errors="replace")

    def _numbers(self, field: int, code: str, item_size: int, limit: int) -> tuple[int, ...] | None:
        found = self._vector(field, item_size)
        if found is None:
            return None
        start, count = found
        if count > limit:
            raise self.buffer.damaged(f"a vector of {count:,} elements where at most {limit:,} make sense")
        self.buffer.spend(count)
        return struct.unpack_from(f"<{count}{code}", self.buffer.content, start)

    def i32s(self, field: int, limit: int) -> tuple[int, ...] | None:
        return self._numbers(field, "i", 4, limit)

    def i64s(self, field: int, limit: int) -> tuple[int, ...] | None:
        return self._numbers(field, "q", 8, limit)

    def f32s(self, field: int, limit: int) -> tuple[float, ...] | None:
        return self._numbers(field, "f", 4, limit)

    def tables(self, field: int, limit: int) -> tuple[Table, ...]:
        found = self._vector(field, 4)
        if found is None:
            return ()
        start, count = found
        if count > limit:
            raise self.buffer.damaged(f"a vector of {count:,} tables where at most {limit:,} are accepted")
        self.buffer.spend(count)
        return tuple(self.buffer.table(self.buffer.follow(start + 4 * i)) for i in range(count))
