"""Costs of architectures (MACs, parameters, memory) and budgets on them."""

from nas_recalib.costs.budget import (
    Budget,
    format_cost,
    format_exactly,
    format_latency,
    format_memory,
    format_quantity,
    parse_latency,
    parse_memory,
    parse_quantity,
)
from nas_recalib.costs.feasible import Feasible
from nas_recalib.costs.knapsack import histogram
from nas_recalib.costs.macs import Cost, count_cost
from nas_recalib.costs.memory import block_memory, network_memory
from nas_recalib.costs.table import COLUMNS, CostTable

__all__ = [
    "COLUMNS",
    "Budget",
    "Cost",
    "CostTable",
    "Feasible",
    "block_memory",
    "count_cost",
    "format_cost",
    "format_exactly",
    "format_latency",
    "format_memory",
    "format_quantity",
    "histogram",
    "network_memory",
    "parse_latency",
    "parse_memory",
    "parse_quantity",
]
