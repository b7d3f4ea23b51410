"""Whether a budget can be met at all, before hours are spent on it: the smallest network is measured."""

from __future__ import annotations

from edgekit.errors import BudgetError
from edgekit.optimization.problem import TorchProblem
from edgekit.search.problem import Limits, Measured
from edgekit.text import printable

__all__ = ["refuse_impossible"]

_DOUBT = 0.8
"""A smallest network that is predicted to cost less than this share of the limit is not measured."""


def refuse_impossible(problem: TorchProblem, limits: Limits, unit: str) -> None:
    """Measure the start, and the smallest network where it is doubtful that it meets the limits.

    Raises:
        BudgetError: not even the smallest network does; the message has what it costs and the group whose
            last channels cost most.
    """
    start = problem.measure(problem.start())
    if limits.met_by(start) or not _doubtful(problem, limits, start):
        return
    found = problem.measure_smallest()
    if limits.met_by(found):
        return
    misses = [
        f"{value:,.0f} {what} of at most {limit:,.0f}"
        for what, value, limit in (
            (unit, found.cost, limits.cost),
            ("B of flash", found.flash_bytes, limits.flash_bytes),
            ("B of RAM", found.ram_bytes, limits.ram_bytes),
        )
        if limit is not None and value > limit
    ]
    group = _binding(problem)
    raise BudgetError(
        f"no pruned network meets the budget: the smallest one still takes {' and '.join(misses)}; the group "
        f"that binds is {printable(group)}, whose last {_unit(problem, group)} channels cost most",
        hint="allow more, start from a smaller network, or set multiple_of = 1 in edgekit.toml's [optimize]",
    )


def _doubtful(problem: TorchProblem, limits: Limits, start: Measured) -> bool:
    """Predictions are shares of the start, in whatever unit they are."""
    share = problem.predict(problem.smallest()).cost / problem.predict(problem.start()).cost
    if limits.cost is not None and share * start.cost > _DOUBT * limits.cost:
        return True
    memory = Limits(flash_bytes=limits.flash_bytes, ram_bytes=limits.ram_bytes)
    return not memory.met_by(start)


def _binding(problem: TorchProblem) -> str:
    """The group whose next unit of channels would cost most; the one that it has to keep is close to that."""
    smallest = problem.smallest()
    here = problem.predict(smallest).cost
    more = {}
    for group in problem.groups:
        wider = smallest.with_channels(group.name, 2 * group.unit, "smallest")
        more[group.name] = problem.predict(wider).cost - here
    return max(more, key=lambda name: more[name])


def _unit(problem: TorchProblem, name: str) -> int:
    return next(group.unit for group in problem.groups if group.name == name)
