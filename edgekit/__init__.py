"""edgekit: deploy neural networks to small boards, verified bit for bit and measured there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgekit.artifacts import CompileOptions, ImportOptions, Model
    from edgekit.budget import Budget
    from edgekit.errors import EdgekitError
    from edgekit.frontend import load_model, load_torch
    from edgekit.frontend.torch_qat import convert_qat, freeze_qat, prepare_qat
    from edgekit.optimization import optimize
    from edgekit.pipeline import (
        Analysis,
        BoardSession,
        Deployment,
        analyze,
        compile_bundle,
        connect,
        deploy,
        emit_sources,
        flash_bundle,
        profile_bundle,
        run_bundle,
        tune,
    )
    from edgekit.target import list_targets, load_target

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "BoardSession",
    "Budget",
    "CompileOptions",
    "Deployment",
    "EdgekitError",
    "ImportOptions",
    "Model",
    "__version__",
    "analyze",
    "compile_bundle",
    "connect",
    "convert_qat",
    "deploy",
    "emit_sources",
    "flash_bundle",
    "freeze_qat",
    "list_targets",
    "load_model",
    "load_target",
    "load_torch",
    "optimize",
    "prepare_qat",
    "profile_bundle",
    "run_bundle",
    "tune",
]

_HOMES: Final = {
    "Analysis": "edgekit.pipeline",
    "BoardSession": "edgekit.pipeline",
    "Budget": "edgekit.budget",
    "CompileOptions": "edgekit.artifacts",
    "Deployment": "edgekit.pipeline",
    "EdgekitError": "edgekit.errors",
    "ImportOptions": "edgekit.artifacts",
    "Model": "edgekit.artifacts",
    "analyze": "edgekit.pipeline",
    "compile_bundle": "edgekit.pipeline",
    "connect": "edgekit.pipeline",
    "convert_qat": "edgekit.frontend.torch_qat",
    "deploy": "edgekit.pipeline",
    "emit_sources": "edgekit.pipeline",
    "flash_bundle": "edgekit.pipeline",
    "freeze_qat": "edgekit.frontend.torch_qat",
    "list_targets": "edgekit.target",
    "load_model": "edgekit.frontend",
    "load_target": "edgekit.target",
    "load_torch": "edgekit.frontend",
    "optimize": "edgekit.optimization",
    "prepare_qat": "edgekit.frontend.torch_qat",
    "profile_bundle": "edgekit.pipeline",
    "run_bundle": "edgekit.pipeline",
    "tune": "edgekit.pipeline",
}


def __getattr__(name: str) -> object:
    """Find a public name where it lives; importing edgekit alone costs nothing."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
