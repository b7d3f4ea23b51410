"""The program's integers against the model in float, on this machine."""

from __future__ import annotations

from edgekit.compiler.comparison.layers import compare_layers

__all__ = ["compare_layers"]
