"""What compile_model hands on: reproducible bytes, plain symbols, C that no name from the model reaches."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm import relax

from edgekit.artifacts import CompiledModel, Model, Preference
from edgekit.compiler import analyze_model, compile_model
from edgekit.target import load_target
from tests.compiler.qdq import Graph, qdq_model

# One schedule whose kernels take what the operators hold, so that the files change with the driver only.
PORTABLE = load_target("mps2-an386").model_copy(update={"schedules": ("portable",)})

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = '*/ #include "/etc/passwd" \x1b[2J <script> ../../x'


def small_model() -> Model:
    """Two equal convolutions, a pool, a dense layer and a softmax: sharing, workspaces, every constant."""
    rng = np.random.default_rng(1)
    kernels = [rng.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8) for _ in range(2)]
    matrix = rng.integers(-127, 128, (4, 3)).astype(np.int8)

    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(x, 0.05, -3)
        for kernel in kernels:
            value = graph.emit(relax.op.nn.conv2d(value, graph.weights(kernel), padding=1))
            value = graph.requantized(value, 0.05, -3)
        value = graph.emit(relax.op.nn.max_pool2d(value, pool_size=(8, 8)))
        flat = graph.emit(relax.op.reshape(value, (1, 4)))
        logits = graph.requantized(graph.emit(relax.op.matmul(flat, graph.weights(matrix))), 0.1, 0)
        return graph.requantized(graph.emit(relax.op.nn.softmax(logits)), 1 / 256, -128)

    return qdq_model([(1, 4, 8, 8)], body)


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return compile_model(small_model(), PORTABLE)


def test_the_same_input_gives_the_same_bytes(compiled: CompiledModel) -> None:
    again = compile_model(small_model(), PORTABLE)
    assert again == compiled


def test_equal_operators_share_one_kernel(compiled: CompiledModel) -> None:
    source = compiled.files["model.c"].decode()
    assert source.count("void edgekit_model_k1(") == 1
    assert source.count("    edgekit_model_k1(\n") == 2


def test_objects_need_nothing_but_libc(compiled: CompiledModel, emulator: str, tmp_path: Path) -> None:
    path = tmp_path / "kernels.o"
    path.write_bytes(compiled.files["kernels.o"])
    listing = subprocess.run(
        ["arm-none-eabi-nm", "--undefined-only", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    undefined = {name for name in listing if name != "U"}
    assert undefined <= {
        "memcpy",
        "memset",
        "__aeabi_memcpy",
        "__aeabi_memset",
        "__aeabi_memset8",
        "__aeabi_memclr",
        "__aeabi_unwind_cpp_pr0",
    }


def test_arena_covers_every_allocation(compiled: CompiledModel) -> None:
    highest = max(a.offset + a.size_bytes for a in compiled.allocations)
    assert 0 <= compiled.arena_bytes - highest < 16
    assert {a.kind for a in compiled.allocations} >= {"input", "activation", "output"}


def test_generated_c_compiles_without_a_warning(
    compiled: CompiledModel, emulator: str, tmp_path: Path
) -> None:
    for name, data in compiled.files.items():
        (tmp_path / name).write_bytes(data)
    templates = Path(__file__).resolve().parents[2] / "firmware_templates" / "agent"
    flags = ["-mcpu=cortex-m4", "-mthumb", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-std=c99", "-O2"]
    for source in ("model.c", "weights.S"):
        command = ["arm-none-eabi-gcc", *flags, f"-I{templates}", "-c", source, "-o", f"{source}.o"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    (tmp_path / "user.c").write_text(
        '#include "edgekit_model.h"\nint use(void);\nint use(void) { return edgekit_model_run(); }\n'
    )
    subprocess.run(
        ["arm-none-eabi-gcc", *flags, "-c", "user.c", "-o", "user.o"], cwd=tmp_path, check=True, timeout=60
    )


def test_no_name_from_the_model_reaches_the_files(compiled: CompiledModel) -> None:
    model = small_model()
    places = {key: replace(place, name=HOSTILE, op=HOSTILE) for key, place in model.places.items()}
    hostile = replace(model, name=HOSTILE, input_names=(HOSTILE,), output_names=(HOSTILE,), places=places)
    assert compile_model(hostile, PORTABLE).files == compiled.files


def test_driver_and_header_are_as_the_golden_files_say(compiled: CompiledModel) -> None:
    """Regenerate with EDGEKIT_UPDATE_GOLDEN=1."""
    for name in ("model.c", "edgekit_model.h", "weights.S"):
        text = compiled.files[name].decode().replace(compiled.model_hash, "HASH")
        lines = [line for line in text.splitlines() if "0x" not in line]
        rendered = "\n".join(lines) + "\n"
        golden = GOLDEN / f"{name}.txt"
        if os.environ.get("EDGEKIT_UPDATE_GOLDEN"):
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(rendered)
        assert golden.read_text() == rendered


def test_a_model_that_computes_nothing_copies_its_input() -> None:
    compiled = compile_model(qdq_model([(1, 4)], lambda g, x: g.requantized(x, 0.1, 0)), load_target("host"))
    assert [operator.op for operator in compiled.operators] == ["copy"]


@pytest.mark.parametrize("prefer", ["ram", "size"])
def test_analysis_plans_the_kernels_that_are_preferred(prefer: Preference) -> None:
    target = load_target("mps2-an386")
    usual, found = (analyze_model(small_model(), target, prefer=each) for each in ("speed", prefer))
    built = compile_model(small_model(), target, prefer=prefer)
    assert found.arena_bytes == built.arena_bytes < (usual.arena_bytes or 0)
    assert [row.schedule for row in found.operators] == [row.schedule for row in built.operators]
    assert [row.schedule for row in usual.operators] != [row.schedule for row in built.operators]


def test_analysis_lists_what_will_run_and_what_is_refused() -> None:
    target = load_target("host")
    rows = analyze_model(small_model(), target).operators
    assert [row.op for row in rows if row.form == "integer"] == [
        operator.op for operator in compile_model(small_model(), target).operators
    ]
    assert sum(row.macs for row in rows) == 2 * 8 * 8 * 4 * 9 * 4 + 12
    in_float = analyze_model(
        qdq_model([(1, 4)], lambda g, x: g.emit(relax.op.std(g.requantized(x, 0.1, 0)))), target
    ).operators
    assert [(row.op, row.form) for row in in_float] == [("dequantize", "float"), ("float.std", "float")]
    assert in_float[-1].reason
    refused = analyze_model(
        qdq_model([(1, 4)], lambda g, x: g.emit(relax.op.unique(g.requantized(x, 0.1, 0)))), target
    ).operators
    assert refused[-1].form == "refused"
    assert refused[-1].reason
