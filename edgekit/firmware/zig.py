"""The Python package `ziglang` as cross compiler for Linux boards, where their gcc is not installed.

It brings clang, a linker, musl and the interfaces of every glibc. How it differs from gcc:

- Cores and features have names of their own (`-mcpu=cortex_a72`, `generic+v7a-neon`), so a target's flags are
  translated by tables. What is not in them is refused, since a wrong guess may give wrong floats silently.
- It writes debug information with absolute paths, and calls to UBSan's run-time library, unless told not to.
- Its cache does not see the files that `.incbin` reads: in a folder of the same name, changed weights are
  taken from the build before. So the cache of objects ends with the build, and only the C libraries are kept.
- Programs are static with musl. A shared library has to go with the glibc of the Python that loads it, so it
  is made for glibc 2.28 (Debian 10, 2019) and later, from objects of its own, since the two differ in types.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from edgekit.errors import MissingToolError, UsageError
from edgekit.firmware.tool import Tool, Toolchain
from edgekit.fsutil import cache_folder
from edgekit.target import Target
from edgekit.target.flags import flag_value, float_abi
from edgekit.text import printable

__all__ = ["find_zig", "install_zig", "serves", "zig_flags"]

RUN_TIMEOUT_SECONDS: Final = 900.0
"""The first program for a core takes one to two minutes on a fast machine: its C library is compiled."""
_TIMEOUT_HINT: Final = (
    "the first build for a core also compiles that core's C library; try again, what was finished is kept"
)


@dataclass(frozen=True, slots=True)
class _Triples:
    program: str
    shared_library: str


_TRIPLES: Final = {
    "aarch64-linux-gnu-": _Triples("aarch64-linux-musl", "aarch64-linux-gnu.2.28"),
    "arm-linux-gnueabihf-": _Triples("arm-linux-musleabihf", "arm-linux-gnueabihf.2.28"),
}
_AARCH64_CORE: Final = re.compile(r"cortex-(a35|a53|a55|a57|a72|a73|a75|a76|a78)|neoverse-n1|generic")
_AARCH64_ARCHITECTURES: Final = {
    "armv8-a": "generic",
    "armv8-a+simd": "generic",
    "armv8.2-a": "generic+v8_2a",
    "armv8.2-a+dotprod": "generic+v8_2a+dotprod",
}
_ARM_FPUS: Final = {
    # v7a stands for an FPU with NEON and 32 registers, and vfp3d16 alone takes neither away.
    "vfpv3-d16": "+vfp3d16-neon-d32",
    "vfpv3": "+vfp3-neon",
    "vfpv4-d16": "+vfp4d16-neon-d32",
    "vfpv4": "+vfp4-neon",
    "neon": "+neon",
    "neon-vfpv3": "+neon",
    "neon-vfpv4": "+neon+vfp4",
}
# A core without registers for floats would compute them all the same, slowly, or pass them another way.
_PROBE: Final = """\
#if defined __arm__ && !(defined __ARM_PCS_VFP && (__ARM_FP & 4))
#error no FPU
#endif
typedef int edgekit;
"""


def serves(target: Target) -> bool:
    """Whether `ziglang` is installed and has a C library for such a target."""
    return _may_serve(target) and find_spec("ziglang") is not None


def install_zig(target: Target) -> str | None:
    """The command that installs it, if that would help."""
    return f"{sys.executable} -m pip install ziglang" if _may_serve(target) else None


def _may_serve(target: Target) -> bool:
    return target.platform == "linux" and target.toolchain.prefix in _TRIPLES


def find_zig(target: Target) -> Toolchain:
    """The toolchain for a target that `serves` said yes to.

    Raises:
        MissingToolError: it does not run, or has no equal to one of the target's flags.
        UsageError: there is no place for its cache.
    """
    triples, flags = _TRIPLES[target.toolchain.prefix], zig_flags(target)
    compiler, archiver, version = _tool("cc"), _tool("ar"), _tool("version")
    program = Toolchain(
        gcc=compiler,
        ar=archiver,
        flags=("-target", triples.program, *flags),
        versions={},
        static=True,
    )
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        said = version.run((), Path(folder))
        if said.returncode:
            raise MissingToolError(f"{version.name} does not run:\n{said.first_lines}")
        (Path(folder) / "probe.c").write_text(_PROBE, encoding="ascii")
        tried = program.run_gcc((*program.flags, "-O2", "-c", "probe.c", "-o", "probe.o"), Path(folder))
    if tried.returncode:
        raise MissingToolError(
            f"{compiler.name} does not compile for {target.name}:\n{tried.first_lines}",
        )
    program = replace(program, versions={"ziglang": f"ziglang {printable(said.stdout.strip())}"})
    return replace(
        program,
        shared=replace(program, flags=("-target", triples.shared_library, *flags), static=False),
    )


def zig_flags(target: Target) -> tuple[str, ...]:
    """The target's flags as zig takes them, without the triple.

    Raises:
        MissingToolError: one has no equal there; gcc is what is missing.
    """
    flags = target.toolchain.flags
    levels = [flag for flag in flags if flag.startswith("-O")]
    known = {f"-m{name}={flag_value(flags, name)}" for name in ("cpu", "arch", "fpu", "float-abi")}
    core = _arm_core(flags) if target.toolchain.prefix.startswith("arm-") else _aarch64_core(flags)
    others = [flag for flag in flags if flag not in known and flag not in levels]
    if core is None or others:
        named = " ".join(others or flags)
        raise MissingToolError(
            f"{target.toolchain.prefix}gcc is not installed, and ziglang has no equal to {named}"
        )
    return (*levels, f"-mcpu={core}", "-g0", "-fno-sanitize=undefined")


def _aarch64_core(flags: tuple[str, ...]) -> str | None:
    core, architecture = flag_value(flags, "cpu"), flag_value(flags, "arch")
    if flag_value(flags, "fpu") or flag_value(flags, "float-abi") or (core and architecture):
        return None
    if core is None:
        return _AARCH64_ARCHITECTURES.get(architecture or "armv8-a")
    if not _AARCH64_CORE.fullmatch(core):
        return None
    # To gcc a core has the Cryptography Extension only with +crypto, and the Raspberry Pi 4's has not.
    return core.replace("-", "_") + ("" if core == "generic" else "-aes-sha2")


def _arm_core(flags: tuple[str, ...]) -> str | None:
    if float_abi(flags) != "hard" or flag_value(flags, "arch") != "armv7-a" or flag_value(flags, "cpu"):
        return None
    fpu = _ARM_FPUS.get(flag_value(flags, "fpu") or "")
    return None if fpu is None else f"generic+v7a{fpu}"


def _tool(command: str) -> Tool:
    # It is looked for in the same places as by the Python that edgekit runs in.
    same_packages = {name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ}
    try:
        cache = cache_folder() / "zig"
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"there is no place for ziglang's cache: {error.strerror}", hint="export EDGEKIT_HOME=FOLDER"
        ) from None
    return Tool(
        name=f"python3 -m ziglang {command}",
        argv=(sys.executable, "-m", "ziglang", command),
        timeout_seconds=RUN_TIMEOUT_SECONDS,
        environment={
            **same_packages,
            "ZIG_GLOBAL_CACHE_DIR": str(cache),
            "ZIG_LOCAL_CACHE_DIR": ".zig-cache",  # in the folder of the build: see above
        },
        timeout_hint=_TIMEOUT_HINT,
    )
