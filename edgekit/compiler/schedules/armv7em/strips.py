"""The loop of all routines that do the same to each byte: strip after strip, then the bytes that are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.compiler.schedules.armv7em.instructions import Assembler, Register

__all__ = ["in_strips", "store_four"]

Body = Callable[[Callable[[], None]], None]
"""body(counted): emits the instructions for a strip or a byte, and `counted()` once among them, where a core
that issues two instructions at a time has one to put beside it. What follows must leave N, Z, C and V alone.
"""


def in_strips(code: Assembler, count: Register, size: int, strip: Body, single: Body) -> None:
    """Emit loops over `count` bytes, 0 or more: `strip` for `size` of them, `single` for one.

    The bodies move their own pointers on. `count` is lost.
    """
    loop, tail, one, done = (code.new_label(name) for name in ("strip", "tail", "one", "done"))
    code.subs(count, count, size)
    code.branch(tail, "lo")
    code.label(loop)
    strip(lambda: code.subs(count, count, size))
    code.branch(loop, "hs")
    code.label(tail)
    code.adds(count, count, size)
    code.branch(done, "eq")
    code.label(one)
    single(lambda: code.subs(count, count, 1))
    code.branch(one, "ne")
    code.label(done)


def store_four(code: Assembler, values: Sequence[Register], to: Register) -> None:
    """Store the low bytes of four registers one after another and move `to` behind them."""
    for offset, value in enumerate(values[1:], start=1):
        code.strb(value, to, offset)
    code.strb(values[0], to, post=4)
