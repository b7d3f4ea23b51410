"""What the fields of a target must agree on: small named rules, all in `RULES`.

A rule takes a target whose fields are each well formed and yields one sentence for each thing that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final, get_args

from edgekit.target.flags import flag_value, float_abi
from edgekit.target.schema import (
    ClockSource,
    Content,
    MachineEmulator,
    MemoryRegion,
    Platform,
    Schedule,
    Target,
    UserEmulator,
)

__all__ = ["RULES", "Rule", "problems"]

_CLOCKS: Final[dict[Platform, tuple[ClockSource, ...]]] = {
    "cortex_m": ("dwt", "systick", "fpgaio"),
    "riscv": ("mcycle",),
    "linux": ("clock_monotonic", "plugin"),
}

# The cores on which a schedule's instructions exist, by how the triple's first part starts.
_SCHEDULE_ARCHITECTURES: Final[dict[Schedule, tuple[str, ...]]] = {
    "armv6m": ("thumbv6m",),
    "armv7m": ("thumbv7m", "thumbv7em"),
    "armv7em": ("thumbv7em", "thumbv8m.main", "thumbv8.1m.main"),
    "armv81m_mve": ("thumbv8.1m.main",),
    "rv32": ("riscv32",),
    "aarch64": ("aarch64",),
    "aarch64_dotprod": ("aarch64",),
    "x86_avx2": ("x86_64",),
}

_PLATFORM_ARCHITECTURES: Final[dict[Platform, tuple[str, ...]]] = {
    "cortex_m": ("thumbv",),
    "riscv": ("riscv32",),
    "linux": ("aarch64", "armv7", "x86_64", "riscv64"),
}

# What a cross compiler's name starts and ends with, by how the triple's first part starts.
_LINUX_PREFIXES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "aarch64": ("aarch64-", ("-linux-gnu-", "-linux-musl-")),
    "armv7": ("arm", ("-linux-gnueabihf-", "-linux-musleabihf-")),
    "riscv64": ("riscv64-", ("-linux-gnu-", "-linux-musl-")),
    "x86_64": ("x86_64-", ("-linux-gnu-", "-linux-musl-")),
}

_EMULATED_ARCHITECTURES: Final = {"aarch64": "aarch64", "arm": "armv7"}
_EMULATED_CORES: Final[dict[str, tuple[str, ...]]] = {
    "arm": ("cortex-a7", "cortex-a8", "cortex-a9", "cortex-a15"),
    "aarch64": ("cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1"),
}
"""The cores of Armv7-A, and those of Armv8-A, that `qemu-arm` and `qemu-aarch64` know by name."""

_DOT_PRODUCT_CORES: Final = (
    "cortex-a55",
    "cortex-a75",
    "cortex-a76",
    "cortex-a77",
    "cortex-a78",
    "cortex-x1",
    "neoverse-n1",
    "neoverse-v1",
)
"""Their technical reference manuals list FEAT_DotProd (SDOT and UDOT), as LLVM's models of them do."""

_CODE_ALIGNMENT: Final = 1024
"""VTOR holds the vector table's address in multiples of its size rounded up to a power of two (Armv7-M ARM
B3.2.5); 1024 covers 240 interrupts and is a whole flash page."""

_STACK_ALIGNMENT: Final = 8
"""AAPCS 6.2.1.2: the stack pointer is a multiple of 8 at a public interface."""


def _bare_metal(target: Target) -> bool:
    return target.platform != "linux"


def _is_bare_metal_arm(target: Target) -> bool:
    return _bare_metal(target) and (target.compile.mtriple or "").startswith(("thumb", "arm"))


def _regions_have_own_names(target: Target) -> Iterator[str]:
    names = [region.name for region in target.memory]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"memory: two regions are called {name}"


def _regions_do_not_overlap(target: Target) -> Iterator[str]:
    ordered = sorted(target.memory, key=lambda region: region.start)
    for first, second in combinations(ordered, 2):
        if second.start < first.end:
            yield f"memory: {first.name} and {second.name} overlap at 0x{second.start:08x}"


def _regions_fit_the_address_space(target: Target) -> Iterator[str]:
    for region in target.memory:
        if region.end > 0x1_0000_0000:
            yield f"memory: {region.name} ends past 0xffffffff"


