"""From a compiled model to a bundle: sources out of the templates, compile, link, check, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit import __version__
from edgekit.artifacts import CompiledModel, Image, MemoryUse
from edgekit.errors import ModelError, TargetError
from edgekit.firmware.budget import check_budget, check_linker_overflow
from edgekit.firmware.bundle import (
    MANIFEST,
    manifest_bytes,
    replaced_directory,
    sha256,
    write_file,
)
from edgekit.firmware.elf import Elf, parse_elf
from edgekit.firmware.headers import port_header, programs_source
from edgekit.firmware.linker import linker_script
from edgekit.firmware.manifest import SCHEMA, FileRecord, Manifest, MemoryRecord, model_record
from edgekit.firmware.names import check_compiled_file_names, library_name, valid_text
from edgekit.firmware.python_module import module_name, python_module
from edgekit.firmware.readme import bundle_readme
from edgekit.firmware.sizes import memory_use
from edgekit.firmware.symbols import check_abi, check_undefined_symbols
from edgekit.firmware.toolchain import Toolchain, find_toolchain
from edgekit.resources import firmware_templates_directory
from edgekit.target import Target

__all__ = ["build_image"]

_PROGRAM_HEADER: Final = "edgekit_program.h"
_RESERVED: Final = frozenset({MANIFEST, "README.md", "firmware.elf", "runner", _PROGRAM_HEADER, "generated"})
_ARENA_SECTION: Final = ".bss.edgekit_arena"
_WEIGHTS_SECTION: Final = ".rodata.edgekit_weights"

_COMMON_FLAGS: Final = (
    "-std=gnu99",
    "-Wall",
    "-Wextra",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-common",
    "-fno-ident",
)
# The agent is on every board and off the path that is timed, so size comes first there. newlib-nano is the C
# library (memcpy, memset, libm), hence no -ffreestanding: gcc may know these functions.
_BOARD_FLAGS: Final = ("-Os", "--specs=nano.specs")
# PIC, so that the library also links into the position-independent programs that gcc makes by default.
_LINUX_FLAGS: Final = ("-O2", "-fPIC")
# --strip-debug: newlib brings line tables with the paths of the machine on which it was built.
_BOARD_LINK: Final = (
    "--specs=nano.specs",
    "-nostartfiles",
    "-Tgenerated/linker.ld",
    "-Wl,--gc-sections",
    "-Wl,--build-id=none",
    "-Wl,--strip-debug",
    "-Wl,-z,noexecstack",
)
_LINUX_LINK: Final = (
    "-no-pie",
    "-pthread",
    "-Wl,--gc-sections",
    "-Wl,--build-id=none",
    "-Wl,--strip-debug",
    "-Wl,-z,noexecstack",
)
# What of the Linux platform the shared library takes along: the threads, and what they report with.
_SHARED_PLATFORM: Final = tuple(f"platform/linux/{name}.o" for name in ("pool", "say", "sys"))
_INCLUDES: Final = ("-Igenerated", "-Imodel", "-Iagent")


@dataclass(frozen=True, slots=True)
class _Sources:
    """Relative path to content: what is compiled for the library, and what besides for the image."""

    model: Mapping[str, bytes]
    agent: Mapping[str, bytes]
    generated: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Built:
    """What the toolchain made."""

    image: bytes
    library: bytes
    shared_library: bytes | None
    memory: MemoryUse
    tools: Mapping[str, str]


def build_image(
    compiled: CompiledModel, target: Target, directory: Path, *, provenance: Mapping[str, str]
) -> Image:
    """Builds the image for `target` and writes its bundle to `directory`, whole or not at all.

    The same inputs and tools give the same bytes, wherever the folder is.

    Args:
        provenance: What else went in, for the manifest: the source model's hash, versions of packages.

    Raises:
        DoesNotFitError: flash or RAM is too small; says what takes the most.
        MissingToolError: the toolchain is not installed.
        TargetError: the toolchain refuses the target's flags, or an object has another float ABI.
        UnsupportedError: a kernel calls a function that the board does not have.
        UsageError: `directory` holds something that is no bundle.
    """
    if compiled.target != target.name:
        raise ModelError(f"the model was compiled for {compiled.target}, not for {target.name}")
    check_compiled_file_names(sorted(compiled.files), _RESERVED)
    for name, data in sorted(compiled.files.items()):
        if name.endswith(".o"):
            kernels = parse_elf(data, name)
            check_undefined_symbols(kernels, target, name)
            check_abi(kernels, target, name)
    toolchain = find_toolchain(target)
    sources = _collect(compiled, target)
    library = library_name(compiled.name)
    image_name = "runner" if target.platform == "linux" else "firmware.elf"
    with replaced_directory(directory) as scratch:
        built = _compile_and_link(sources, compiled, target, toolchain, scratch / "work")
        members = {
            **compiled.files,
            _PROGRAM_HEADER: sources.model[f"model/{_PROGRAM_HEADER}"],
            **sources.generated,
            image_name: built.image,
            f"lib{library}.a": built.library,
            **_for_python(compiled, target, library, built),
            "README.md": bundle_readme(target, toolchain, library, image_name, built.memory).encode(),
        }
        manifest = Manifest(
            schema=SCHEMA,
            edgekit=__version__,
            target=target.document(),
            model=model_record(compiled),
            memory=_memory_record(built.memory),
            image=image_name,
            library=f"lib{library}.a",
            compiled_files=tuple(sorted(compiled.files)),
            tools=dict(built.tools),
            sources={path: sha256(data) for path, data in sources.agent.items()},
            provenance={valid_text(key): valid_text(value) for key, value in provenance.items()},
            files={
                path: FileRecord(size_bytes=len(data), sha256=sha256(data)) for path, data in members.items()
            },
        )
        for path, data in sorted({**members, MANIFEST: manifest_bytes(manifest)}.items()):
            write_file(scratch / "bundle" / path, data, executable=path == "runner")
    return Image(
        target=target.name,
        directory=directory,
        path=directory / image_name,
        model_hash=compiled.model_hash,
        memory=built.memory,
        manifest=directory / MANIFEST,
        app=library,
    )


def _memory_record(memory: MemoryUse) -> MemoryRecord:
    return MemoryRecord(
        flash_bytes=memory.flash_bytes,
        ram_bytes=memory.ram_bytes,
        arena_bytes=memory.arena_bytes,
        weights_bytes=memory.weights_bytes,
        stack_bytes=memory.stack_bytes,
        flash_limit=memory.flash_limit,
        ram_limit=memory.ram_limit,
    )


def _collect(compiled: CompiledModel, target: Target) -> _Sources:
    """Every source of the image, in memory, under the relative path at which the compiler will see it."""
    templates = firmware_templates_directory()
    folders = {
        "agent": templates / "agent",
        f"platform/{target.platform}": templates / "platform" / target.platform,
    }
    agent = {
        f"{folder}/{path.name}": path.read_bytes()
        for folder, source in folders.items()
        for path in sorted(source.glob("*"))
        if path.suffix in (".c", ".h", ".S")
    }
    if target.port is not None:
        port = templates / "port" / f"{target.port.name}.c"
        if not port.is_file():
            raise TargetError(f"{target.name}: port {target.port.name} has no source {port.name}")
        agent[f"port/{port.name}"] = port.read_bytes()
    generated = {
        "generated/edgekit_port.h": port_header(target).encode(),
        "generated/programs.c": programs_source().encode(),
    }
    if target.platform != "linux":
        generated["generated/linker.ld"] = linker_script(target).encode()
    model = {f"model/{name}": data for name, data in compiled.files.items()}
    # The driver includes it; a bundle has it too, so that the library can be built again from what is there.
    model[f"model/{_PROGRAM_HEADER}"] = (templates / "agent" / _PROGRAM_HEADER).read_bytes()
    return _Sources(model=model, agent=agent, generated=generated)


def _compile_and_link(
    sources: _Sources, compiled: CompiledModel, target: Target, toolchain: Toolchain, work: Path
) -> _Built:
    for path, data in {**sources.model, **sources.agent, **sources.generated}.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(data)
    model_objects = [path for path in sources.model if path.endswith(".o")]
    model_objects += _compile(sources.model, target, toolchain, work)
    agent_objects = _compile({**sources.agent, **sources.generated}, target, toolchain, work)

    toolchain.archive("model.a", sorted(model_objects), work)
    image = _link(sorted((*agent_objects, *model_objects)), compiled, target, toolchain, work)
    elf = parse_elf(image, "the image")
    check_abi(elf, target, "the image")
    check_budget(elf, target, compiled)
    objects = [parse_elf((work / path).read_bytes(), path) for path in model_objects]
    memory = memory_use(
        elf,
        target,
        arena_bytes=_section_bytes(objects, _ARENA_SECTION),
        weights_bytes=_section_bytes(objects, _WEIGHTS_SECTION),
    )
    library = (work / "model.a").read_bytes()
    shared = (
        _link_shared(sources, model_objects, target, toolchain, work) if target.platform == "linux" else None
    )
    return _Built(image, library, shared, memory, toolchain.versions)


def _for_python(compiled: CompiledModel, target: Target, library: str, built: _Built) -> Mapping[str, bytes]:
    """On Linux: the model as a shared library, and the Python module that calls it.

    In a folder of their own: beside `lib<name>.a` a linker would take the shared library for `-l<name>`.
    """
    if built.shared_library is None:
        return {}
    module = python_module(compiled, target, library)
    return {
        f"python/lib{library}.so": built.shared_library,
        f"python/{module_name(library)}.py": module.encode("ascii"),
    }


def _section_bytes(objects: Sequence[Elf], name: str) -> int:
    found = (section for elf in objects for section in elf.sections if section.name == name)
    return sum(section.size_bytes for section in found)


def _compile(paths: Mapping[str, bytes], target: Target, toolchain: Toolchain, work: Path) -> list[str]:
    """Compiles every C and assembler source of `paths`; returns the objects' paths."""
    platform_flags = _LINUX_FLAGS if target.platform == "linux" else _BOARD_FLAGS
    # After edgekit's own, so that a target's -O goes before them.
    flags = (
        *_COMMON_FLAGS,
        *platform_flags,
        *toolchain.flags,
        *_INCLUDES,
        f"-Iplatform/{target.platform}",
    )
    objects: list[str] = []
    for path in sorted(paths):
        if not path.endswith((".c", ".S")):
            continue
        made = _object(path)
        # weights.S names weights.bin as it lies beside it: -Wa,-I is where .incbin looks. Assembler code does
        # not say by itself that it needs no executable stack, and a linker of today warns.
        extra = ["-Wa,-Imodel,--noexecstack"] if path.endswith(".S") else []
        result = toolchain.run_gcc([*flags, *extra, "-c", path, "-o", made], work)
        if result.returncode:
            raise TargetError(f"{toolchain.gcc.name} could not compile {path}:\n{result.first_lines}")
        check_abi(parse_elf((work / made).read_bytes(), made), target, made)
        objects.append(made)
    return objects


