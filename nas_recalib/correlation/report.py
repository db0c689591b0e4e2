"""What a comparison of signals with longer training found."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas_recalib.correlation.agreement import NO_INTERVAL, Ceiling, Interval, agreement, ceiling
from nas_recalib.correlation.recommend import Recommendation, Verdict, difference_of, recommend
from nas_recalib.correlation.signals import Correlation, Signal

__all__ = ["Correlation", "Judged", "Recommendation", "Signal", "Verdict", "judge"]


@dataclass(frozen=True)
class Judged:
    """A comparison with its verdicts.

    Attributes:
        correlation: What was compared.
        verdicts: One for each signal, in their order.
        baseline: Name of the better baseline; empty without one.
        ceiling: What the noise of seeds leaves to agree with.
        recommendation: What to use.
    """

    correlation: Correlation
    verdicts: tuple[Verdict, ...]
    baseline: str
    ceiling: Ceiling
    recommendation: Recommendation

    def verdict(self, name: str) -> Verdict:
        """That of the signal of this name."""
        return next(verdict for verdict in self.verdicts if verdict.signal.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON: what is not a finite number is None."""
        verdicts = [{**asdict(verdict), "signal": verdict.signal.name} for verdict in self.verdicts]
        content = {"means": self.correlation.means, **asdict(self), "verdicts": verdicts}
        return {name: _plain(value) for name, value in content.items()}


def judge(correlation: Correlation) -> Judged:
    """Holds every signal against the mean accuracies of the longer training.

    Differences between signals are of the same resamples of the architectures, so that what is common to both
    does not blur them.
    """
    told = [(s, agreement(s.values, correlation.means, seed=correlation.seed)) for s in correlation.signals]
    defined = [(s, a) for s, a in told if s.kind == "baseline" and not math.isnan(a.tau.value)]
    baseline = max(defined, key=lambda pair: pair[1].tau.value)[0] if defined else None

    def over_baseline(signal: Signal) -> Interval:
        if baseline is None or signal.kind == "baseline":
            return NO_INTERVAL
        return difference_of(correlation, signal, baseline)

    verdicts = tuple(Verdict(signal, found, over_baseline(signal)) for signal, found in told)
    limit = ceiling(np.array(correlation.runs), seed=correlation.seed)
    named = baseline.name if baseline else ""
    return Judged(correlation, verdicts, named, limit, recommend(correlation, verdicts, named))


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
