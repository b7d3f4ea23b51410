"""One network through three front ends: torch (PT2E), float ONNX, and ONNX that ONNX Runtime has quantised.

    python -m benchmarks.frontends                         on this machine, 10,000 images
    python -m benchmarks.frontends --board mps2-an386      and 64 of them on an emulated board

Each line says what the deployed program answers right, how far that is from the float network, and whether
every board gave the bytes of the host. Exit code 1 when one loses more than a point or a board differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import edgekit
from benchmarks.mixed_cnn import EXAMPLE, INPUT_SHAPE, MixedCnn, trained
from edgekit import ImportOptions, Model
from edgekit.text import file_name

__all__ = ["Line", "compare"]

MAX_LOSS_POINTS = 1.0

Images = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Line:
    """One front end. `boards` says of each whether its answers were the host's to the bit."""

    route: str
    accuracy: float
    exact_program: bool
    boards: Mapping[str, bool]
    within_one_step: float
    same_answer: float

    @property
    def text(self) -> str:
        boards = "  ".join(f"{name} {'equal' if same else 'DIFFERS'}" for name, same in self.boards.items())
        program = "integers" if self.exact_program else "with float parts"
        return (
            f"{self.route:12} {self.accuracy:.4f}  {program:16} "
            f"{self.within_one_step:>8.2%} {self.same_answer:>8.2%}  {boards}"
        )


class _Rows:
    """Calibration rows as ONNX Runtime asks for them."""

    def __init__(self, images: Images) -> None:
        self._feeds: Iterator[dict[str, Images]] = ({"image": image[None]} for image in images)

    def get_next(self) -> dict[str, Images] | None:
        return next(self._feeds, None)


def _export(network: MixedCnn, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(INPUT_SHAPE),),
            str(path),
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamo=False,
        )
    return path


def _quantize(path: Path, calibration: Images, folder: Path) -> Path:
    """The file as ONNX Runtime's static quantiser writes it, with its default choice of operators."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, quantized = folder / "prepared.onnx", folder / "quantized.onnx"
    quant_pre_process(str(path), str(prepared))
    quantize_static(
        str(prepared),
        str(quantized),
        _Rows(calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    return quantized


def _onnx_logits(path: Path, images: Images) -> npt.NDArray[np.float32]:
    """By ONNX Runtime without optimisations, which change what int8 operators compute."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def _pt2e_logits(network: MixedCnn, calibration: Images, images: Images) -> npt.NDArray[np.float32]:
    """What torchao says that the network computes after quantisation."""
    from edgekit.frontend.torch_convert import imported_operators
    from edgekit.frontend.torch_graph import capture
    from edgekit.frontend.torch_quantize import calibration_rows, quantize_graph

    example = (torch.zeros(INPUT_SHAPE),)
    graph = capture(network, example, imported_operators())
    converted = quantize_graph(graph, calibration_rows(["image"], example, [calibration]), ImportOptions())
    with torch.no_grad():
        found: npt.NDArray[np.float32] = np.concatenate(
            [converted(torch.from_numpy(image[None])).numpy() for image in images]
        )
    return found


def compare(
    route: str,
    model: Model,
    simulate: Callable[[Images], npt.NDArray[np.float32]],
    data: Path,
    boards: list[str],
    samples: int,
    simulated: int,
    folder: Path,
) -> Line:
    """Deploy to the host on all of `data`, and to each board on `samples` rows of it.

    `simulate` computes in the front end's own tool what the program is to compute; `simulated` rows of it are
    compared with the host's answers.
    """
    on_host = edgekit.deploy(
        model, target="host", data=data, directory=folder / f"{file_name(route)}-host", check=False
    )
    assert on_host.accuracy is not None
    equal = {}
    for board in boards:
        deployment = edgekit.deploy(
            model,
            target=board,
            data=data,
            samples=samples,
            directory=folder / f"{file_name(route)}-{board}",
            check=False,
        )
        assert deployment.verification is not None
        equal[board] = deployment.verification.bit_exact
    images = np.load(data)["x"][:simulated]
    expected = simulate(images)
    (stored,) = edgekit.run_bundle(on_host.image.directory, [images])
    output = on_host.compiled.outputs[0]
    reals, step = stored.reshape(expected.shape).astype(np.float64), 1e-3
    if output.quantization is not None:
        step = output.quantization.scale
        reals = (reals - output.quantization.zero_point) * step
    return Line(
        route=route,
        accuracy=on_host.accuracy.value,
        exact_program=on_host.compiled.exact,
        boards=equal,
        within_one_step=float((np.abs(reals - expected) <= 1.01 * step).mean()),
        same_answer=float((reals.argmax(1) == expected.argmax(1)).mean()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="One network through three front ends.")
    parser.add_argument("--board", action="append", default=[], metavar="TARGET", help="may be repeated")
    parser.add_argument("--samples", type=int, default=64, help="rows on each board")
    parser.add_argument(
        "--simulated", type=int, default=2000, help="rows that torch or ONNX Runtime computes"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(EXAMPLE))
    from dataset import load, save_npz
    from train import accuracy

    dataset = load()
    calibration = np.load(EXAMPLE / "calibration.npz")["x"]
    network = trained()
    exact = accuracy(network, torch.from_numpy(dataset.x_test), torch.from_numpy(dataset.y_test))
    print(
        f"{'float32':12} {exact:.4f}  ({len(dataset.y_test)} test images of {dataset.name}, torch)",
        flush=True,
    )
    passed = True
    with tempfile.TemporaryDirectory(prefix="edgekit-frontends-") as name:
        folder = Path(name)
        data = folder / "test.npz"
        save_npz(data, dataset.x_test, dataset.y_test, dataset.classes)
        plain = _export(network, folder / "mixed.onnx")
        quantized = _quantize(plain, calibration, folder)
        example = (torch.zeros(INPUT_SHAPE),)
        routes: Mapping[str, tuple[Callable[[], Model], Callable[[Images], npt.NDArray[np.float32]]]] = {
            "torch PT2E": (
                lambda: edgekit.load_torch(network, example, [calibration], ImportOptions(name="mixed")),
                lambda images: _pt2e_logits(network, calibration, images),
            ),
            "ONNX float": (
                lambda: edgekit.load_model(plain, ImportOptions(name="mixed"), calibration=[calibration]),
                lambda images: _onnx_logits(plain, images),
            ),
            "ONNX QDQ": (
                lambda: edgekit.load_model(quantized, ImportOptions(name="mixed")),
                lambda images: _onnx_logits(quantized, images),
            ),
        }
        print(f"{'route':12} {'top1':6}  {'program':16} {'±1 step':>8} {'same':>8}  boards", flush=True)
        for route, (load_route, simulate) in routes.items():
            line = compare(
                route,
                load_route(),
                simulate,
                data,
                arguments.board,
                arguments.samples,
                arguments.simulated,
                folder,
            )
            print(line.text, flush=True)
            passed = passed and 100 * (exact - line.accuracy) <= MAX_LOSS_POINTS and all(line.boards.values())
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