def _link(
    objects: Sequence[str], compiled: CompiledModel, target: Target, toolchain: Toolchain, work: Path
) -> bytes:
    if target.platform == "linux":
        options = [*_LINUX_LINK, *(["-static"] if toolchain.static else [])]
    else:
        options = list(_BOARD_LINK)
    result = toolchain.run_gcc([*toolchain.flags, *options, *objects, "-lm", "-o", "image"], work)
    if result.returncode:
        check_linker_overflow(result.stderr, target, compiled)
        raise TargetError(f"{toolchain.gcc.name} could not link the image:\n{result.first_lines}")
    return (work / "image").read_bytes()


def _link_shared(
    sources: _Sources, model_objects: Sequence[str], target: Target, toolchain: Toolchain, work: Path
) -> bytes:
    """The model and the threads as one shared library, for programs that load it at run time.

    With a toolchain of its own for that, the objects in `work` are written anew: they are needed no more.
    """
    if toolchain.shared is not None:
        toolchain = toolchain.shared
        platform = {path: data for path, data in sources.agent.items() if _object(path) in _SHARED_PLATFORM}
        _compile({**sources.model, **platform}, target, toolchain, work)
    options = ["-shared", "-pthread", *(each for each in _LINUX_LINK if each not in ("-no-pie", "-pthread"))]
    objects = sorted((*model_objects, *_SHARED_PLATFORM))
    result = toolchain.run_gcc([*toolchain.flags, *options, *objects, "-lm", "-o", "model.so"], work)
    if result.returncode:
        raise TargetError(f"{toolchain.gcc.name} could not link the shared library:\n{result.first_lines}")
    library = (work / "model.so").read_bytes()
    check_abi(parse_elf(library, "the shared library"), target, "the shared library")
    return library


def _object(source: str) -> str:
    return source.rsplit(".", 1)[0] + ".o"
