"""How far cheap signals order architectures as longer training does."""

from nas_recalib.correlation.agreement import Agreement, Ceiling, Interval, agreement, beats, ceiling

__all__ = ["Agreement", "Ceiling", "Interval", "agreement", "beats", "ceiling"]
