"""The compiler: a Model in QDQ form becomes integer operators, object code and C for one target.

Model ──lowering──▶ Program ──schedules──▶ Kernels ──plan──▶ Plan ──codegen──▶ CompiledModel
"""

from __future__ import annotations

from edgekit.compiler.analysis import ModelAnalysis, OperatorAnalysis, analyze_model
from edgekit.compiler.compile import compile_model, compile_program
from edgekit.compiler.lowering import lower_model
from edgekit.compiler.program import Program
from edgekit.compiler.source import emit_model, emit_program

__all__ = [
    "ModelAnalysis",
    "OperatorAnalysis",
    "Program",
    "analyze_model",
    "compile_model",
    "compile_program",
    "emit_model",
    "emit_program",
    "lower_model",
]
