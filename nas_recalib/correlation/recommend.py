"""Findings of a correlation study: how well signals rank, and the cheapest training that is enough."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas_recalib.correlation.agreement import (
    NO_INTERVAL,
    Agreement,
    Ceiling,
    Interval,
    agreement,
    beats,
    ceiling,
)
from nas_recalib.correlation.signals import Correlation, Signal


@dataclass(frozen=True)
class Verdict:
    """A signal, judged.

    Attributes:
        signal: Which.
        agreement: With the mean accuracies of the longer training.
        over_baseline: Its tau less that of the better baseline; not a number for baselines and without one.
    """

    signal: Signal
    agreement: Agreement
    over_baseline: Interval


@dataclass(frozen=True)
class Recommendation:
    """The cheapest training that orders architectures as well as any, as far as can be told.

    Attributes:
        signal: Its name; empty if no training's order is shown to be better than chance.
        fidelity: Of the training.
        epoch: At which it may end.
        seconds: Its cost for one architecture; not a number without a signal.
        rungs: Epochs for successive halving, the last of them `epoch`: going down by a factor of two at
            least, those at which every signal of this fidelity is clearly above 0.
        reason: In plain words.
    """

    signal: str
    fidelity: str
    epoch: int
    seconds: float
    rungs: tuple[int, ...]
    reason: str


def recommend(correlation: Correlation, verdicts: Sequence[Verdict], baseline: str) -> Recommendation:
    """The cheapest training whose tau is clearly above 0 and cannot be told from the best training's.

    Args:
        correlation: What was compared.
        verdicts: One for each of its signals.
        baseline: Name of the better baseline; empty without one.
    """
    trainings = [verdict for verdict in verdicts if verdict.signal.kind == "training"]
    clear = [verdict for verdict in trainings if verdict.agreement.tau.above_zero]
    if not clear:
        reason = _none_is_clear(trainings, len(correlation.architectures))
        return Recommendation("", "", 0, math.nan, (), reason)
    best = max(clear, key=lambda verdict: verdict.agreement.tau.value)
    as_good = [v for v in clear if difference_of(correlation, v.signal, best.signal).holds_zero]
    chosen = min(as_good, key=lambda v: (v.signal.seconds, -v.agreement.tau.value))
    signal, rungs = chosen.signal, _rungs(chosen, trainings)
    sentences = (
        _against_the_best(correlation, chosen, best),
        _against_the_reference(correlation, signal),
        _against_the_baseline(chosen, baseline),
        _without_training(correlation, verdicts, signal),
        _of_rungs(rungs),
    )
    told = " ".join(filter(None, sentences))
    return Recommendation(signal.name, signal.fidelity, signal.epoch, signal.seconds, rungs, told)


def seconds_text(seconds: float) -> str:
    """As in `0.021 s`, `6.1 s` or `1,234 s`."""
    return f"{seconds:,.0f} s" if seconds >= 99.5 else f"{seconds:.2g} s"


def difference_of(correlation: Correlation, signal: Signal, other: Signal) -> Interval:
    """Tau of one signal less that of another."""
    return beats(signal.values, other.values, correlation.means, seed=correlation.seed)


def _rungs(chosen: Verdict, trainings: Sequence[Verdict]) -> tuple[int, ...]:
    by_epoch: dict[int, list[bool]] = {}
    for verdict in trainings:
        if verdict.signal.fidelity == chosen.signal.fidelity:
            by_epoch.setdefault(verdict.signal.epoch, []).append(verdict.agreement.tau.above_zero)
    rungs = [chosen.signal.epoch]
    while below := [epoch for epoch, clear in by_epoch.items() if 0 < 2 * epoch <= rungs[0] and all(clear)]:
        rungs.insert(0, max(below))
    return tuple(rungs)


def _none_is_clear(trainings: Sequence[Verdict], count: int) -> str:
    defined = [verdict for verdict in trainings if not math.isnan(verdict.agreement.tau.value)]
    if not defined:
        return "No training tells the architectures apart."
    best = max(defined, key=lambda verdict: verdict.agreement.tau.value)
    return (
        f"No training is shown to order the {count} architectures better than chance; the nearest, "
        f"{best.signal.name}, has a tau of {best.agreement.tau}."
    )


def _against_the_best(correlation: Correlation, chosen: Verdict, best: Verdict) -> str:
    told = f"{chosen.signal.name} ({seconds_text(chosen.signal.seconds)} an architecture)"
    if chosen is best:
        return (
            f"{told} has the highest tau of all trainings, {best.agreement.tau}, and every cheaper one is "
            "clearly below it or not clearly above 0."
        )
    difference = difference_of(correlation, chosen.signal, best.signal)
    lost = f"; up to {-difference.low:.2f} of tau may be lost unseen" if difference.low < 0 else ""
    return (
        f"{told} is the cheapest training whose tau, {chosen.agreement.tau}, cannot be told from that of the "
        f"best, {best.signal.name} ({seconds_text(best.signal.seconds)}), {best.agreement.tau}. Over these "
        f"{len(correlation.architectures)} architectures they differ by {difference:+}{lost}."
    )


def _against_the_reference(correlation: Correlation, signal: Signal) -> str:
    if not signal.seconds > 0:
        return ""
    times = correlation.reference_seconds / signal.seconds
    return (
        f"One longer training takes {seconds_text(correlation.reference_seconds)}, {times:.3g} times as long."
    )


def _against_the_baseline(chosen: Verdict, baseline: str) -> str:
    if not baseline or chosen.over_baseline.above_zero or math.isnan(chosen.over_baseline.value):
        return ""
    return f"It is not shown to be better than {baseline} alone: they differ by {chosen.over_baseline:+}."


def _without_training(correlation: Correlation, verdicts: Sequence[Verdict], signal: Signal) -> str:
    """Of the cheaper scores that are not clearly worse, the one with the highest tau."""
    scores = [
        (verdict, difference)
        for verdict in verdicts
        if verdict.signal.kind == "score" and verdict.agreement.tau.above_zero
        if verdict.signal.seconds < signal.seconds
        if (difference := difference_of(correlation, verdict.signal, signal)).high >= 0
    ]
    if not scores:
        return ""
    best, difference = max(scores, key=lambda pair: pair[0].agreement.tau.value)
    how = "is better" if difference.above_zero else "cannot be told from it"
    return (
        f"{best.signal.name} ({seconds_text(best.signal.seconds)}), without any training, {how}: "
        f"{best.agreement.tau}, they differ by {difference:+}."
    )


def _of_rungs(rungs: Sequence[int]) -> str:
    if len(rungs) == 1:
        return "No epoch at half its length or before is shown to be better than chance: no rungs below it."
    return f"Rungs for successive halving, each clearly above 0: epochs {', '.join(map(str, rungs))}."


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
