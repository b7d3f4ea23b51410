"""How much of ONNX runs: the `onnx` package's node tests, each imported, compiled and run on the host.

    python -m benchmarks.coverage --write          docs/coverage.md, of the whole suite
    python -m benchmarks.coverage --only '^test_conv'

Every test is one model of one operator with inputs and the outputs that ONNX's reference gives. It passes
when edgekit's program for the host gives those, within the suite's own tolerance; it is unsupported when
edgekit refuses it with a sentence; anything else is wrong. The tests run in processes of their own, so that a
crash or an endless loop costs one test.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.coverage_cases import Case, Result, node_cases
from edgekit.artifacts import TensorSpec

__all__ = ["Result", "run_case", "run_cases"]


ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 120
"""Without a word from a process, for one test."""

PAGE = ROOT / "docs" / "coverage.md"


def run_case(case: Case, directory: Path) -> Result:
    """Import, compile and run one test in this process.

    Args:
        case: The test.
        directory: A folder of its own; the loaded library stays there.
    """
    from edgekit.artifacts import ImportOptions
    from edgekit.compiler import compile_model
    from edgekit.errors import EdgekitError
    from edgekit.frontend import load_model
    from edgekit.target import load_target
    from tests.reference.host_library import build_host_library

    path = directory / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    try:
        model = load_model(path, ImportOptions(precision="float32"))
        compiled = compile_model(model, load_target("host"))
    except EdgekitError as refusal:
        return Result(case.name, case.operator, "unsupported", " ".join(refusal.message.split()))
    library = build_host_library(compiled, directory)
    inputs = [_stored(np.asarray(x), spec) for x, spec in zip(case.inputs, compiled.inputs, strict=True)]
    outputs = [
        _real(found, spec, str(wanted.dtype))
        for found, spec, wanted in zip(library.run(inputs), compiled.outputs, case.outputs, strict=True)
    ]
    try:
        assert len(outputs) == len(case.outputs)
        for found, wanted in zip(outputs, case.outputs, strict=True):
            assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
            real = wanted.dtype.kind not in "iub"
            rtol, atol = (case.rtol, case.atol) if real else (0.0, 0.0)
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)
    except AssertionError as error:
        return Result(case.name, case.operator, "wrong", " ".join(str(error).split())[:300])
    return Result(case.name, case.operator, "passed", "")


def _stored(values: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[Any]:
    """What the program takes: a quantize at the border of a model is the host's work."""
    if spec.dtype == "float32":
        return values.astype(np.float32)
    if str(values.dtype) == spec.dtype or spec.quantization is None:
        return values
    limits = np.iinfo(spec.dtype)
    steps = np.rint(values / np.float32(spec.quantization.scale)) + spec.quantization.zero_point
    stored: npt.NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(spec.dtype)
    return stored


def _real(values: npt.NDArray[Any], spec: TensorSpec, wanted: str) -> npt.NDArray[Any]:
    """What the model gives: so is a dequantize, and another width of reals."""
    if spec.dtype == "float32" and wanted in ("float16", "float64"):
        return values.astype(np.dtype(wanted))
    if str(values.dtype) == wanted or spec.quantization is None or wanted != "float32":
        return values
    steps: npt.NDArray[Any] = values.astype(np.float32) - spec.quantization.zero_point
    real: npt.NDArray[Any] = steps * np.float32(spec.quantization.scale)
    return real


def _work(names: Sequence[str]) -> None:
    """Run the named tests and say on stdout what is begun and what is done, a line of JSON each."""
    wanted = frozenset(names)
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    # TVM writes warnings of its own to both.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    with tempfile.TemporaryDirectory(prefix="edgekit-coverage-") as name:
        for index, case in enumerate(case for case in node_cases() if case.name in wanted):
            lines.write(json.dumps({"begun": case.name}) + "\n")
            directory = Path(name) / str(index)
            directory.mkdir()
            try:
                result = run_case(case, directory)
            except Exception as error:  # Whatever it is, edgekit did not refuse with a sentence.
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                result = Result(case.name, case.operator, "wrong", reason)
            lines.write(json.dumps({"done": asdict(result)}) + "\n")


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
    """Lines as they come; None once there was none for too long. With a buffer, lines would hide in it."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(TIMEOUT_SECONDS):
                yield None
                return
            line = process.stdout.readline()
            if not line:
                return
            yield line


def run_cases(cases: Mapping[str, str]) -> Iterator[Result]:
    """Run tests in processes of their own, one after the other; a process lasts until a test kills it.

    Args:
        cases: The operator of each test, by name.
    """
    left = list(cases)
    while left:
        command = [sys.executable, "-m", "benchmarks.coverage", "--worker", *left]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        ) as process:
            begun: str | None = None
            silent = False
            for line in _lines(process):
                if line is None:
                    silent = True
                    break
                message = json.loads(line)
                begun = message.get("begun", begun)
                if "done" in message:
                    begun = None
                    left.remove(message["done"]["name"])
                    yield Result(**message["done"])
            if silent:
                process.kill()
            process.wait()
        if begun is not None:
            left.remove(begun)
            reason = f"no answer in {TIMEOUT_SECONDS} s" if silent else "the process crashed"
            yield Result(begun, cases[begun], "wrong", reason)
        elif left and process.returncode != 0 and not silent:
            raise RuntimeError(f"the tests cannot be collected (exit {process.returncode})")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="tests whose name matches")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--worker", nargs="*", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        _work(options.worker)
        return 0
    if options.write and options.only:
        parser.error("--write takes the whole suite")
    cases = {case.name: case.operator for case in node_cases(options.only)}
    results = []
    for result in run_cases(cases):
        results.append(result)
        if sys.stderr.isatty():
            print(f"\r{len(results)} of {len(cases)}", end="", file=sys.stderr)
        if result.outcome == "wrong" or (options.only and result.outcome != "passed"):
            print(f"{result.outcome}: {result.name}: {result.reason[:200]}")
    counts = Counter(result.outcome for result in results)
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "unsupported", "wrong")))
    if options.write:
        from benchmarks.coverage_page import render

        PAGE.write_text(render(results), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
