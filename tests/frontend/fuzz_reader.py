"""Feed mutated model files to edgekit's readers under atheris; run as a program.

    python fuzz_reader.py tflite|onnx SECONDS SEED FOLDER

FOLDER takes the seeds and what broke a reader. Whatever is no `EdgekitError` ends the program, as do a crash,
ten seconds for one file and memory beyond the limit.
"""

from __future__ import annotations

import contextlib
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import atheris
import onnx
from google.protobuf.message import DecodeError

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


def mutate_onnx(content: bytes, limit: int, seed: int) -> bytes:
    """Half of the time a field of a whole message changes, so that what comes out is still a protobuf."""
    random = Random(seed)
    if random.random() < 0.5:
        return bytes(atheris.Mutate(content, limit))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return bytes(atheris.Mutate(content, limit))
    for _ in range(random.randint(1, 3)):
        with contextlib.suppress(ValueError):  # the field takes no such value
            _change(random.choice(list(_messages(model))), random)
    changed = bytes(model.SerializeToString())
    return changed if len(changed) <= limit else content


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if isinstance(value, Iterable) else (value,):
                yield from _messages(each)


_NUMBERS = (0, 1, 2, 3, 7, 8, -1, -2, 127, 255, 256, 2**31 - 1, -(2**31), 2**40, 2**62)


def _change(message: Any, random: Random) -> None:
    """One field gone, another number, another text, or an item of a list twice, gone or elsewhere."""
    fields = [field for field, _ in message.ListFields()]
    if not fields:
        return
    field = random.choice(fields)
    value = getattr(message, field.name)
    if hasattr(value, "append") or hasattr(value, "add"):
        items = list(value)
        position = random.randrange(len(items))
        action = random.randrange(4)
        if action == 0:
            items.pop(position)
        elif action == 1:
            items.insert(random.randrange(len(items) + 1), items[position])
        elif action == 2:
            items.insert(random.randrange(len(items)), items.pop(position))
        elif isinstance(items[position], int):
            items[position] = random.choice(_NUMBERS)
        del value[:]
        value.extend(items)
    elif field.type == field.TYPE_MESSAGE or random.random() < 0.2:
        message.ClearField(field.name)
    elif isinstance(value, bytes):
        setattr(message, field.name, bytes(atheris.Mutate(value, len(value) + 16)))
    elif isinstance(value, str):
        setattr(message, field.name, random.choice(["", "x", "y", value + value, "a/../b", "Relu", "Conv"]))
    elif isinstance(value, float):
        setattr(message, field.name, random.choice([0.0, -1.0, 1e38, 1e-38, math.nan, math.inf]))
    else:
        setattr(message, field.name, random.choice(_NUMBERS))


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
    atheris.Setup(arguments, one, custom_mutator=mutate_onnx if kind == "onnx" else None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
