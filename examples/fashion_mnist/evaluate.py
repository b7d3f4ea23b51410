"""Compares the float model with what edgekit deploys, on all test images.

    python evaluate.py                       float and int8 accuracy, int8 on this machine
    python evaluate.py --board mps2-an386    and the 256 images of sample.npz on a board

Exit code 1 when int8 loses more than a point, or the board's answers are not the host's to the bit.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

import numpy as np
from dataset import Dataset, load, save_npz

from edgekit.artifacts import ImportOptions
from edgekit.pipeline import Deployment, deploy

__all__ = ["deployed", "float_accuracy"]

HERE: Final = Path(__file__).resolve().parent
MAX_LOSS_POINTS: Final = 1.0


def float_accuracy(model: Path, dataset: Dataset) -> float:
    """Share of the test images that the float ONNX file answers right, by ONNX Runtime on one thread."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports models to its makers otherwise
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    answers = [int(np.argmax(session.run(None, {name: image[None]})[0])) for image in dataset.x_test]
    return float(np.mean(np.asarray(answers) == dataset.y_test))


def deployed(target: str, data: Path, build: Path, samples: int | None = None) -> Deployment:
    """The model on `target`, quantised with calibration.npz, run on `samples` rows of `data` or on all."""
    return deploy(
        HERE / "model.onnx",
        target=target,
        options=ImportOptions(name="fashion_mnist"),
        data=data,
        calibration=HERE / "calibration.npz",
        directory=build / f"evaluate-{target}",
        samples=samples,
        check=False,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Float and int8 accuracy on all test images.")
    parser.add_argument("--board", metavar="TARGET", help="also run sample.npz on this target")
    parser.add_argument(
        "--samples", type=int, help="rows of sample.npz to run on the board (default: all 256)"
    )
    parser.add_argument("--build", type=Path, default=HERE / "build", help="folder for what is built")
    arguments = parser.parse_args()

    dataset = load()
    test = arguments.build / "test.npz"
    save_npz(test, dataset.x_test, dataset.y_test, dataset.classes)
    exact = float_accuracy(HERE / "model.onnx", dataset)
    print(
        f"float32  {exact:.4f}  ({len(dataset.y_test)} test images of {dataset.name}, ONNX Runtime)",
        flush=True,
    )

    on_host = deployed("host", test, arguments.build).accuracy
    assert on_host is not None
    print(
        f"int8     {on_host.value:.4f}  ({on_host.samples} test images, edgekit on this machine)", flush=True
    )
    loss = 100 * (exact - on_host.value)
    passed = loss <= MAX_LOSS_POINTS
    print(f"int8 loses {loss:.2f} points of accuracy ({MAX_LOSS_POINTS:.1f} allowed)", flush=True)

    if arguments.board is not None:
        deployment = deployed(arguments.board, HERE / "sample.npz", arguments.build, arguments.samples)
        verification = deployment.verification
        assert verification is not None
        answer = "equal the host's to the bit" if verification.bit_exact else "DIFFER from the host's"
        print(f"{arguments.board}: the answers to {verification.samples} images {answer}")
        passed = passed and verification.bit_exact
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
