"""Stages that neither compile nor run anything: a board that computes in Python, a build that writes a
word.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import (
    Allocation,
    CompiledModel,
    CompiledOperator,
    CompileOptions,
    Image,
    ImportOptions,
    MemoryUse,
    Model,
    Quantization,
    Serving,
    TensorSpec,
)
from edgekit.device import BoardAddress, parse_board
from edgekit.stages import Stages
from edgekit.target import Target, load_target

Array = npt.NDArray[Any]
HASH = "ab" * 32

INPUT = TensorSpec("input", (1, 4), "int8", Quantization(0.5, 0))
OUTPUT = TensorSpec("scores", (1, 4), "int8", Quantization(0.5, 0))


@dataclass(frozen=True)
class Marks:
    stack_bytes: int | None = 512
    arena_bytes: int | None = 64


class FakeBoard:
    """Answers with `compute(row)`; a run takes 1600 ticks, half of it each of two operators."""

    def __init__(self, compute: Callable[[Array], Array], model_hash: str) -> None:
        self._compute = compute
        self._hash = model_hash
        self._input: bytes | None = None
        self._output = b""

    def info(self) -> SimpleNamespace:
        return SimpleNamespace(model_hash=self._hash)

    def write_input(self, index: int, data: bytes, program: int = 0) -> None:
        self._input = data

    def _take(self) -> Array:
        assert self._input is not None, "a run destroys its inputs"
        row, self._input = np.frombuffer(self._input, np.int8), None
        return row

    def run(self, program: int = 0) -> int:
        self._output = self._compute(self._take()).astype(np.int8).tobytes()
        return 1600

    def read_output(self, index: int, program: int = 0) -> bytes:
        return self._output

    def operator_checksums(self, program: int = 0) -> tuple[int, ...]:
        row = self._take()
        return zlib.crc32(row.tobytes()), zlib.crc32(self._compute(row).astype(np.int8).tobytes())

    def profile_run(self, program: int = 0) -> int:
        return self.run()

    def profile_operators(self, program: int = 0) -> tuple[int, ...]:
        self._take()
        return 800, 800

    def high_water(self, program: int = 0) -> Marks:
        return Marks()


@dataclass
class FakeStages:
    """Remembers what was asked; `board` computes on the target, `host` is the reference."""

    board: Callable[[Array], Array] = lambda row: row
    host: Callable[[Array], Array] = lambda row: row
    board_hash: str = HASH
    calibrates: bool = False
    flash_bytes: int = 1000
    calls: list[str] = field(default_factory=list)
    calibration: Any = None
    open_boards: int = 0
    bundles: dict[Path, SimpleNamespace] = field(default_factory=dict)

    def stages(self) -> Stages:
        return Stages(
            open_source=lambda source, options, folder: source,
            load_model=self._load_model,
            needs_calibration=lambda path, options: self.calibrates,
            compile_model=self._compile_model,
            build_image=self._build_image,
            load_bundle=lambda directory: self.bundles[directory],  # type: ignore[arg-type, return-value]
            parse_board=parse_board,
            flash=self._flash,
            open_board=self._open_board,  # type: ignore[arg-type]
        )

    def _load_model(self, path: Path, options: ImportOptions, calibration: object) -> Model:
        self.calls.append("import")
        self.calibration = calibration
        return Model(options.name or path.stem, "tflite", "cd" * 32, None, ("input",), ("scores",))  # type: ignore[arg-type]

    def _compile_model(self, model: Model, target: Target, options: CompileOptions) -> CompiledModel:
        preference = "" if options.prefer == "speed" else f" for {options.prefer}"
        self.calls.append(f"compile {target.name} {'+'.join(target.schedules)}{preference}")
        operators = tuple(
            CompiledOperator(number, name, "add", "portable.add", 4, 0, 4, 0, 0, (1, 4))
            for number, name in enumerate(("first", "second"))
        )
        return CompiledModel(
            name=model.name,
            target=target.name,
            version="1",
            model_hash=HASH,
            files={},
            inputs=(INPUT,),
            outputs=(OUTPUT,),
            operators=operators,
            allocations=(Allocation("input", 0, 4, 0, 1, "input"),),
            arena_bytes=64,
            weights_bytes=0,
            macs=8,
            parameters=0,
        )

    def _build_image(
        self, compiled: CompiledModel, target: Target, directory: Path, provenance: Mapping[str, str]
    ) -> Image:
        self.calls.append(f"build {target.name}")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "image").write_bytes(b"image")
        memory = MemoryUse(self.flash_bytes, 500, 64, 0, 128, 4096, 4096)
        image = Image(target.name, directory, directory / "image", HASH, memory, directory / "manifest.json")
        manifest = SimpleNamespace(provenance=dict(provenance), tools={"gcc": "gcc 12"}, edgekit="0")
        self.bundles[directory] = SimpleNamespace(
            directory=directory, image=image, compiled=compiled, target=target, manifest=manifest
        )
        return image

    @contextmanager
    def _flash(self, target: Target, image: Image, board: BoardAddress | None) -> Iterator[None]:
        self.calls.append(f"flash {target.name} {board}")
        yield None

    @contextmanager
    def _open_board(
        self, target: Target, image: Image, board: BoardAddress | None, serving: Serving
    ) -> Iterator[FakeBoard]:
        self.calls.append(f"open {target.name}")
        self.open_boards += 1
        try:
            if target.name == load_target("host").name:
                yield FakeBoard(self.host, HASH)
            else:
                yield FakeBoard(self.board, self.board_hash)
        finally:
            self.open_boards -= 1
