"""`--emit c`: builds without a warning by gcc and clang, and answers as the object code does, to the byte."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm.script import tirx as T  # noqa: N812 - the name of TVM's own scripts

from edgekit.artifacts import CompiledModel, ImportOptions, Model, TensorSpec
from edgekit.compiler import compile_model, emit_model
from edgekit.compiler.codegen.c_source import render_kernels
from edgekit.compiler.codegen.objects import lower_function
from edgekit.errors import UnsupportedError, UsageError
from edgekit.frontend import load_model
from edgekit.sources import renamed, write_sources
from edgekit.target import load_target
from tests.frontend.hostile import good_tflite
from tests.frontend.onnx_models import OnnxBuilder
from tests.reference.host_library import HostLibrary, build_host_library
from tests.reference.networks import branching_tflite

ROOT = Path(__file__).resolve().parents[2]
STRICT = [
    "-std=c99",
    "-pedantic",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wconversion",
    "-Wno-sign-conversion",
]
ROWS = 24


def _call(arguments: list[str], directory: Path, given: bytes = b"") -> bytes:
    done = subprocess.run(
        arguments, cwd=directory, input=given, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return done.stdout


def _model(name: str, data_dir: Path, folder: Path) -> Model:
    if name == "kws":
        return load_model(data_dir / "kws_ref_model.tflite")
    if name == "example":
        with np.load(ROOT / "examples/fashion_mnist/calibration.npz") as file:
            rows = file["x"][:32].astype(np.float32)
        return load_model(ROOT / "examples/fashion_mnist/model.onnx", calibration=(rows,))
    if name == "float":
        path = folder / "float.onnx"
        path.write_bytes(_float_network())
        return load_model(path, ImportOptions(precision="float32"))
    path = folder / f"{name}.tflite"
    path.write_bytes(branching_tflite() if name == "branches" else good_tflite())
    return load_model(path)


def _float_network() -> bytes:
    """A convolution and what TVM has of functions, all of it in float32."""
    b = OnnxBuilder(np.random.default_rng(0))
    base = b.node("Tanh", [b.conv(b.input("x", (1, 3, 8, 8)), 3, 4, pads=[1, 1, 1, 1])])
    x = base
    for function in ("Sigmoid", "Erf", "Softplus", "Elu", "HardSwish", "Sin", "Exp", "LogSoftmax", "Floor"):
        x = b.node("Add", [b.node(function, [base]), x])
    b.output(b.node("Softmax", [b.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])]), (1, 4, 4, 4))
    return bytes(b.build().SerializeToString())


class _Case:
    """A model as C sources in a folder, beside the same as a host library of object code."""

    def __init__(self, name: str, data_dir: Path, folder: Path) -> None:
        model = _model(name, data_dir, folder)
        self.emitted: CompiledModel = emit_model(model, load_target("host"))
        self.sources = folder / "c"
        write_sources(self.sources, self.emitted.files)
        (folder / "object").mkdir()
        self.library: HostLibrary = build_host_library(
            compile_model(model, load_target("host")), folder / "object"
        )
        rng = np.random.default_rng(0)
        self.rows = [_random_row(self.emitted.inputs[0], rng) for _ in range(ROWS)]
        self.expected = b"".join(answer.tobytes() for row in self.rows for answer in self.library.run([row]))

    def check(self, program: Path) -> None:
        """The program answers all rows as the object code does: to the byte, or nearly in float."""
        answers = _call([str(program)], self.sources, b"".join(row.tobytes() for row in self.rows))
        if self.emitted.exact:
            assert answers == self.expected
            return
        found, wanted = (np.frombuffer(each, np.float32) for each in (answers, self.expected))
        assert np.allclose(found, wanted, rtol=1e-4, atol=1e-6)
        assert len(np.unique(found)) > 100


def _random_row(spec: TensorSpec, rng: np.random.Generator) -> NDArray[Any]:
    if spec.dtype == "float32":
        return rng.uniform(-1, 1, spec.shape).astype(np.float32)
    limits = np.iinfo(spec.dtype)
    return rng.integers(limits.min, limits.max + 1, spec.shape).astype(spec.dtype)


@pytest.fixture(scope="module", params=["kws", "example", "small", "branches", "float"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Case:
    data_dir = request.getfixturevalue("data_dir") if request.param == "kws" else Path()
    return _Case(request.param, data_dir, tmp_path_factory.mktemp(f"emit-{request.param}"))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_it_builds_without_a_warning_and_answers_as_the_object_code(case: _Case, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    program = case.sources / f"example-{compiler}"
    sources = ["model.c", "kernels.c", "weights.c", "example.c"]
    _call([compiler, *STRICT, "-O2", *sources, "-lm", "-o", str(program)], case.sources)
    case.check(program)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_undefined_behaviour(case: _Case, compiler: str) -> None:
    """Overflow, shifts, alignment and bounds, watched while rows run; arrays end where they should."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    program = case.sources / f"sanitized-{compiler}"
    flags = ["-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all"]
    try:
        _call(
            [compiler, "-fsanitize=address,undefined", "-x", "c", "-", "-o", str(program)],
            case.sources,
            b"int main(void){return 0;}",
        )
    except AssertionError:
        pytest.skip(f"the sanitizers of {compiler} are not installed")
    sources = ["model.c", "kernels.c", "weights.c", "example.c"]
    _call([compiler, "-std=c99", *flags, *sources, "-lm", "-o", str(program)], case.sources)
    case.check(program)