def _everything_has_one_home(target: Target) -> Iterator[str]:
    for content in get_args(Content):
        homes = [region.name for region in target.memory for held in region.holds if held == content]
        if _bare_metal(target) and not homes:
            yield f"memory: no region holds {content}"
        if len(homes) > 1:
            yield f"memory: {content} has more than one home: {', '.join(homes)}"


def _an_os_places_the_program(target: Target) -> Iterator[str]:
    if not _bare_metal(target) and (target.memory or target.stack_bytes):
        yield "memory: on linux the system places the program; leave [[memory]] and stack_bytes out"


def _code_is_aligned(target: Target) -> Iterator[str]:
    home: MemoryRegion | None = target.region("text")
    if home is not None and home.start % _CODE_ALIGNMENT:
        yield f"memory: {home.name} holds the vector table; it must start at a multiple of {_CODE_ALIGNMENT}"


def _stack_fits_its_region(target: Target) -> Iterator[str]:
    home = target.region("stack")
    if home is None:
        return
    if target.stack_bytes < 512 or target.stack_bytes % _STACK_ALIGNMENT:
        yield f"stack_bytes: {target.stack_bytes} is not a multiple of {_STACK_ALIGNMENT} from 512 up"
    if target.stack_bytes > home.size_bytes:
        yield f"stack_bytes: {target.stack_bytes} is more than {home.name} has ({home.size_bytes})"


def _triple_belongs_to_platform(target: Target) -> Iterator[str]:
    triple = target.compile.mtriple
    if triple is None:
        if _bare_metal(target) or target.transport.kind == "ssh":
            yield "compile.mtriple: a board needs one; without it edgekit compiles for this machine"
        return
    if not triple.startswith(_PLATFORM_ARCHITECTURES[target.platform]):
        yield f"compile.mtriple: {triple} is no {target.platform} architecture"


def _bare_metal_arm_triple_has_four_parts(target: Target) -> Iterator[str]:
    triple = target.compile.mtriple
    if triple is not None and _is_bare_metal_arm(target) and len(triple.split("-")) != 4:
        # LLVM takes the last word of a three-part triple for the system and falls back to the soft-float ABI.
        yield f"compile.mtriple: {triple} needs four parts, such as thumbv7em-unknown-none-eabihf"


def _prefix_belongs_to_triple(target: Target) -> Iterator[str]:
    triple, prefix = target.compile.mtriple, target.toolchain.prefix
    if _bare_metal(target) or triple is None or (not prefix and target.transport.kind == "pipe"):
        return
    for architecture, (start, ends) in _LINUX_PREFIXES.items():
        if triple.startswith(architecture) and not (prefix.startswith(start) and prefix.endswith(ends)):
            yield f"toolchain.prefix: {prefix or 'none'} does not compile for {triple}; try {start}…{ends[0]}"


def _armv7_says_its_fpu(target: Target) -> Iterator[str]:
    triple, flags, features = target.compile.mtriple or "", target.toolchain.flags, target.compile.mattr
    if _bare_metal(target) or not triple.startswith("armv7"):
        return
    fpu = flag_value(flags, "fpu")
    if flag_value(flags, "arch") is None and flag_value(flags, "cpu") is None:
        yield "toolchain.flags: needs -march=armv7-a or -mcpu=; a compiler's own default may be Armv6"
    if fpu is None:
        yield "toolchain.flags: needs -mfpu=, such as -mfpu=vfpv3-d16 or -mfpu=neon"
    elif "neon" not in fpu and "-neon" not in features:
        yield f'compile.mattr: -mfpu={fpu} has no NEON, which LLVM takes for granted; add "-neon"'
    elif fpu.endswith("d16") and "-d32" not in features:
        yield f'compile.mattr: -mfpu={fpu} has 16 registers, and LLVM takes 32 for granted; add "-d32"'


def _float_abi_of_triple_and_flags_agree(target: Target) -> Iterator[str]:
    triple = target.compile.mtriple
    if triple is None or not (_is_bare_metal_arm(target) or triple.startswith("armv7")):
        return
    hard_triple = triple.endswith("eabihf")
    abi = float_abi(target.toolchain.flags)
    if hard_triple != (abi == "hard"):
        expected = "-mfloat-abi=hard" if hard_triple else "-mfloat-abi=soft or softfp"
        yield f"toolchain.flags: {triple} needs {expected}, not {abi}"


