"""The schema of a target file, as frozen models. What a field may hold alone is here; what fields must
agree on is in `rules.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PrivateAttr,
    Tag,
    model_validator,
)

from edgekit.target.fields import (
    Address,
    BoardName,
    CpuFeature,
    CpuName,
    Description,
    Hertz,
    RegionName,
    Size,
    ToolPrefix,
    Triple,
    UsbId,
)
from edgekit.target.flags import is_allowed_flag
from edgekit.target.flashing import FlashMethod
from edgekit.target.ports import Port

__all__ = [
    "Clock",
    "ClockSource",
    "Compile",
    "Content",
    "Emulator",
    "MachineEmulator",
    "MemoryRegion",
    "Platform",
    "Schedule",
    "Target",
    "Toolchain",
    "Transport",
    "Unit",
    "UserEmulator",
]

Platform = Literal["linux", "cortex_m", "riscv"]
Schedule = Literal[
    "armv6m",
    "armv7m",
    "armv7em",
    "armv81m_mve",
    "rv32",
    "aarch64",
    "aarch64_dotprod",
    "x86_avx2",
    "portable",
]
Content = Literal["text", "weights", "arena", "stack", "data"]
ClockSource = Literal["dwt", "systick", "fpgaio", "mcycle", "clock_monotonic", "plugin"]
Unit = Literal["instructions", "cycles", "us"]

DEFAULT_STACK_BYTES: Final = 4096


class _Section(BaseModel):
    """Strict types, no unknown keys, nothing changes after loading."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Compile(_Section):
    """How TVM and LLVM compile for the core: `[compile]`."""

    mtriple: Triple | None = None
    """None is the machine on which edgekit runs."""
    mcpu: CpuName | None = None
    mattr: Annotated[tuple[CpuFeature, ...], Field(max_length=32)] = ()


def _allowed_flag(flag: str) -> str:
    if not is_allowed_flag(flag):
        raise ValueError("only -O levels and the machine flags that docs/targets.md lists are allowed")
    return flag


class Toolchain(_Section):
    """The C compiler for agent, driver and port: `[toolchain]`."""

    prefix: ToolPrefix = ""
    flags: Annotated[tuple[Annotated[str, AfterValidator(_allowed_flag)], ...], Field(max_length=32)] = ()


class MemoryRegion(_Section):
    """One stretch of the board's memory: `[[memory]]`. The linker script is rendered from these."""

    name: RegionName
    start: Address
    size_bytes: Size = Field(alias="size")
    holds: Annotated[tuple[Content, ...], Field(min_length=1, max_length=5)]

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + self.size_bytes


class Transport(_Section):
    """How the host talks to the agent: `[transport]`."""

    kind: Literal["pipe", "serial", "ssh"]
    baud: Annotated[int, Field(ge=1200, le=12_000_000)] | None = None
    usb: Annotated[tuple[UsbId, ...], Field(max_length=16)] = ()
    """vendor:product of the board's serial adapter, to find its port."""


class Clock(_Section):
    """What the agent's ticks are: `[clock]`."""

    source: ClockSource
    hz: Hertz
    """Ticks a second."""
    trusted: bool
    """Whether a figure from this clock may be called the target's speed."""


class MachineEmulator(_Section):
    """QEMU in a microcontroller's place: `[emulator]`. Named fields only; nothing here is an argument."""

    machine: Literal[
        "mps2-an385",
        "mps2-an386",
        "mps2-an500",
        "mps2-an505",
        "mps2-an511",
        "mps2-an521",
        "mps3-an524",
        "mps3-an547",
        "netduino2",
        "netduinoplus2",
        "olimex-stm32-h405",
        "stm32vldiscovery",
        "microbit",
        "virt",
    ]
    icount_shift: Annotated[int, Field(ge=0, le=10)]
    """An instruction takes 2^shift virtual nanoseconds (`-icount shift=`)."""
    unit: Literal["instructions"] = "instructions"


class UserEmulator(_Section):
    """QEMU in the place of a Linux board's core: `[emulator]`. Its programs run on this machine's kernel."""

    user: Literal["aarch64", "arm"]
    """The machine whose programs run: `qemu-aarch64` or `qemu-arm`."""
    cpu: Literal[
        "cortex-a7",
        "cortex-a8",
        "cortex-a9",
        "cortex-a15",
        "cortex-a35",
        "cortex-a53",
        "cortex-a57",
        "cortex-a72",
        "cortex-a76",
        "neoverse-n1",
    ]
    """QEMU's name of the core, which decides which instructions there are."""
    unit: Literal["instructions"] = "instructions"


def _emulator_kind(value: object) -> str:
    """`user` when that key is there (or the model that has it), so that a misspelt key is told as one."""
    user = isinstance(value, UserEmulator) or (isinstance(value, dict) and "user" in value)
    return "user" if user else "machine"


Emulator = Annotated[
    Annotated[MachineEmulator, Tag("machine")] | Annotated[UserEmulator, Tag("user")],
    Discriminator(_emulator_kind),
]


class Target(_Section):
    """A board that edgekit deploys to, as its file describes it."""

    schema_version: Literal[1] = Field(alias="schema")
    name: BoardName
    description: Description
    platform: Platform
    schedules: Annotated[tuple[Schedule, ...], Field(min_length=1, max_length=9)]
    """Kernel schedules from best to last resort."""
    stack_bytes: Annotated[int, Field(ge=0, le=1024 * 1024)]
    """Reserved for the stack on a microcontroller (4096 when not said); 0 where an OS gives the stack."""
    compile: Compile
    toolchain: Toolchain
    port: Port | None = None
    memory: Annotated[tuple[MemoryRegion, ...], Field(max_length=16)] = ()
    transport: Transport
    flash: Annotated[tuple[FlashMethod, ...], Field(max_length=8)] = ()
    clock: Clock
    emulator: Emulator | None = None

    _source_path: Path | None = PrivateAttr(default=None)
    _shadows: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _default_stack(cls, values: object) -> object:
        """The stack's default depends on the platform."""
        if isinstance(values, dict) and "stack_bytes" not in values:
            return {**values, "stack_bytes": 0 if values.get("platform") == "linux" else DEFAULT_STACK_BYTES}
        return values

    @property
    def emulated(self) -> bool:
        """True when QEMU plays the board."""
        return self.emulator is not None

    @property
    def unit(self) -> Unit:
        """What a measurement on this target counts: never a time when the board is emulated."""
        if self.emulator is not None:
            return self.emulator.unit
        return "cycles" if self.clock.source in ("dwt", "mcycle") else "us"

    @property
    def source_path(self) -> Path | None:
        """The file it was read from; None when it came out of a bundle's manifest."""
        return self._source_path

    @property
    def shadows(self) -> Path | None:
        """The shipped file of the same name that this one, a user's own, takes the place of."""
        return self._shadows

    def region(self, content: Content) -> MemoryRegion | None:
        """The region that holds `content`; None on a platform without regions."""
        return next((region for region in self.memory if content in region.holds), None)

    def document(self) -> dict[str, JsonValue]:
        """The target as JSON values under the file's own keys; `parse_target` reads it back."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