def test_it_is_a_library_of_three_functions(case: _Case) -> None:
    """Through ctypes, as an application calls it; the Makefile builds it."""
    _call(["make", "-s", "CC=gcc", "ARCH=-fPIC", "AR=ar"], case.sources)
    archive = case.sources / "libedgekit_model.a"
    shared = case.sources / "shared.so"
    _call(
        [
            "gcc",
            "-shared",
            "-Wl,--whole-archive",
            str(archive),
            "-Wl,--no-whole-archive",
            "-lm",
            "-o",
            str(shared),
        ],
        case.sources,
    )
    _call(["make", "-s", "clean"], case.sources)
    library = ctypes.CDLL(str(shared))
    for function in (library.edgekit_model_input, library.edgekit_model_output):
        function.argtypes, function.restype = (ctypes.c_uint32,), ctypes.c_void_p
    assert library.edgekit_model_input(1) is None
    assert library.edgekit_model_output(7) is None
    size = case.emitted.outputs[0].size_bytes
    all_outputs = sum(spec.size_bytes for spec in case.emitted.outputs)
    for row, start in zip(case.rows[:4], range(0, 4 * all_outputs, all_outputs), strict=True):
        ctypes.memmove(library.edgekit_model_input(0), row.tobytes(), row.nbytes)
        assert library.edgekit_model_run() == 0
        answer = ctypes.string_at(library.edgekit_model_output(0), size)
        if case.emitted.exact:
            assert answer == case.expected[start : start + size]
        else:
            wanted = np.frombuffer(case.expected[start : start + size], np.float32)
            assert np.allclose(np.frombuffer(answer, np.float32), wanted, rtol=1e-4, atol=1e-6)