def _cpu_of_compile_and_flags_agree(target: Target) -> Iterator[str]:
    flag = flag_value(target.toolchain.flags, "cpu")
    if target.compile.mcpu is not None and flag is not None and flag.split("+")[0] != target.compile.mcpu:
        yield f"toolchain.flags: -mcpu={flag} and compile.mcpu {target.compile.mcpu} differ"


def _schedules_suit_the_core(target: Target) -> Iterator[str]:
    if target.schedules[-1] != "portable":
        yield "schedules: the last one must be portable, the one that has every operator"
    if len(set(target.schedules)) != len(target.schedules):
        yield "schedules: one is named twice"
    triple = target.compile.mtriple
    for schedule in target.schedules:
        starts = _SCHEDULE_ARCHITECTURES.get(schedule)
        if starts is not None and triple is not None and not triple.startswith(starts):
            yield f"schedules: {schedule} does not run on {triple}"
    dot_product = target.compile.mcpu in _DOT_PRODUCT_CORES or "+dotprod" in target.compile.mattr
    if "aarch64_dotprod" in target.schedules and not dot_product:
        yield f"schedules: {target.compile.mcpu or 'no mcpu'} has no dot product, which aarch64_dotprod needs"


def _firmware_exists_for_the_platform(target: Target) -> Iterator[str]:
    if target.platform == "riscv":
        yield (
            "platform: there is no start-up code and no chip port for riscv yet; "
            "`edgekit compile --emit c` writes the model as C for any compiler"
        )


def _port_belongs_to_platform(target: Target) -> Iterator[str]:
    if target.platform == "cortex_m" and target.port is None:
        yield "port: a cortex_m target needs a chip port"
    if target.platform != "cortex_m" and target.port is not None:
        yield f"port: {target.port.name} is a cortex_m port"


def _transport_belongs_to_platform(target: Target) -> Iterator[str]:
    kind = target.transport.kind
    if _bare_metal(target) and kind != "serial":
        yield f"transport: {target.platform} talks over serial, not {kind}"
    if not _bare_metal(target) and kind == "serial":
        yield "transport: linux talks over pipe or ssh, not serial"


def _baud_and_usb_belong_to_serial(target: Target) -> Iterator[str]:
    transport = target.transport
    if transport.kind == "serial" and transport.baud is None:
        yield "transport: serial needs baud"
    if transport.kind != "serial" and (transport.baud is not None or transport.usb):
        yield f"transport: baud and usb have no meaning for {transport.kind}"


def _a_board_can_be_flashed(target: Target) -> Iterator[str]:
    if _bare_metal(target) and not target.emulated and not target.flash:
        yield 'flash: a board needs at least one [[flash]] (kind = "none" when you do it by hand)'
    if target.emulated and (target.flash or target.transport.usb):
        yield "flash: an emulated board has no [[flash]] and no USB id"
    if not _bare_metal(target) and target.flash:
        yield "flash: a linux target is given its program over its transport; leave [[flash]] out"


def _clock_is_known_to_platform(target: Target) -> Iterator[str]:
    known = _CLOCKS[target.platform]
    if target.clock.source not in known:
        yield f"clock.source: {target.platform} has {', '.join(known)}, not {target.clock.source}"


def _clock_is_the_ports_counter(target: Target) -> Iterator[str]:
    port = target.port
    if port is None:
        return
    if target.clock.source != port.clock_source:
        yield f"clock.source: port {port.name} counts with {port.clock_source}, not {target.clock.source}"
    elif target.clock.hz != port.clock_hz:
        yield f"clock.hz: port {port.name} counts at {port.clock_hz}, not {target.clock.hz}"


def _baud_is_within_the_ports_reach(target: Target) -> Iterator[str]:
    port, baud = target.port, target.transport.baud
    if port is not None and baud is not None and baud > port.max_baud:
        yield f"transport.baud: {baud} is more than port {port.name} can do here ({port.max_baud})"


def _an_emulator_counts_instructions(target: Target) -> Iterator[str]:
    if target.emulator is None:
        return
    if target.clock.trusted:
        yield "clock.trusted: an emulated clock says nothing about the board's speed; it must be false"
    if target.clock.source == "dwt":
        yield "clock.source: QEMU's DWT counter reads 0; use fpgaio or systick"


