"""Search guided by a predictor of accuracy: Bayesian regression with Thompson draws."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nas_recalib.costs.table import Integers
from nas_recalib.search.samplers.moves import mutants, tuples
from nas_recalib.search.samplers.regression import Floats, fit, prior
from nas_recalib.search.samplers.situation import Known, Picks, Situation, Strategy

Features = Callable[[Picks], Sequence[float]]
_OUTLIER = 3 * 1.4826  # in median absolute deviations: 3 standard deviations of a normal distribution
_SHORTLIST = 8
_SLOPE, _WEIGHT = 0.5, 4.0  # of accuracy at the end on accuracy earlier: before any is seen, and its weight
_TINY = 1e-12


def predictor(
    start: int = 10,
    boldness: float = 0.5,
    leaders: int = 16,
    rounds: int = 6,
    children: int = 128,
    features: Features | None = None,
) -> Strategy:
    """Screens hundreds of candidates with a model of what has been trained, for each one that it proposes.

    The model is linear in the choices (`regression`) and of the first objective. For each proposal its
    coefficients are drawn from their posterior (Thompson), so that workers who ask at once get different
    answers. Candidates are uniform draws, and mutations of what the draw thinks best in a few rounds, which
    begin with everything known.

    Args:
        start: Uniform draws before the first prediction.
        boldness: Factor on the posterior's deviation from its mean; 0 trusts the mean.
        leaders: Architectures that are mutated in every round.
        rounds: Of mutations.
        children: Candidates in a round.
        features: More of an architecture than its choices, such as scores without training. Asked once for
            everything known, and for the few best candidates.
    """
    told: dict[Picks, Sequence[float]] = {}

    def more(architectures: Sequence[Picks]) -> Floats:
        if features is None:
            return np.empty((len(architectures), 0))
        told.update((one, features(one)) for one in architectures if one not in told)
        return np.array([told[one] for one in architectures], dtype=np.float64)

    def propose(situation: Situation) -> Picks | None:
        if len(situation.known) + len(situation.pruned) < start:
            return None
        beliefs = prior(situation.space)
        trained = [one.picks for one in (*situation.known, *situation.pruned)]
        columns = more(trained)
        middle, spread = columns.mean(axis=0), np.maximum(columns.std(axis=0), _TINY)
        posterior = fit(beliefs, np.array(trained), (columns - middle) / spread, _targets(situation))
        drawn = posterior.draw(situation.random, boldness)
        choices, weights = np.split(drawn, [len(beliefs.precision)])

        def score(picks: Integers) -> Floats:
            return np.asarray(choices[beliefs.first + picks].sum(axis=1))

        best = _highest(np.array(trained), score, leaders)
        fresh = _untried(situation, situation.feasible.sample_many(children, situation.random), ())
        born = fresh
        for _ in range(rounds):
            best = _highest(np.concatenate([best, born]), score, leaders)
            parents = best[situation.random.integers(len(best), size=children)]
            born = _untried(situation, mutants(situation.space, parents, situation.random), tuples(fresh))
            fresh = np.concatenate([fresh, born])
        few = _highest(fresh, score, _SHORTLIST)
        if len(few) == 0:
            return None
        final = score(few) + (more(tuples(few)) - middle) / spread @ weights
        return tuples(few)[int(final.argmax())]

    return propose


def _targets(situation: Situation) -> Floats:
    """What is to be predicted, of what is known and then of what was pruned, with mean 0 and deviation 1.

    A collapsed training is an outlier and not taken at its word.
    """
    known = np.array([one.values[0] for one in situation.known])
    targets = np.concatenate([known, [_end(one, situation.known) for one in situation.pruned]])
    middle = np.median(targets)
    lowest = middle - _OUTLIER * np.median(np.abs(targets - middle))
    targets = np.maximum(targets, lowest)
    return np.asarray((targets - targets.mean()) / max(float(targets.std()), _TINY))


def _end(pruned: Known, known: Sequence[Known]) -> float:
    """What a training would have come to, by regression on those that went on from the same epoch.

    A few of them say little about the slope, which is held near `_SLOPE` then.
    """
    epoch = len(pruned.curve)
    went_on = np.array([(one.curve[epoch - 1], one.values[0]) for one in known if len(one.curve) > epoch])
    if not len(went_on):
        return pruned.values[0]
    (early, end), spread = went_on.mean(axis=0), went_on.var(axis=0)[0]
    together = float(((went_on[:, 0] - early) * (went_on[:, 1] - end)).sum())
    slope = (together + _WEIGHT * spread * _SLOPE) / (spread * (len(went_on) + _WEIGHT) + _TINY)
    return float(end + slope * (pruned.values[0] - early))


def _highest(picks: Integers, score: Callable[[Integers], Floats], count: int) -> Integers:
    return picks[np.argsort(-score(picks), kind="stable")[:count]]


def _untried(situation: Situation, picks: Integers, others: Iterable[Picks]) -> Integers:
    """Those within the budget, once each, that have not been tried and are none of the others."""
    within = set(tuples(picks[situation.feasible.allows_many(picks)]))
    return np.array(sorted(within.difference(situation.tried, others)), dtype=np.int64).reshape(
        -1, picks.shape[1]
    )
