"""Constants as one binary file and the assembler source that gives each piece a symbol.

`.incbin` keeps megabytes of weights out of the C compiler, and the bytes in the image are those of the file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Weights"]

ALIGNMENT = 16


class Weights:
    """Collects constants; equal ones (type and bytes) are stored once: a symbol has one type in the C."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._pieces: dict[tuple[str, bytes], str] = {}

    def add(self, values: NDArray[np.generic]) -> str:
        """Store an array (little endian, C order) and return its symbol."""
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        return self._pieces.setdefault((values.dtype.name, data), f"{self._prefix}_w{len(self._pieces)}")

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self._pieces.values())

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Each piece as a flat array of its type, by symbol."""
        return {
            symbol: np.frombuffer(data, np.dtype(name).newbyteorder("<")).astype(np.dtype(name))
            for (name, data), symbol in self._pieces.items()
        }

    @property
    def size_bytes(self) -> int:
        return len(self.binary())

    def binary(self) -> bytes:
        """All pieces, each on a boundary of 16 bytes."""
        return b"".join(data + bytes(-len(data) % ALIGNMENT) for _, data in self._pieces)

    def assembly(self, binary_name: str) -> str:
        """GNU assembler source with one hidden symbol a piece, read from `binary_name`."""
        lines = ['    .section .rodata.edgekit_weights,"a",%progbits']
        offset = 0
        for (_, data), symbol in self._pieces.items():
            lines += [
                f"    .balign {ALIGNMENT}",
                f"    .global {symbol}",
                f"    .hidden {symbol}",
                f"    .type {symbol}, %object",
                f"    .size {symbol}, {len(data)}",
                f"{symbol}:",
                f'    .incbin "{binary_name}", {offset}, {len(data)}',
            ]
            offset += len(data) + -len(data) % ALIGNMENT
        lines.append('    .section .note.GNU-stack,"",%progbits')
        return "\n".join(lines) + "\n"
