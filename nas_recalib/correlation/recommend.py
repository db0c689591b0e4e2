"""Evaluation of a correlation study: rank correlation of every signal, and the fidelity to recommend."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic_core import to_json

from nas_recalib.correlation.rank_correlation import (
    NO_INTERVAL,
    Interval,
    NoiseCeiling,
    RankCorrelation,
    noise_ceiling,
    rank_correlation,
    tau_difference,
)
from nas_recalib.correlation.signals import Correlation, Signal


@dataclass(frozen=True)
class SignalResult:
    """Result of the evaluation of one signal.

    Attributes:
        signal: The signal that was evaluated.
        agreement: Rank correlation with the mean accuracies of the reference training.
        over_baseline: Tau of the signal minus that of the better baseline; NaN for baselines and without one.
    """

    signal: Signal
    agreement: RankCorrelation
    over_baseline: Interval


@dataclass(frozen=True)
class Recommendation:
    """The cheapest training that orders architectures as well as any other, as far as the data can show.

    Attributes:
        signal: Name of the recommended signal; empty if no training is shown to be better than chance.
        fidelity: Name of the training's fidelity.
        epoch: Epoch at which the training may end.
        seconds: Seconds that it takes for one architecture; NaN without a signal.
        rungs: Epochs for successive halving, the last of them `epoch`: going down by a factor of at least
            two, the epochs at which every signal of this fidelity is clearly above 0.
        reason: Explanation in plain words.
    """

    signal: str
    fidelity: str
    epoch: int
    seconds: float
    rungs: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Findings:
    """Everything that a correlation study shows.

    Attributes:
        correlation: Accuracies and signals that were measured.
        results: Result of each signal, in the order of the signals.
        baseline: Name of the better baseline; empty without one.
        ceiling: Upper bound of every tau, which seed noise sets.
        recommendation: Training to use as a proxy.
    """

    correlation: Correlation
    results: tuple[SignalResult, ...]
    baseline: str
    ceiling: NoiseCeiling
    recommendation: Recommendation

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON, with None for what is not a finite number."""
        content = {"means": self.correlation.means, **asdict(self)}
        verdicts = [{**result, "signal": result["signal"]["name"]} for result in content.pop("results")]
        text = to_json({**content, "verdicts": verdicts}, inf_nan_mode="null")
        return dict(json.loads(text))


def evaluate(correlation: Correlation) -> Findings:
    """Compare every signal with the mean accuracies of the reference training.

    Differences between two signals use the same bootstrap resamples for both, so that what is common to both
    cancels out.
    """
    correlations = [
        (signal, rank_correlation(signal.values, correlation.means, seed=correlation.seed))
        for signal in correlation.signals
    ]
    baselines = [(s, c) for s, c in correlations if s.kind == "baseline" and not math.isnan(c.tau.value)]
    baseline = max(baselines, key=lambda pair: pair[1].tau.value)[0] if baselines else None

    def over_baseline(signal: Signal) -> Interval:
        if baseline is None or signal.kind == "baseline":
            return NO_INTERVAL
        return _difference(correlation, signal, baseline)

    results = tuple(SignalResult(signal, found, over_baseline(signal)) for signal, found in correlations)
    ceiling = noise_ceiling(np.array(correlation.runs), seed=correlation.seed)
    name = baseline.name if baseline else ""
    return Findings(correlation, results, name, ceiling, recommend(correlation, results, name))


def recommend(correlation: Correlation, results: Sequence[SignalResult], baseline: str) -> Recommendation:
    """Return the cheapest training whose tau is clearly above 0 and not clearly below the best training's.

    Args:
        correlation: Accuracies and signals that were measured.
        results: Result of each signal.
        baseline: Name of the better baseline; empty without one.
    """
    trainings = [result for result in results if result.signal.kind == "training"]
    clear = [result for result in trainings if result.agreement.tau.above_zero]
    if not clear:
        reason = _explain_none(trainings, len(correlation.architectures))
        return Recommendation("", "", 0, math.nan, (), reason)
    best = max(clear, key=lambda result: result.agreement.tau.value)
    as_good = [r for r in clear if _difference(correlation, r.signal, best.signal).contains_zero]
    chosen = min(as_good, key=lambda r: (r.signal.seconds, -r.agreement.tau.value))
    signal, rungs = chosen.signal, _rungs(chosen, trainings)
    seconds = correlation.reference_seconds
    times = f", {seconds / signal.seconds:.3g} times as long" if signal.seconds > 0 else ""
    sentences = (
        _compare_with_best(correlation, chosen, best),
        f"One longer training takes {format_seconds(seconds)}{times}.",
        _compare_with_baseline(chosen, baseline),
        _compare_with_scores(correlation, results, signal),
        _describe_rungs(rungs),
    )
    reason = " ".join(filter(None, sentences))
    return Recommendation(signal.name, signal.fidelity, signal.epoch, signal.seconds, rungs, reason)


