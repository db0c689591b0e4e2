"""What an architecture costs, before anything is trained."""

from nas_recalib.costs.budget import Budget, Feasible, format_quantity, parse_quantity
from nas_recalib.costs.macs import Cost, count_cost
from nas_recalib.costs.measured import measured_memory
from nas_recalib.costs.memory import block_memory, memory_column, network_memory
from nas_recalib.costs.table import LIMITS, CostTable

__all__ = [
    "LIMITS",
    "Budget",
    "Cost",
    "CostTable",
    "Feasible",
    "block_memory",
    "count_cost",
    "format_quantity",
    "measured_memory",
    "memory_column",
    "network_memory",
    "parse_quantity",
]
