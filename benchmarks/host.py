"""int8 on this machine, one thread: edgekit's program beside LiteRT and ONNX Runtime, in one run.

    python -m benchmarks.host [--models FOLDER] [--rounds 30]

The TFLite models (ic and kws from FOLDER, vww and ad with random weights) run in LiteRT with its default
kernels; the example's network in ONNX Runtime, quantised by its static quantiser with the same scales that
edgekit's program has. Engines take turns, round by round, so that what else the machine does hits all of
them; the figure is the median over the rounds, in microseconds an inference. edgekit's is its program's own
clock, the others' include the call from Python. The portable schedule runs here: hosts have no kernels of
their own yet.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.int8 import FILES
from benchmarks.mlperf_tiny import MODELS
from edgekit.artifacts import DEFAULT_COMPILE, DEFAULT_IMPORT, ImportOptions, Model, Serving
from edgekit.profile import tick_unit
from edgekit.stages import STAGES
from edgekit.target import load_target

__all__ = ["main"]

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "fashion_mnist"
Engine = Callable[[], float]
"""One inference; its time in microseconds."""


def _edgekit(model: Model, folder: Path, opened: ExitStack) -> Engine:
    host = load_target("host")
    compiled = STAGES.compile_model(model, host, DEFAULT_COMPILE)
    image = STAGES.build_image(compiled, host, folder, {})
    client = opened.enter_context(STAGES.open_board(host, image, None, Serving()))
    for index, spec in enumerate(compiled.inputs):
        client.write_input(index, bytes(spec.size_bytes))
    unit = tick_unit(host)
    return lambda: unit.amount(client.profile_run())


def _litert(content: bytes) -> Engine:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    return lambda: _timed(interpreter.invoke)


def _onnxruntime(path: Path) -> Engine:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports models to its makers otherwise
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    feed = {given.name: np.zeros([int(size) for size in given.shape], np.float32)}
    return lambda: _timed(lambda: session.run(None, feed))


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - began)


def _medians(engines: Mapping[str, Engine], rounds: int) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 3):
        for name, engine in engines.items():
            taken = engine()
            if turn >= 3:  # the first turns fill caches
                found[name].append(taken)
    return {name: float(np.median(times)) for name, times in found.items()}


def _tflite_models(folder: Path | None) -> dict[str, bytes]:
    found = {name: build() for name, build in MODELS.items()}
    for name, file in FILES.items():
        if folder is not None and (folder / file).is_file():
            found[name] = (folder / file).read_bytes()
        else:
            print(f"{name}: no {file} (--models FOLDER)", file=sys.stderr)
    return found


def main() -> int:
    """Print a line a model."""
    named = os.environ.get("EDGEKIT_TEST_DATA")
    parser = argparse.ArgumentParser(description="int8 on this machine beside LiteRT and ONNX Runtime.")
    parser.add_argument("--models", type=Path, default=Path(named) if named else None, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    print(
        f"{'model':14} {'edgekit':>9} {'LiteRT':>9} {'ONNX Runtime':>13}"
        f"   µs an inference, medians of {arguments.rounds}"
    )
    with tempfile.TemporaryDirectory() as directory, ExitStack() as opened:
        work = Path(directory)
        for name, content in _tflite_models(arguments.models).items():
            path = work / f"{name}.tflite"
            path.write_bytes(content)
            engines = {
                "edgekit": _edgekit(STAGES.load_model(path, DEFAULT_IMPORT, None), work / name, opened),
                "LiteRT": _litert(content),
            }
            times = _medians(engines, arguments.rounds)
            print(f"{name:14} {times['edgekit']:9.1f} {times['LiteRT']:9.1f}", flush=True)
        calibration = [np.load(EXAMPLE / "calibration.npz")["x"]]
        options = ImportOptions(name="fashion_mnist")
        model = STAGES.load_model(EXAMPLE / "model.onnx", options, calibration)
        quantized = work / "quantized.onnx"
        quantized.write_bytes(_quantized_example(calibration))
        engines = {
            "edgekit": _edgekit(model, work / "example", opened),
            "ONNX Runtime": _onnxruntime(quantized),
        }
        times = _medians(engines, arguments.rounds)
        print(f"{'fashion_mnist':14} {times['edgekit']:9.1f} {'':9} {times['ONNX Runtime']:13.1f}")
    return 0


def _quantized_example(calibration: list[np.ndarray]) -> bytes:
    from edgekit.frontend.onnx_check import check_onnx
    from edgekit.frontend.onnx_quantize import quantize_onnx
    from edgekit.frontend.source import read_source

    checked = check_onnx(read_source(EXAMPLE / "model.onnx"), None)
    return bytes(quantize_onnx(checked, calibration).SerializeToString())


if __name__ == "__main__":
    sys.exit(main())
