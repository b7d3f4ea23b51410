"""The host's own code is for what its CPU says that it has, never for more."""

from __future__ import annotations

from edgekit.compiler.codegen.host_cpu import cpu_level

V3 = ["fpu", "sse", "sse2", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"]
V4 = [*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]


def test_the_level_needs_all_its_flags() -> None:
    assert cpu_level(V3) == "x86-64-v3"
    assert cpu_level(V4) == "x86-64-v3"  # never more: see the module
    assert cpu_level(flag for flag in V3 if flag != "fma") is None
    assert cpu_level(()) is None
