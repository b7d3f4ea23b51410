"""The stages as one value, so that a test can put its own in their place. Each is imported when it is first
used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from edgekit.artifacts import (
    CompiledModel,
    CompileOptions,
    Image,
    ImportOptions,
    Model,
    Serving,
    TorchProgram,
)
from edgekit.errors import EdgekitError
from edgekit.layer_errors import Comparison
from edgekit.profile import Health, Meter
from edgekit.target import Target
from edgekit.verify import Runner

if TYPE_CHECKING:
    from edgekit.compiler import ModelAnalysis
    from edgekit.device import BoardAddress
    from edgekit.firmware import Bundle

__all__ = ["STAGES", "ConnectedBoard", "Flashed", "Stages"]

Calibration = Sequence[npt.NDArray[Any]] | None


class BoardIdentity(Protocol):
    """What a board says of itself."""

    @property
    def model_hash(self) -> str: ...


class ConnectedBoard(Runner, Meter, Protocol):
    """A board with an open session: `edgekit.device.Client` is one."""

    def info(self) -> BoardIdentity: ...


class Flashed(Protocol):
    """An image that is on its board, beside the one which the board goes on with until `keep` is called."""

    @property
    def version(self) -> str: ...

    def keep(self) -> None: ...


def _open_source(
    source: Path | TorchProgram, options: ImportOptions, folder: Path | None
) -> Path | TorchProgram:
    from edgekit.frontend import open_source

    return open_source(source, options, folder)


def _load_model(source: Path | TorchProgram, options: ImportOptions, calibration: Calibration) -> Model:
    from edgekit.frontend import load_model

    return load_model(source, options, calibration=calibration)


def _needs_calibration(source: Path | TorchProgram, options: ImportOptions) -> bool:
    from edgekit.frontend.calibration import needs_calibration

    return needs_calibration(source, options)


def _compile_model(model: Model, target: Target, options: CompileOptions) -> CompiledModel:
    from edgekit.compiler import compile_model

    return compile_model(model, target, prefer=options.prefer, choices=dict(options.choices))


def _emit_model(model: Model, target: Target, options: CompileOptions) -> CompiledModel:
    from edgekit.compiler import emit_model

    return emit_model(model, target, prefer=options.prefer)


def _analyze_model(model: Model, target: Target, options: CompileOptions) -> ModelAnalysis:
    from edgekit.compiler import analyze_model

    return analyze_model(model, target, prefer=options.prefer)


def _compare_layers(
    model: Model,
    source: Model | None,
    rows: Sequence[Sequence[npt.NDArray[Any]]],
    advanced: Callable[[int], None],
) -> Comparison:
    from edgekit.compiler.comparison import compare_layers

    return compare_layers(model, source, rows, advanced)


def _build_image(
    compiled: CompiledModel, target: Target, directory: Path, provenance: Mapping[str, str]
) -> Image:
    from edgekit.firmware import build_image

    return build_image(compiled, target, directory, provenance=provenance)


def _load_bundle(directory: Path) -> Bundle:
    from edgekit.firmware import load_bundle

    return load_bundle(directory)


def _parse_board(text: str) -> BoardAddress:
    from edgekit.device import parse_board

    return parse_board(text)


def _flash(
    target: Target, image: Image, board: BoardAddress | None
) -> AbstractContextManager[Flashed | None]:
    from edgekit.device import flashed

    return flashed(target, image.path, board, app=image.app)


def _open_board(
    target: Target, image: Image, board: BoardAddress | None, serving: Serving
) -> AbstractContextManager[ConnectedBoard]:
    from edgekit.device import open_board

    return open_board(target, image.path, board, app=image.app, serving=serving)


def _health(target: Target, image: Image, board: BoardAddress | None) -> Health | None:
    from edgekit.device import board_health

    return board_health(target, image.path, board, app=image.app)


def _unmeasurable(target: Target, serving: Serving) -> EdgekitError | None:
    from edgekit.device import unmeasurable

    return unmeasurable(target, serving)


@dataclass(frozen=True, slots=True)
class Stages:
    """One function a stage; `edgekit.pipeline` says in which order."""

    open_source: Callable[[Path | TorchProgram, ImportOptions, Path | None], Path | TorchProgram] = (
        _open_source
    )
    """A torch factory is called once; files stay as they are."""
    load_model: Callable[[Path | TorchProgram, ImportOptions, Calibration], Model] = _load_model
    needs_calibration: Callable[[Path | TorchProgram, ImportOptions], bool] = _needs_calibration
    compile_model: Callable[[Model, Target, CompileOptions], CompiledModel] = _compile_model
    emit_model: Callable[[Model, Target, CompileOptions], CompiledModel] = _emit_model
    """The same as C99 sources, for compilers that edgekit does not call."""
    analyze_model: Callable[[Model, Target, CompileOptions], ModelAnalysis] = _analyze_model
    compare_layers: Callable[
        [Model, Model | None, Sequence[Sequence[npt.NDArray[Any]]], Callable[[int], None]], Comparison
    ] = _compare_layers
    """The quantised model against its float source, where it has one."""
    build_image: Callable[[CompiledModel, Target, Path, Mapping[str, str]], Image] = _build_image
    load_bundle: Callable[[Path], Bundle] = _load_bundle
    parse_board: Callable[[str], BoardAddress] = _parse_board
    flash: Callable[[Target, Image, BoardAddress | None], AbstractContextManager[Flashed | None]] = _flash
    """The board is ours until the end of the context; None where it runs the image as soon as it is on it."""
    open_board: Callable[
        [Target, Image, BoardAddress | None, Serving], AbstractContextManager[ConnectedBoard]
    ] = _open_board
    health: Callable[[Target, Image, BoardAddress | None], Health | None] = _health
    """The state of the board, where it can tell; before and after a measurement."""
    unmeasurable: Callable[[Target, Serving], EdgekitError | None] = _unmeasurable
    """Why nothing can be measured on a target; None where it can."""


STAGES = Stages()
