"""The benchmark's estimate of cycles: instructions by their documented timing, blocks from a trace."""

from __future__ import annotations

from benchmarks.cycle_model import cycles_of_trace
from edgekit.profile.cycles import Instruction, block_cycles, cycle_model, read_disassembly


def _code(*lines: tuple[int, str, str]) -> dict[int, Instruction]:
    return {address: Instruction(address, mnemonic, operands) for address, mnemonic, operands in lines}


LOOP = _code(
    (0x100, "push", "{r4, lr}"),  # 1 + 2
    (0x102, "movs", "r0, #3"),  # 1
    (0x104, "ldr", "r1, [r2], #4"),  # 2
    (0x108, "ldr", "r3, [r2], #4"),  # 1, behind a load
    (0x10C, "smlad", "r4, r1, r3, r4"),  # 1
    (0x110, "subs", "r0, #1"),  # 1
    (0x112, "bne", "104 <f+0x4>"),  # 1, and 2 when taken
    (0x114, "sdiv", "r0, r4, r1"),  # 8
    (0x118, "pop", "{r4, pc}"),  # 1 + 2, and 2
    (0x11A, "nop", ""),
    (0x200, "ldmia", "r0!, {r1, r2, r3}"),  # 1 + 3
    (0x204, "bx", "lr"),  # 1, and 2
)


def test_a_block_costs_what_its_instructions_do() -> None:
    assert block_cycles([LOOP[0x104], LOOP[0x108], LOOP[0x10C]]) == 4
    assert block_cycles([LOOP[0x200]]) == 4


def test_a_trace_counts_every_turn_of_a_loop() -> None:
    # Entered at the top, two more turns, out of the loop, back, and the function it returned to.
    trace = [0x100, 0x104, 0x104, 0x114, 0x200]
    first, turn, last = 3 + 1 + 2 + 1 + 1 + 1 + 1, 2 + 1 + 1 + 1 + 1, 8 + 3
    expected = (first + 2) + (turn + 2) + turn + (last + 2)
    assert cycles_of_trace(trace, LOOP) == (7 + 5 + 5 + 2, expected)


def test_a_block_that_was_cut_is_counted_once() -> None:
    whole = cycles_of_trace([0x200, 0x100], LOOP)
    cut = cycles_of_trace([0x200, 0x204, 0x100], LOOP)
    assert whole == cut == (2, 4 + 1 + 2)


DISASSEMBLY = """
1000a8a0 <operator_0>:
1000a8a0:\tpush\t{r0, r1, r2, lr}
1000a8a2:\tldr\tr0, [pc, #28]\t@ (1000a8c0 <operator_0+0x20>)
1000a8b4:\tbl\t10006ef8 <k>
1000a8c0:\t.word\t0x38001000
    1f2:\tldmia.w\tsp!, {r3, pc}
1000b0c0:\t........
"""


def test_a_disassembly_is_read_whatever_the_width_of_addresses() -> None:
    assert read_disassembly(DISASSEMBLY) == {
        0x1000A8A0: Instruction(0x1000A8A0, "push", "{r0, r1, r2, lr}"),
        0x1000A8A2: Instruction(0x1000A8A2, "ldr", "r0, [pc, #28]\t"),
        0x1000A8B4: Instruction(0x1000A8B4, "bl", "10006ef8 <k>"),
        0x1F2: Instruction(0x1F2, "ldmia", "sp!, {r3, pc}"),
    }


def test_cores_of_other_families_have_no_model() -> None:
    assert cycle_model("cortex-m4") == cycle_model("cortex-m33") == "cortex-m4"
    assert cycle_model("cortex-m0plus") is None
    assert cycle_model("cortex-a72") is None
