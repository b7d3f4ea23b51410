"""A deployment made up for the report's tests: a small network's artifacts, with plausible numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.artifacts import (
    Allocation,
    CompiledModel,
    CompiledOperator,
    Image,
    Measurement,
    MemoryUse,
    OperatorMeasurement,
    Quantization,
    TensorSpec,
    Verification,
)
from edgekit.report import AccuracySection, DeployDocument, deploy_document
from edgekit.report.html import ReportDetails
from edgekit.target import Target, load_target

__all__ = ["Source", "details", "document", "network"]


@dataclass(frozen=True, slots=True)
class Source:
    name: str = "kws"
    format: str = "tflite"
    sha256: str = "5c" * 32


_LAYERS = (
    ("conv2d", (1, 25, 5, 64), 320_000, 640),
    ("depthwise_conv2d", (1, 25, 5, 64), 72_000, 256),
    ("conv2d", (1, 25, 5, 64), 512_000, 512),
    ("depthwise_conv2d", (1, 25, 5, 64), 72_000, 256),
    ("conv2d", (1, 25, 5, 64), 512_000, 512),
    ("average_pool2d", (1, 1, 1, 64), 0, 0),
    ("dense", (1, 12), 768, 0),
    ("softmax", (1, 12), 0, 0),
)


def network(prefix: str = "layer") -> CompiledModel:
    """Eight operators on one arena; every tensor's name starts with `prefix`."""
    operators, allocations = [], [Allocation("input", 8000, 490, 0, 0, "input")]
    for number, (op, shape, macs, workspace) in enumerate(_LAYERS):
        size = 1
        for dimension in shape:
            size *= dimension
        offset = 0 if number % 2 == 0 else 8000
        operators.append(
            CompiledOperator(
                number, f"{prefix}{number}", op, f"portable.{op}", macs, offset, size, workspace, 128, shape
            )
        )
        kind = "output" if number == len(_LAYERS) - 1 else "activation"
        last = min(number + 1, len(_LAYERS) - 1)
        allocations.append(Allocation(f"{prefix}{number}", offset, size, number, last, kind))
        if workspace:
            allocations.append(
                Allocation(f"{prefix}{number} workspace", 16_000, workspace, number, number, "workspace")
            )
    return CompiledModel(
        name="kws",
        target="mps2-an386",
        version="1",
        model_hash="ab" * 32,
        files={},
        inputs=(TensorSpec("input", (1, 49, 10, 1), "int8", Quantization(0.5847029, 83)),),
        outputs=(TensorSpec("Identity", (1, 12), "int8", Quantization(0.00390625, -128)),),
        operators=tuple(operators),
        allocations=tuple(allocations),
        arena_bytes=16_640,
        weights_bytes=25_716,
        macs=sum(operator.macs for operator in operators),
        parameters=24_908,
    )


def document(
    compiled: CompiledModel,
    *,
    name: str = "kws",
    measured: bool = True,
    verification: Verification | None = None,
) -> tuple[DeployDocument, Target]:
    target = load_target("mps2-an386")
    operators = tuple(
        OperatorMeasurement(op.id, op.name, op.op, op.schedule, op.macs, 6.0 * op.macs + 1200)
        for op in compiled.operators
    )
    total = sum(operator.p50 for operator in operators) + 420
    measurement = Measurement(
        "instructions", False, (total,) * 5, total, total, total, operators, stack_high_water_bytes=612,
        arena_high_water_bytes=16_640,
    )  # fmt: skip
    image = Image(
        "mps2-an386",
        Path("build/kws"),
        Path("build/kws/firmware.elf"),
        compiled.model_hash,
        MemoryUse(61_440, 25_600, 16_640, 25_716, 4096, 4_194_304, 4_194_304),
        Path("build/kws/manifest.json"),
    )
    built = deploy_document(
        source=Source(name=name),  # type: ignore[arg-type] # the format is a plain str here
        target=target,
        compiled=compiled,
        image=image,
        verification=verification or Verification("exact", True, True, 600, 0.0, 0.0, None),
        accuracy=AccuracySection("top1", 0.8983, 600, "device"),
        measurement=measurement if measured else None,
    )
    return built, target


def details(**versions: str) -> ReportDetails:
    return ReportDetails(
        versions=versions or {"apache-tvm": "0.27.0.post1", "arm-none-eabi-gcc": "12.2.1"},
        data_source="kws01_600.npz, rows 0 to 599",
        stack_high_water_bytes=612,
        arena_high_water_bytes=16_640,
    )
