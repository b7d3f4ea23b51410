"""The memory plan: where every activation and workspace lies in one static arena."""

from edgekit.compiler.memory.check import check_plan
from edgekit.compiler.memory.interleave import interleave
from edgekit.compiler.memory.order import order_steps
from edgekit.compiler.memory.plan import Plan, plan_memory
from edgekit.compiler.memory.views import share_memory

__all__ = ["Plan", "check_plan", "interleave", "order_steps", "plan_memory", "share_memory"]
