"""Import of the benchmarks' memory measurement, which the estimate is compared with."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
