"""The options that several commands have, each spelled and explained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from edgekit.artifacts import CalibrationMethod, Precision, Preference
from edgekit.errors import UsageError
from edgekit.text import printable

__all__ = [
    "BoardOption",
    "CalibrationMethodOption",
    "CalibrationOption",
    "CoreOption",
    "DataOption",
    "DebugFlag",
    "JsonFlag",
    "ModelArgument",
    "NameOption",
    "OutputOption",
    "PrecisionOption",
    "PreferOption",
    "QuietFlag",
    "RunsOption",
    "SeedOption",
    "ShapeOption",
    "TargetOption",
    "ThreadsOption",
    "TorchModelArgument",
    "TrustFlag",
    "TuneFlag",
    "WeightsOption",
    "parse_limit",
    "parse_shapes",
]

Amount = TypeVar("Amount", int, float)

_MAX_DIMENSION = 1 << 24
_MAX_RANK = 8

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one versioned JSON document on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

ModelArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A .tflite, .onnx or .pt2 file, or package.module:factory; that of edgekit.toml by default.",
    ),
]
TorchModelArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[MODEL]", help="A torch model: package.module:factory; that of edgekit.toml by default."
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", "-t", metavar="TARGET", help="A board (`edgekit targets list`) or its file."),
]
BoardOption = Annotated[
    str | None,
    typer.Option(
        "--board",
        metavar="BOARD",
        help="ssh:[user@]host, serial:/dev/tty… or serial:<usb serial number>. [env: EDGEKIT_BOARD]",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="FILE", help="An .npz with x and y, or a loader package.module:function."),
]
CalibrationOption = Annotated[
    str | None,
    typer.Option("--calibration", metavar="FILE", help="Rows to quantise a float model with."),
]
CalibrationMethodOption = Annotated[
    CalibrationMethod | None,
    typer.Option(
        "--calibration-method", help="How ranges are chosen from the calibration rows; minmax by default."
    ),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option("--precision", help="What a float model is deployed as; int8 by default."),
]
PreferOption = Annotated[
    Preference | None,
    typer.Option("--prefer", help="What the program saves first: RAM, time (by default), or code size."),
]
TuneFlag = Annotated[
    bool,
    typer.Option("--tune", help="Choose kernels by measurement first (`edgekit tune`); cached."),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="A .safetensors file for a package.module:factory."),
]
TrustFlag = Annotated[
    bool, typer.Option("--trust", help="Read a format that can run code while it is loaded (.pt2).")
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", metavar="NAME=1,49,10,1", help="Fix an input's open dimensions; may be repeated."
    ),
]
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the model.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Where to write; build/MODEL-TARGET by default."),
]
RunsOption = Annotated[
    int | None, typer.Option("--runs", min=1, metavar="N", help="How often a run is measured.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="Threads of the program, on Linux; 1 by default."),
]
CoreOption = Annotated[
    int | None,
    typer.Option("--core", min=0, metavar="K", help="The first thread's core, on Linux; any by default."),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="N", help="Of random rows, splits and choices of rows.")
]


def parse_shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=1,49,10,1` a time; the name is all before the last `=`, since tensor names may have one.

    Raises:
        UsageError: Not of that form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, numbers = text.rpartition("=")
        parts = numbers.split(",")
        if (
            not equals
            or not name
            or not all(part.strip().isascii() and part.strip().isdigit() for part in parts)
        ):
            raise UsageError(f"--shape {printable(text)} is not of the form NAME=1,49,10,1")
        shape = tuple(int(part) for part in parts if len(part) < 12)
        if (
            len(shape) != len(parts)
            or len(shape) > _MAX_RANK
            or not all(0 < n <= _MAX_DIMENSION for n in shape)
        ):
            raise UsageError(
                f"--shape {printable(text)}: dimensions are 1 to {_MAX_DIMENSION}, at most {_MAX_RANK}"
            )
        if name in shapes:
            raise UsageError(f"--shape {printable(name)} is given twice")
        shapes[name] = shape
    return shapes


def parse_limit(parse: Callable[[str], Amount], text: str | None, flag: str) -> Amount | None:
    """An amount that a flag gave, or None where the flag was not given.

    Raises:
        UsageError: It is no such amount.
    """
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {printable(str(error))}") from error
