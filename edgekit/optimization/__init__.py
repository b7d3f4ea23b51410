"""The loop: compress, compile, flash, measure, decide, repeat, deploy."""

from edgekit.optimization.optimize import Optimization, Settings, optimize

__all__ = ["Optimization", "Settings", "optimize"]
