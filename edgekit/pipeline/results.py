"""What the pipeline returns, and where it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifacts import CompiledModel, Image, Measurement, Model, Verification
from edgekit.errors import EdgekitError
from edgekit.layer_errors import Comparison
from edgekit.report.document import AccuracySection, DeployDocument
from edgekit.target import Target
from edgekit.text import file_name

if TYPE_CHECKING:
    from edgekit.compiler import ModelAnalysis, OperatorAnalysis

__all__ = [
    "DOCUMENT_FILE",
    "REPORT_FILE",
    "Analysis",
    "Compiled",
    "Deployment",
    "Emitted",
    "bundle_directory",
]

DOCUMENT_FILE = "deploy.json"


REPORT_FILE = "report.html"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model on a board, and what the board said. `problems` are the goals it missed, worst first."""

    document: DeployDocument
    compiled: CompiledModel
    image: Image
    verification: Verification | None
    accuracy: AccuracySection | None
    measurement: Measurement | None
    problems: tuple[EdgekitError, ...] = ()

    def raise_for_problems(self) -> Deployment:
        """Raise the first problem, if there is one.

        Raises:
            VerificationError: The board's answers differ from the host's.
            BudgetError: A limit was exceeded.
        """
        if self.problems:
            raise self.problems[0]
        return self


@dataclass(frozen=True, slots=True)
class Compiled:
    """What `compile_bundle` made: an image in its bundle folder, and its document (nothing in it is
    measured).
    """

    document: DeployDocument
    compiled: CompiledModel
    image: Image


@dataclass(frozen=True, slots=True)
class Emitted:
    """A model as C99 sources, and the folder where they are."""

    model: Model
    compiled: CompiledModel
    directory: Path


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a model consists of, and what becomes of each operator on a target."""

    model: Model
    target: Target
    program: ModelAnalysis
    comparison: Comparison | None = None
    """With the float model, layer by layer, where rows were asked for."""

    @property
    def operators(self) -> tuple[OperatorAnalysis, ...]:
        return self.program.operators


def bundle_directory(build: Path, model_name: str, target_name: str) -> Path:
    """Where a deployment is written when nobody says so: `<build>/<model>-<target>`, in harmless
    characters.
    """
    return build / f"{file_name(model_name)}-{target_name}"