def format_seconds(seconds: float) -> str:
    """Return a duration such as `0.021 s`, `6.1 s` or `1,234 s`."""
    return f"{seconds:,.0f} s" if seconds >= 99.5 else f"{seconds:.2g} s"


def _difference(correlation: Correlation, signal: Signal, other: Signal) -> Interval:
    return tau_difference(signal.values, other.values, correlation.means, seed=correlation.seed)


def _rungs(chosen: SignalResult, trainings: Sequence[SignalResult]) -> tuple[int, ...]:
    by_epoch: dict[int, list[bool]] = {}
    for result in trainings:
        if result.signal.fidelity == chosen.signal.fidelity:
            by_epoch.setdefault(result.signal.epoch, []).append(result.agreement.tau.above_zero)
    rungs = [chosen.signal.epoch]
    while below := [epoch for epoch, clear in by_epoch.items() if 0 < 2 * epoch <= rungs[0] and all(clear)]:
        rungs.insert(0, max(below))
    return tuple(rungs)


def _explain_none(trainings: Sequence[SignalResult], count: int) -> str:
    defined = [result for result in trainings if not math.isnan(result.agreement.tau.value)]
    if not defined:
        return "Every training ranks all architectures the same."
    best = max(defined, key=lambda result: result.agreement.tau.value)
    return (
        f"No training is shown to order the {count} architectures better than chance; the nearest, "
        f"{best.signal.name}, has a tau of {best.agreement.tau}."
    )


def _compare_with_best(correlation: Correlation, chosen: SignalResult, best: SignalResult) -> str:
    name = f"{chosen.signal.name} ({format_seconds(chosen.signal.seconds)} an architecture)"
    if chosen is best:
        return (
            f"{name} has the highest tau of all trainings, {best.agreement.tau}, and every cheaper one is "
            "clearly below it or not clearly above 0."
        )
    difference = _difference(correlation, chosen.signal, best.signal)
    lost = f"; up to {-difference.low:.2f} of tau may be lost unseen" if difference.low < 0 else ""
    return (
        f"{name} is the cheapest training whose tau, {chosen.agreement.tau}, is not clearly below that of "
        f"the best, {best.signal.name} ({format_seconds(best.signal.seconds)}), {best.agreement.tau}. Over "
        f"these {len(correlation.architectures)} architectures they differ by {difference:+}{lost}."
    )


def _compare_with_baseline(chosen: SignalResult, baseline: str) -> str:
    if not baseline or chosen.over_baseline.above_zero or math.isnan(chosen.over_baseline.value):
        return ""
    return f"It is not shown to be better than {baseline} alone: they differ by {chosen.over_baseline:+}."


def _compare_with_scores(correlation: Correlation, results: Sequence[SignalResult], signal: Signal) -> str:
    """Describe the cheaper zero-cost proxy with the highest tau that is not clearly below the signal's."""
    scores = [
        (result, difference)
        for result in results
        if result.signal.kind == "score" and result.agreement.tau.above_zero
        if result.signal.seconds < signal.seconds
        if (difference := _difference(correlation, result.signal, signal)).high >= 0
    ]
    if not scores:
        return ""
    best, difference = max(scores, key=lambda pair: pair[0].agreement.tau.value)
    how = "is better" if difference.above_zero else "is not clearly worse"
    return (
        f"The zero-cost proxy {best.signal.name} ({format_seconds(best.signal.seconds)}) {how}: "
        f"{best.agreement.tau}, they differ by {difference:+}."
    )


def _describe_rungs(rungs: Sequence[int]) -> str:
    if len(rungs) == 1:
        return "No epoch at half its length or before is shown to be better than chance: no rungs below it."
    return f"Rungs for successive halving, each clearly above 0: epochs {', '.join(map(str, rungs))}."
