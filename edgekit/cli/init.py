"""`edgekit init`: an edgekit.toml with comments, in this folder."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import DebugFlag, JsonFlag, QuietFlag
from edgekit.cli.session import Session
from edgekit.errors import UsageError
from edgekit.fsutil import atomic_write
from edgekit.project import FILE_NAME
from edgekit.text import printable

__all__ = ["command"]

_TEMPLATE = """\
# What edgekit deploys from this folder. All keys: docs/edgekit-toml.md. Paths are relative to this file.
schema = 1

# The board; `edgekit targets list` shows which there are. --target and EDGEKIT_TARGET go before it.
target = {target}

[model]
path = {model}            # .tflite, .onnx or package.module:factory
# name = "kws"            # the file's name without suffix by default
# [model.shapes]          # open dimensions of an input, fixed
# input = [1, 49, 10, 1]

[data]
{data}
# calibration = "calibration.npz"   # float rows, to quantise a float .onnx
# samples = 256           # rows to run on the board; all by default, at most 1000 over a serial line
# seed = 0

[boards]                  # where each board is plugged in; --board and EDGEKIT_BOARD go before it
# nucleo-f446re = "serial:/dev/ttyACM0"

[budget]                  # a deployment over it exits 8
# max_instructions = "16M"          # on an emulated board
# max_latency = "20ms"              # on real hardware
# max_flash = "110KiB"
# max_ram = "40KiB"

[profile]
# runs = 5                # how often a run is measured

[build]
# directory = "build"
# prefer = "ram"          # what programs save first: "speed" by default, "ram" or "size"
"""


def command(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL]", help="The model; the only one in this folder by default."),
    ] = None,
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="TARGET", help="The board to name in it.")
    ] = "mps2-an386",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write an edgekit.toml into this folder; one that is there stays as it is."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    path = Path(FILE_NAME)
    if path.exists() or path.is_symlink():
        raise UsageError(
            f"{FILE_NAME} is already in this folder", hint=f"edit it, or remove it first: rm {FILE_NAME}"
        )
    found = model or _only(("*.tflite", "*.onnx"))
    data = _only(("*.npz",))
    text = _TEMPLATE.format(
        target=_toml(target),
        model=_toml(str(found) if found else "model.tflite"),
        data=f"path = {_toml(str(data))}"
        if data
        else '# path = "data.npz"      # x and y, or a loader package.module:function',
    )
    atomic_write(path, text.encode("utf-8"))
    session.document({"schema": "edgekit.init/1", "path": str(path), "model": str(found) if found else None})
    session.show(
        f"wrote {FILE_NAME}" + (f" for {printable(str(found))}" if found else "; name your model in it")
    )
    session.say("next: edgekit deploy" if found else f"next: edit {FILE_NAME}, then edgekit deploy")


def _only(patterns: tuple[str, ...]) -> Path | None:
    found = [path for pattern in patterns for path in Path().glob(pattern)]
    return found[0] if len(found) == 1 else None


def _toml(text: str) -> str:
    """A TOML basic string: JSON's escapes are a part of TOML's."""
    return json_module.dumps(text.encode("utf-8", "replace").decode("utf-8"))
