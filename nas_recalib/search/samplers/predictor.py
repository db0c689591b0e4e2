"""Search guided by a predictor of accuracy: Bayesian regression with Thompson draws."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nas_recalib.costs.table import Integers
from nas_recalib.search.samplers.expectation import ended
from nas_recalib.search.samplers.moves import mutants, tuples
from nas_recalib.search.samplers.regression import Floats, fit, prior
from nas_recalib.search.samplers.situation import Known, Picks, Situation, Strategy

Features = Callable[[Picks], Sequence[float]]
_OUTLIER = 3 * 1.4826  # in median absolute deviations: 3 standard deviations of a normal distribution
_SHORTLIST = 8
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
            everything known, and for the few best candidates. None by default: costs are sums over the
            choices and so in the model already, and of the scores none was found to be worth its time.
    """
    told: dict[Picks, Sequence[float]] = {}

    def more(architectures: Sequence[Picks]) -> Floats:
        if features is None:
            return np.empty((len(architectures), 0))
        told.update((one, features(one)) for one in architectures if one not in told)
        return np.array([told[one] for one in architectures], dtype=np.float64)

    def propose(situation: Situation) -> Picks | None:
        all_ended = ended(situation)
        if len(all_ended) < start:
            return None
        targets = _targets(all_ended)
        if not targets.any():  # all came to the same
            return None
        beliefs = prior(situation.space)
        trained = [one.picks for one in all_ended]
        columns = more(trained)
        middle, spread = columns.mean(axis=0), np.maximum(columns.std(axis=0), _TINY)
        posterior = fit(beliefs, np.array(trained), (columns - middle) / spread, targets)
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


def _targets(all_ended: Sequence[Known]) -> Floats:
    """What is to be predicted, with mean 0 and deviation 1.

    A collapsed training is an outlier and not taken at its word.
    """
    values = np.array([one.values[0] for one in all_ended])
    middle = np.median(values)
    values = np.maximum(values, middle - _OUTLIER * np.median(np.abs(values - middle)))
    return np.asarray((values - values.mean()) / max(float(values.std()), _TINY))


def _highest(picks: Integers, score: Callable[[Integers], Floats], count: int) -> Integers:
    return picks[np.argsort(-score(picks), kind="stable")[:count]]


def _untried(situation: Situation, picks: Integers, others: Iterable[Picks]) -> Integers:
    """Those within the budget, once each, that have not been tried and are none of the others."""
    within = set(tuples(picks[situation.feasible.allows_many(picks)]))
    return np.array(sorted(within.difference(situation.tried, others)), dtype=np.int64).reshape(
        -1, picks.shape[1]
    )
