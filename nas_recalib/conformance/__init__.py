"""Whether an operator keeps what every operator owes its user, whatever it computes."""

from nas_recalib.conformance.suite import ConformanceError, Report, check_operator

__all__ = ["ConformanceError", "Report", "check_operator"]