def test_it_builds_for_a_microcontroller(case: _Case) -> None:
    """No libc but memcpy's kind is left to the linker."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    objects = []
    for name in ("model", "kernels", "weights"):
        _call(
            [
                "arm-none-eabi-gcc",
                "-mcpu=cortex-m4",
                "-mthumb",
                "-mfpu=fpv4-sp-d16",
                "-mfloat-abi=hard",
                *STRICT,
                "-O2",
                "-c",
                f"{name}.c",
                "-o",
                f"{name}.m4.o",
            ],
            case.sources,
        )
        objects.append(f"{name}.m4.o")
    _call(["arm-none-eabi-ld", "-r", *objects, "-o", "all.m4.o"], case.sources)
    undefined = {
        line.split()[-1]
        for line in _call(["arm-none-eabi-nm", "-u", "all.m4.o"], case.sources).decode().splitlines()
    }
    if not case.emitted.exact:
        undefined = {name for name in undefined if not name.endswith("f")}  # those of libm
    assert undefined <= {
        "memcpy",
        "memset",
        "__aeabi_ldivmod",
        "__aeabi_lmul",
        "__aeabi_lasr",
        "__aeabi_llsl",
    }


def test_the_makefile_and_the_cmake_file_build_the_example(case: _Case, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    _call(["cmake", "-S", str(case.sources), "-B", str(tmp_path), "-DCMAKE_BUILD_TYPE=Release"], tmp_path)
    _call(["cmake", "--build", str(tmp_path)], tmp_path)
    case.check(tmp_path / "example")


def test_two_models_in_one_program(tmp_path: Path) -> None:
    """Each under its own name, called from C++ with the warnings that a careful project has on."""
    (tmp_path / "small.tflite").write_bytes(good_tflite())
    emitted = emit_model(load_model(tmp_path / "small.tflite"), load_target("host"))
    for prefix in ("first", "second"):
        files = renamed(emitted.files, prefix)
        assert not any("edgekit_model" in name or b"edgekit_model" in text for name, text in files.items())
        write_sources(tmp_path / prefix, files)
        write_sources(tmp_path / prefix, files)  # its own folder is known again under any name
        _call(["make", "-s", "-C", str(tmp_path / prefix)], tmp_path)
        sources = [str(path) for path in (tmp_path / prefix).glob("*.c")]
        careful = [*STRICT, "-Wcast-qual", "-Wmissing-prototypes", "-Wundef", "-fsyntax-only"]
        _call(["gcc", *careful, *sources], tmp_path)
    (tmp_path / "main.cpp").write_text(
        '#include "first/first.h"\n#include "second/second.h"\n#include <cstring>\n'
        "int main() {\n"
        "    std::memset(first_input(0), 3, FIRST_INPUT_0_BYTES);\n"
        "    std::memset(second_input(0), 3, SECOND_INPUT_0_BYTES);\n"
        "    if (first_run() != 0 || second_run() != 0) return 2;\n"
        "    return std::memcmp(first_output(0), second_output(0), FIRST_OUTPUT_0_BYTES) != 0;\n}\n"
    )
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    libraries = ["first/libfirst.a", "second/libsecond.a"]
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
    _call(["g++", *warnings, "main.cpp", *libraries, "-lm", "-o", "both"], tmp_path)
    _call([str(tmp_path / "both")], tmp_path)


@pytest.mark.parametrize("prefix", ["", "9x", "a b", "Kws", "../x", "kernels", "a" * 41])
def test_a_prefix_is_a_plain_name(prefix: str) -> None:
    with pytest.raises(UsageError, match="can't be the name of C functions"):
        renamed({}, prefix)


def test_the_same_input_gives_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "small.tflite").write_bytes(good_tflite())
    model = load_model(tmp_path / "small.tflite")
    again = emit_model(model, load_target("host"))
    assert again.files == emit_model(load_model(tmp_path / "small.tflite"), load_target("host")).files
    board = emit_model(model, load_target("nucleo-f446re"))
    changed = {name for name in board.files if board.files[name] != again.files[name]}
    assert changed == {
        "Makefile",
        "README.md",
        "edgekit_model.h",
    }  # the compiler, the target's name, the hash
    assert b"CC = arm-none-eabi-gcc\n" in board.files["Makefile"]
    assert b"-mcpu=cortex-m4" in board.files["Makefile"]
    smaller = emit_model(model, load_target("host"), prefer="size").files["kernels.c"]
    assert smaller.count(b"\n") < again.files["kernels.c"].count(b"\n"), "loops instead of unrolled windows"


def test_shifts_wrap_as_in_the_object_code(tmp_path: Path) -> None:
    """(1 << 31) - 1, whole or by way of a variable, and negative numbers shifted left."""

    @T.prim_func(s_tir=True)
    def shift(a: T.Buffer((3,), "int32"), b: T.Buffer((4,), "int32")) -> None:
        b[0] = T.shift_left(1, a[0]) - 1
        b[1] = (T.shift_left(1, a[0]) - 1) & a[1]
        b[2] = T.shift_left(a[1], a[2])
        b[3] = T.shift_left(a[1], a[0])

    for name, text in render_kernels({"k": lower_function(shift).function}, {"k": "a test"}).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.c").write_text(
        '#include "kernels.h"\nint main(void)\n{\n    int32_t a[3] = {31, -7, 30}, b[4];\n    k(a, b);\n'
        "    return b[0] == INT32_MAX && b[1] == (INT32_MAX ^ 6) && b[2] == 1 << 30 "
        "&& b[3] == INT32_MIN ? 0 : 1;\n}\n"
    )
    flags = ["-std=c99", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    _call(["gcc", *flags, "kernels.c", "main.c", "-o", "program"], tmp_path)
    _call(["./program"], tmp_path)


def test_what_c_can_not_say_is_refused() -> None:
    @T.prim_func(s_tir=True)
    def vectorised(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")) -> None:
        for i in T.vectorized(8):
            b[i] = a[i]

    @T.prim_func(s_tir=True)
    def foreign(a: T.Buffer((1,), "float32"), b: T.Buffer((1,), "float32")) -> None:
        b[0] = T.call_pure_extern("float32", "system", a[0])

    for function in (vectorised, foreign):
        with pytest.raises(UnsupportedError, match="C99"):
            render_kernels({"k": lower_function(function).function}, {"k": "a test"})


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    files = {"kernels.h": b"/* The operators: generated by edgekit, do not edit. */\n", "model.c": b"new"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.c").write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        write_sources(tmp_path / "mine", files)
    assert (tmp_path / "mine" / "model.c").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        write_sources(tmp_path / "file", files)
    write_sources(tmp_path / "new" / "deep", files)
    write_sources(tmp_path / "new" / "deep", {**files, "model.c": b"newer"})
    assert (tmp_path / "new" / "deep" / "model.c").read_text() == "newer"
