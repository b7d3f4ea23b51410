"""docs/coverage.md, rendered from the results of `benchmarks.coverage`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import onnx

from benchmarks.coverage_cases import NETWORK_OPERATORS, Result

__all__ = ["render"]

_HEAD = """# Coverage of ONNX

What edgekit makes of the node tests of the `onnx` package (version {version}, operator sets up to {opset}).
Each is a model of one operator, with inputs and what ONNX's reference implementation gives for them. edgekit
imports it, compiles it in float32 for the host, runs the program and compares reals within the suite's
tolerance.

This page is written by a command, which runs all of them:

    python -m benchmarks.coverage --write

| tests | passed | unsupported | wrong |
|---|---|---|---|
| {total} | {passed} | {unsupported} | {wrong} |

**Unsupported** means refused before anything is built, with a sentence that names the operator or the tensor
(exit code 3 or 4). **Wrong** would be an answer beyond the tolerance, a crash, or a refusal without words.

The suite feeds everything as an input, also the sizes of a reshape or the axes of a reduction. On a board all
shapes are fixed, and files have these as constants; so they are constants here, too, by the test's values.

Integers must be equal, also those that a quantised operator stores. Reals of other widths (float16, float64)
are float32 in a program, at its border as well; the tests' are converted before and after.

A name with "(expanded)" is the same operator written out in other ones, as ONNX itself defines it.
"""


def _reason(text: str) -> str:
    """A refusal without the names that differ from test to test."""
    text = text.removeprefix("The model has 1 operator that cannot be imported: ")
    text = re.sub(r"\(operator \d+\)", "", text)
    text = re.sub(r"'[^']*'", "…", text)
    return re.sub(r"\s+", " ", text).strip(" .")[:160].replace("|", "/")


def _table(results: Sequence[Result], names: Iterable[str]) -> list[str]:
    lines = ["| operator | passed | unsupported | wrong |", "|---|---|---|---|"]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        counts[result.operator][result.outcome] += 1
    for name in names:
        count = counts[name]
        cells = [str(count[outcome] or "") for outcome in ("passed", "unsupported", "wrong")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def render(results: Sequence[Result]) -> str:
    """The page, from the results of the whole suite."""
    counts = Counter(result.outcome for result in results)
    names = sorted({result.operator for result in results}, key=str.lower)
    chosen = [name for name in names if name in NETWORK_OPERATORS]
    head = _HEAD.format(
        version=onnx.__version__,
        opset=onnx.defs.onnx_opset_version(),
        total=len(results),
        passed=counts["passed"],
        unsupported=counts["unsupported"],
        wrong=counts["wrong"],
    )
    reasons: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if result.outcome == "unsupported":
            reasons[_reason(result.reason)].append(result.name)
    listed = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    unsupported = ["| tests | reason | for example |", "|---|---|---|"]
    unsupported += [f"| {len(tests)} | {reason} | {tests[0]} |" for reason, tests in listed]
    wrong = [f"- {r.name}: {r.reason}" for r in results if r.outcome == "wrong"] or ["None."]
    sections = (
        ("The operators of networks", _table(results, chosen)),
        ("All operators", _table(results, [name for name in names if name not in chosen])),
        ("Unsupported, and why", unsupported),
        ("Wrong", wrong),
    )
    body = "\n".join(f"\n## {title}\n\n" + "\n".join(lines) for title, lines in sections)
    return f"{head}{body}\n"