def _the_emulator_belongs_to_the_platform(target: Target) -> Iterator[str]:
    if isinstance(target.emulator, UserEmulator):
        if _bare_metal(target):
            yield "emulator.user: runs programs of linux; a microcontroller needs machine"
        elif target.transport.kind != "ssh":
            yield f"emulator.user: is reached over ssh, not {target.transport.kind}"
    if isinstance(target.emulator, MachineEmulator) and not _bare_metal(target):
        yield "emulator.machine: is for microcontrollers; a linux target needs user and cpu"


def _the_emulated_core_runs_the_code(target: Target) -> Iterator[str]:
    emulator, mcpu = target.emulator, target.compile.mcpu
    if not isinstance(emulator, UserEmulator):
        return
    triple = target.compile.mtriple or "this machine's triple"
    if not triple.startswith(_EMULATED_ARCHITECTURES[emulator.user]):
        yield f"emulator.user: {emulator.user} does not run {triple}"
    if emulator.cpu not in _EMULATED_CORES[emulator.user]:
        yield f"emulator.cpu: qemu-{emulator.user} has no {emulator.cpu} for these programs"
    if mcpu not in (None, "generic", emulator.cpu):
        yield f"emulator.cpu: {emulator.cpu} and compile.mcpu {mcpu} differ"


def _a_plugin_counts_where_programs_are_emulated(target: Target) -> Iterator[str]:
    plugin = target.clock.source == "plugin"
    if plugin and not isinstance(target.emulator, UserEmulator):
        yield "clock.source: plugin is QEMU's, for targets with [emulator] user"
    if not plugin and isinstance(target.emulator, UserEmulator):
        yield f"clock.source: {target.clock.source} of an emulated program is this machine's; use plugin"
    if plugin and target.clock.hz != 1:
        yield f"clock.hz: the plugin counts instructions, not time; it must be 1, not {target.clock.hz}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that holds for every target."""

    name: str
    check: Callable[[Target], Iterator[str]]


RULES: Final[tuple[Rule, ...]] = (
    Rule("regions-have-own-names", _regions_have_own_names),
    Rule("regions-do-not-overlap", _regions_do_not_overlap),
    Rule("regions-fit-the-address-space", _regions_fit_the_address_space),
    Rule("everything-has-one-home", _everything_has_one_home),
    Rule("an-os-places-the-program", _an_os_places_the_program),
    Rule("code-is-aligned", _code_is_aligned),
    Rule("stack-fits-its-region", _stack_fits_its_region),
    Rule("triple-belongs-to-platform", _triple_belongs_to_platform),
    Rule("bare-metal-arm-triple-has-four-parts", _bare_metal_arm_triple_has_four_parts),
    Rule("prefix-belongs-to-triple", _prefix_belongs_to_triple),
    Rule("armv7-says-its-fpu", _armv7_says_its_fpu),
    Rule("float-abi-of-triple-and-flags-agree", _float_abi_of_triple_and_flags_agree),
    Rule("cpu-of-compile-and-flags-agree", _cpu_of_compile_and_flags_agree),
    Rule("schedules-suit-the-core", _schedules_suit_the_core),
    Rule("firmware-exists-for-the-platform", _firmware_exists_for_the_platform),
    Rule("port-belongs-to-platform", _port_belongs_to_platform),
    Rule("transport-belongs-to-platform", _transport_belongs_to_platform),
    Rule("baud-and-usb-belong-to-serial", _baud_and_usb_belong_to_serial),
    Rule("a-board-can-be-flashed", _a_board_can_be_flashed),
    Rule("clock-is-known-to-platform", _clock_is_known_to_platform),
    Rule("clock-is-the-ports-counter", _clock_is_the_ports_counter),
    Rule("baud-is-within-the-ports-reach", _baud_is_within_the_ports_reach),
    Rule("an-emulator-counts-instructions", _an_emulator_counts_instructions),
    Rule("the-emulator-belongs-to-the-platform", _the_emulator_belongs_to_the_platform),
    Rule("the-emulated-core-runs-the-code", _the_emulated_core_runs_the_code),
    Rule("a-plugin-counts-where-programs-are-emulated", _a_plugin_counts_where_programs_are_emulated),
)


def problems(target: Target) -> tuple[str, ...]:
    """Every broken rule of `target` as a sentence, in the order of `RULES`."""
    return tuple(problem for rule in RULES for problem in rule.check(target))
