"""The `onnx` package's node tests through import, compiler and host: none may be wrong."""

from __future__ import annotations

import pytest

from benchmarks.coverage import Result, run_cases
from benchmarks.coverage_cases import NETWORK_OPERATORS, node_cases
from tests.campaign import campaign_count

STRIDE = campaign_count(1, 120)
"""Of a working day's run every 120th test, whichever those are in the installed release."""


@pytest.fixture(scope="module")
def results() -> list[Result]:
    cases = {case.name: case.operator for case in node_cases()}
    return list(run_cases(dict(list(cases.items())[::STRIDE])))


def test_no_answer_is_wrong(results: list[Result]) -> None:
    assert len(results) > 10
    assert [result for result in results if result.outcome == "wrong"] == []
    assert all(len(result.reason) > 10 for result in results if result.outcome == "unsupported")


def test_operators_of_networks_pass(results: list[Result]) -> None:
    """All but the tests of element types that no program has, of empty tensors and of identities."""
    taken = ("is not a tensor of", "a dimension of 0", "computes nothing", "which has no converter")
    refused = [
        result
        for result in results
        if result.operator in NETWORK_OPERATORS
        and result.outcome == "unsupported"
        and not any(reason in result.reason for reason in taken)
    ]
    assert refused == []
