"""Feed mutated model files to edgekit's readers under atheris; run as a program.

    python fuzz_reader.py tflite|onnx SECONDS SEED FOLDER

FOLDER takes the seeds and what broke a reader. Whatever is no `EdgekitError` ends the program, as do a crash,
ten seconds for one file and memory beyond the limit.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgekit.frontend"]):
    from edgekit.errors import EdgekitError
    from edgekit.frontend.onnx_check import check_onnx, is_quantized
    from edgekit.frontend.onnx_convert import convert_onnx
    from edgekit.frontend.onnx_places import places_in_source
    from edgekit.frontend.source import Source
    from edgekit.frontend.tflite_check import check_tflite
    from edgekit.frontend.tflite_convert import convert_tflite
    from edgekit.frontend.tflite_graph import parse_tflite
    from edgekit.frontend.tflite_labels import read_labels

from tests.frontend.hostile import (
    ONNX_CHANGES,
    TFLITE_CHANGES,
    good_onnx,
    good_tflite,
    onnx_with,
    tflite_with,
)

SECONDS_PER_FILE = 10
MEMORY_MB = 3072
CONVERTED_SHARE = 16
"""One of so many files that pass the checks is converted as well: TVM takes longer than the checks."""


def read_tflite(content: bytes) -> None:
    checked = check_tflite(parse_tflite(content), None)
    first = checked.graph.tensors[checked.graph.outputs[0]]
    if first.shape:
        read_labels(content, first.shape[-1])
    if zlib.crc32(content) % CONVERTED_SHARE == 0:
        convert_tflite(content, checked)


def read_onnx(content: bytes) -> None:
    checked = check_onnx(Source(Path("fuzzed.onnx"), content, "0" * 64), None)
    if is_quantized(checked.model) and zlib.crc32(content) % CONVERTED_SHARE == 0:
        convert_onnx(checked, places_in_source(checked.nodes, checked.model.graph))


READERS: dict[str, Callable[[bytes], None]] = {"tflite": read_tflite, "onnx": read_onnx}


def _seeds(kind: str) -> list[bytes]:
    if kind == "tflite":
        return [good_tflite(), *(tflite_with(change) for change in TFLITE_CHANGES.values())]
    good = [good_onnx(quantized=quantized).SerializeToString() for quantized in (True, False)]
    return [*good, *(onnx_with(change) for change in ONNX_CHANGES.values())]


def main() -> None:
    kind, seconds, seed, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(_seeds(kind)):
        (corpus / f"seed-{number}").write_bytes(content)
    read = READERS[kind]

    def one(content: bytes) -> None:
        try:
            read(content)
        except EdgekitError:
            pass

    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-timeout={SECONDS_PER_FILE}",
        f"-rss_limit_mb={MEMORY_MB}",
        "-max_len=65536",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/",
        str(corpus),
    ]
    atheris.Setup(arguments, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
