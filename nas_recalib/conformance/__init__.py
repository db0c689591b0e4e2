"""Conformance suite: checks that an operator meets the requirements on every operator."""

from nas_recalib.conformance.suite import ConformanceError, Report, check_operator

__all__ = ["ConformanceError", "Report", "check_operator"]
