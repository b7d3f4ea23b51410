"""The frozen dataclasses that pass between the stages of a deployment.

    source file ──frontend──▶ Model ──compiler──▶ CompiledModel ──firmware──▶ Image
                                                                                │ device
                              Measurement ◀──profile── Deployment ◀────flash────┘

Each stage takes the one before and returns the next; none imports another stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from edgekit.errors import UsageError
from edgekit.text import printable

if TYPE_CHECKING:
    from tvm.ir import IRModule

__all__ = [
    "DEFAULT_COMPILE",
    "DEFAULT_IMPORT",
    "Allocation",
    "CalibrationMethod",
    "CompileOptions",
    "CompiledModel",
    "CompiledOperator",
    "Conditions",
    "Image",
    "ImportOptions",
    "Measurement",
    "MemoryUse",
    "Model",
    "ModelFormat",
    "OperatorMeasurement",
    "Place",
    "Precision",
    "Preference",
    "Quantization",
    "Serving",
    "TensorSpec",
    "TorchProgram",
    "Verification",
]

Preference = Literal["ram", "speed", "size"]
"""What a build saves first where it can't save all: memory for activations, cycles, or code."""

ITEM_SIZE: Mapping[str, int] = {
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
}


@dataclass(frozen=True, slots=True)
class Quantization:
    """Per-tensor affine quantisation: real = scale · (stored − zero_point)."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A model input or output: shape as the source model states it, all dimensions fixed.

    `dtype` is what the deployed program stores. Where `quantization` is not None the stored integers
    stand for reals, and float data given to edgekit is quantised by it on the host.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.elements * ITEM_SIZE[self.dtype]


ModelFormat = Literal["tflite", "onnx", "torch"]

Precision = Literal["int8", "int16x8", "float32"]
"""Of a float model's program: int8 throughout, int16 activations with int8 weights, or not quantised."""

