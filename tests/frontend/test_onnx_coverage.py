"""The `onnx` package's node tests through import, compiler and host: none may be wrong."""

from __future__ import annotations

import pytest

from benchmarks.coverage import Result, run_cases
from benchmarks.coverage_cases import NETWORK_OPERATORS, node_cases
from tests.campaign import campaign_count

STRIDE = campaign_count(1, 180)
"""Of a working day's run every 180th test, whichever those are in the installed release."""

RARE = (
    "test_add_uint16", "test_identity", "test_max_float16", "test_max_uint64", "test_min_one_input",
    "test_qlinearconv", "test_qlinearmatmul_3D_uint8_float16", "test_slice_start_out_of_bounds",
    "test_split_zero_size_splits_opset18", "test_sub_uint32",
)  # fmt: skip
"""Always run: rare element types, tensors without elements, models that compute nothing, an early opset."""


@pytest.fixture(scope="module")
def results() -> list[Result]:
    cases = {case.name: case.operator for case in node_cases()}
    chosen = {*list(cases)[::STRIDE], *RARE}
    return list(run_cases({name: operator for name, operator in cases.items() if name in chosen}))


def test_no_answer_is_wrong(results: list[Result]) -> None:
    assert len(results) > 10
    assert [result for result in results if result.outcome == "wrong"] == []
    assert all(len(result.reason) > 10 for result in results if result.outcome == "unsupported")


def test_operators_of_networks_pass(results: list[Result]) -> None:
    assert {result.name for result in results} >= set(RARE)
    assert [r for r in results if r.operator in NETWORK_OPERATORS and r.outcome != "passed"] == []
    assert [result for result in results if result.name in RARE and result.outcome != "passed"] == []
