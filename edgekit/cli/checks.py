"""What `edgekit doctor` looks at. Each check finds something out and names the command that mends it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from edgekit.errors import EdgekitError
from edgekit.target import Target, UserEmulator
from edgekit.text import printable

__all__ = ["PACKAGES", "Check", "all_checks"]

PACKAGES: Mapping[str, str | None] = {
    "apache-tvm": "0.27.0.post1",
    "apache-tvm-ffi": "0.1.14.post1",
    "cobs": None,
    "flatbuffers": None,
    "jinja2": None,
    "numpy": None,
    "onnx": None,
    "onnxruntime": None,
    "pydantic": None,
    "pyserial": None,
    "rich": None,
    "tflite": None,
    "typer": None,
}
"""edgekit's requirements: the exact version where it must be that one, else None."""

_EMULATORS: Mapping[str, tuple[str, str]] = {
    "cortex_m": ("qemu-system-arm", "sudo apt-get install -y qemu-system-arm"),
    "riscv": ("qemu-system-riscv32", "sudo apt-get install -y qemu-system-misc"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `missing` stops a deployment, a `note` does not. `mend` is a command to type."""

    name: str
    status: Literal["ok", "missing", "note"]
    detail: str
    mend: str | None = None
    about: Literal["machine", "board"] = "machine"


def all_checks(targets: Sequence[Target], *, chosen: bool) -> tuple[Check, ...]:
    """All checks for these targets. With `chosen` the user named the target, so that its flasher and port
    must be there.
    """
    checks = [_python(), *(_package(name, wanted) for name, wanted in PACKAGES.items())]
    for target in targets:
        checks.append(_toolchain(target))
        if target.emulator is not None:
            checks.append(_emulator(target))
        elif target.transport.kind == "serial":
            checks += [_flasher(target, chosen), _serial_port(target, chosen)]
    return tuple(dict.fromkeys(checks))


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < (3, 10):  # noqa: UP036 - doctor is for installations that went wrong
        return Check("python", "missing", found, "install Python 3.10 or later")
    return Check("python", "ok", found)


def _package(name: str, wanted: str | None) -> Check:
    mend = f"{sys.executable} -m pip install {name}" + ("" if wanted is None else f"=={wanted}")
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, "missing", "not installed", mend)
    if wanted is not None and found != wanted:
        return Check(name, "missing", f"{found}, and edgekit needs {wanted}", mend)
    return Check(name, "ok", found)


def _toolchain(target: Target) -> Check:
    from edgekit.firmware import find_toolchain

    name = f"C compiler for {target.name}"
    try:
        toolchain = find_toolchain(target)
    except EdgekitError as error:
        return Check(name, "missing", printable(error.message), error.hint)
    return Check(name, "ok", next(iter(toolchain.versions.values()), toolchain.gcc.name))


def _emulator(target: Target) -> Check:
    if isinstance(target.emulator, UserEmulator):
        program, mend = f"qemu-{target.emulator.user}", "sudo apt-get install -y qemu-user"
    else:
        program, mend = _EMULATORS[target.platform]
    found = shutil.which(program)
    if found is None:
        return Check(f"emulator for {target.name}", "missing", f"{program} is not installed", mend)
    return Check(f"emulator for {target.name}", "ok", found)


def _flasher(target: Target, chosen: bool) -> Check:
    name = f"flasher for {target.name}"
    kinds = [method.kind for method in target.flash]
    if "none" in kinds:
        return Check(name, "ok", "flashed by hand")
    for kind in kinds:
        if shutil.which(kind) is not None or _module_is_there(kind):
            return Check(name, "ok", kind)
    mend = f"{sys.executable} -m pip install 'edgekit[flash]'"
    return Check(name, "missing" if chosen else "note", f"none of {', '.join(kinds)} is installed", mend)


def _module_is_there(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _serial_port(target: Target, chosen: bool) -> Check:
    from serial.tools.list_ports import comports

    name = f"serial port of {target.name}"
    wanted = {usb.lower() for usb in target.transport.usb}
    found = [
        port.device
        for port in comports()
        if port.vid is not None and f"{port.vid:04x}:{port.pid:04x}" in wanted
    ]
    if not found:
        return Check(name, "note", "no such board is plugged in", f"plug {target.name} in, or give --board")
    closed = [device for device in found if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        status: Literal["missing", "note"] = "missing" if chosen else "note"
        mend = "sudo usermod -aG dialout $USER, then log in again"
        return Check(name, status, f"no permission for {closed[0]}", mend)
    return Check(name, "ok", ", ".join(found))
