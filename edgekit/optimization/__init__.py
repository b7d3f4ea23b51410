"""The loop: compress, compile, flash, measure, decide, repeat, deploy."""

from edgekit.optimization.loop import optimize
from edgekit.optimization.result import Optimization
from edgekit.optimization.settings import Settings

__all__ = ["Optimization", "Settings", "optimize"]