CalibrationMethod = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]
"""How an activation's range is chosen from what the calibration rows gave."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user says of a source model besides where it is."""

    name: str | None = None
    """Name of the model; the file's name without suffix by default."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Fixed shapes of inputs that have dynamic dimensions, by input name."""
    precision: Precision = "int8"
    calibration_method: CalibrationMethod = "minmax"
    weights: Path | None = None
    """A safetensors file with the weights of a module that a factory makes."""
    trusted: bool = False
    """Whether a format may be read that can run code while it is loaded."""


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the user says of the program besides the target."""

    prefer: Preference = "speed"
    choices: tuple[tuple[int, str], ...] = ()
    """Variants of kernels that are not to be the default: (id of the lowered program's tensor, name), as
    tuning chose them.
    """

    def __post_init__(self) -> None:
        if self.prefer not in get_args(Preference):
            raise UsageError(
                f"prefer is {', '.join(get_args(Preference))}, not {printable(str(self.prefer))}"
            )


DEFAULT_COMPILE = CompileOptions()


DEFAULT_IMPORT = ImportOptions()


@dataclass(frozen=True, slots=True, eq=False)
class TorchProgram:
    """A torch model as it is in memory, with what its forward takes."""

    program: object
    """A torch.nn.Module, or a torch.export.ExportedProgram."""
    example_inputs: tuple[object, ...] | None
    """Tensors, one for each argument; None where the program says them itself."""
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operator stands in the source file, for messages to people."""

    op: str
    """Operator type in the source format's own words: CONV_2D, Conv, conv2d, …"""
    name: str
    """Name of its first output tensor in the source file, or path of the torch module (untrusted text)."""
    index: int
    """Position among the source file's operators, from 0."""


@dataclass(frozen=True, slots=True)
class Model:
    """An imported model: a Relax module in QDQ form and what the source file said about it.

    `module["main"]` takes the inputs and returns the outputs in the types the source file declares
    (float32 inputs of an ONNX QDQ file stay float32 here; the compiler strips their boundary quantize).
    `places` maps the name of a Relax variable to the source operator that produced it.
    """

    name: str
    format: ModelFormat
    sha256: str
    module: IRModule
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    places: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Allocation:
    """One tensor or workspace in the arena, live from operator `first` to `last`, both inclusive."""

    name: str
    offset: int
    size_bytes: int
    first: int
    last: int
    kind: Literal["input", "output", "activation", "workspace"]


@dataclass(frozen=True, slots=True)
class CompiledOperator:
    """One step of the compiled program, in the order in which the driver calls them."""

    id: int
    name: str
    """Name of the output tensor in the source file (untrusted text)."""
    op: str
    """Integer operator: conv2d, depthwise_conv2d, dense, add, …; what computes in float is `float.…`."""
    schedule: str
    """`<isa>.<kernel>`, e.g. portable.conv2d."""
    macs: int
    output_offset: int
    output_bytes: int
    workspace_bytes: int
    weights_bytes: int
    output_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """Object code and generated C for one target, as files that no build has touched yet.

    `files` maps a relative path to its bytes: `kernels.o`, `weights.bin`, `weights.S`, `model.c`,
    `edgekit_model.h`. Compiling `model.c` and `weights.S` with the target's own compiler and linking
    them with `kernels.o` gives the whole model; nothing else is referenced but libc's memcpy and memset
    and libm. `memory_bytes` and `arena_bytes` are sizes in bytes.
    """

    name: str
    target: str
    version: str
    model_hash: str
    """SHA-256 (hex) over everything that decides the answers and the memory layout."""
    files: Mapping[str, bytes]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[CompiledOperator, ...]
    allocations: tuple[Allocation, ...]
    arena_bytes: int
    weights_bytes: int
    macs: int
    parameters: int
    exact: bool = True
    """True when the program is all integers, so that every target must answer with the same bytes."""
    requantised: bool = False
    """Whether results of float operators are quantised inside it: their last bits can become steps."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What an image takes of a board, read from the ELF. Bytes."""

    flash_bytes: int
    ram_bytes: int
    arena_bytes: int
    weights_bytes: int
    stack_bytes: int
    """Reserved by the linker script; the high-water mark is measured on the board."""
    flash_limit: int | None
    ram_limit: int | None


@dataclass(frozen=True, slots=True)
class Image:
    """What gets flashed: an ELF for a board or a runner for the host, in its bundle directory."""

    target: str
    directory: Path
    path: Path
    model_hash: str
    memory: MemoryUse
    manifest: Path
    app: str = "model"
    """The library's name; the versions of one app stand beside each other on a Linux board."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How the agent of a Linux board runs the program. None leaves it to the agent: one thread, any core."""

    threads: int | None = None
    core: int | None = None
    """The first thread's; the others are on the cores after it."""


@dataclass(frozen=True, slots=True)
class OperatorMeasurement:
    """One operator's median cost in the unit of its measurement."""

    id: int
    name: str
    op: str
    schedule: str
    macs: int
    p50: float


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a Linux board said of itself before and after a measurement; None is what it can't tell."""

    machine: str | None
    kernel: str | None
    clock: str | None
    cores: int | None
    core: int | None
    """The core that the first thread was bound to; None when the kernel chose."""
    governor: str | None
    frequency_before_khz: int | None
    frequency_after_khz: int | None
    temperature_before_millicelsius: int | None
    temperature_after_millicelsius: int | None
    throttled_before: int | None
    """Bits of the Raspberry Pi's firmware, as `vcgencmd get_throttled` prints them."""
    throttled_after: int | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Repeated cost of one inference on the board, and of each operator.

    `p10`, `p50` and `p90` come from uninstrumented runs; the operators from a second, instrumented pass.
    """

    unit: Literal["instructions", "cycles", "us"]
    trusted: bool
    runs: tuple[float, ...]
    p10: float
    p50: float
    p90: float
    operators: tuple[OperatorMeasurement, ...]
    stack_high_water_bytes: int | None
    arena_high_water_bytes: int | None
    threads: int = 1
    conditions: Conditions | None = None
    untrusted_because: tuple[str, ...] = ()
    """What of the conditions spoiled the figures, a sentence each; `trusted` is then false."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The board's answers against the host reference."""

    mode: Literal["exact", "tolerance"]
    passed: bool
    bit_exact: bool
    samples: int
    tolerance: float
    max_abs_error: float
    first_difference: str | None
