"""Evaluation of signals, and the recommendation in cases whose answer is known."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from made_up_correlation import COUNT, TRUTH, baseline, correlation, noisy, score, training
from scipy import stats

from nas_recalib.correlation.recommend import evaluate, format_seconds

GOOD, POOR, USELESS = 0.3, 1.5, 30.0


def recommended(*signals, **changed):
    return evaluate(correlation(*signals, **changed)).recommendation


def test_a_cheap_training_that_is_as_good_is_enough():
    dear, cheap = training("standard", 8, GOOD, 40.0), training("quick", 2, GOOD, 4.0)
    found = recommended(dear, cheap)
    assert (found.signal, found.fidelity, found.epoch, found.seconds) == ("quick, epoch 2", "quick", 2, 4.0)
    assert "One longer training takes 120 s, 30 times as long." in found.reason


def test_a_cheap_training_that_is_worse_is_not():
    dear, cheap = training("standard", 8, GOOD, 40.0), training("quick", 2, POOR, 4.0)
    found = recommended(cheap, dear)
    assert found.signal == "standard, epoch 8"
    assert "every cheaper one is clearly below it or not clearly above 0" in found.reason


def test_of_trainings_that_are_all_alike_the_cheapest_is_taken():
    values = noisy(GOOD, 1)
    given = [training("f", epoch, 0, 2.0 * epoch, values=values) for epoch in (4, 1, 2)]
    found = recommended(*given)
    assert found.signal == "f, epoch 1"
    assert found.rungs == (1,)
    assert "may be lost" not in found.reason


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.0214, "0.021 s"),
        (6.13, "6.1 s"),
        (99.4, "99 s"),
        (99.5, "100 s"),
        (1234.4, "1,234 s"),
    ],
)
def test_seconds_are_written_plainly(seconds, text):
    assert format_seconds(seconds) == text


def test_what_is_said_of_a_cheaper_training_is_what_was_measured():
    found = evaluate(correlation(training("standard", 8, 0.25, 40.0), training("quick", 2, GOOD, 4.0)))
    means = found.correlation.means
    dear, cheap = (stats.kendalltau(s.values, means).statistic for s in found.correlation.signals)
    assert found.recommendation.signal == "quick, epoch 2"
    for value in (f"{dear:.2f} (", f"{cheap:.2f} (", f"differ by {cheap - dear:+.2f} ("):
        assert value in found.recommendation.reason
    assert "of tau may be lost unseen" in found.recommendation.reason


def test_a_signal_that_tells_nothing_apart_is_passed_over():
    flat = training("flat", 1, 0, 1.0, values=(0.1,) * COUNT)
    lost = training("lost", 1, 0, 1.0, values=(math.nan,) * COUNT)
    good = training("standard", 8, GOOD, 40.0)
    found = evaluate(correlation(flat, lost, good))
    assert found.recommendation.signal == "standard, epoch 8"
    assert math.isnan(found.results[0].agreement.tau.value)
    assert "Every training ranks all architectures the same." in recommended(flat, lost).reason


def test_the_best_may_have_diverged_for_some():
    values = tuple(
        math.nan if truth == TRUTH.min() else value for truth, value in zip(TRUTH, noisy(0.1, 2), strict=True)
    )
    best, cheap = training("standard", 8, 0, 40.0, values=values), training("quick", 2, POOR, 4.0)
    assert recommended(best, cheap).signal == "standard, epoch 8"


def test_nothing_is_recommended_where_nothing_is_shown():
    found = recommended(training("a", 1, USELESS, 1.0), training("b", 1, USELESS, 2.0))
    assert (found.signal, found.rungs) == ("", ())
    assert math.isnan(found.seconds)
    assert "No training is shown to order the 48 architectures better than chance" in found.reason
    assert recommended(score("synflow", GOOD)).signal == "", "a score is no training"


def test_rungs_are_epochs_that_tell_going_down_by_two_or_more():
    useless = training("f", 1, USELESS, 1.0)
    later = [
        training("f", epoch, noise, float(epoch))
        for epoch, noise in ((2, 1.0), (3, 1.0), (5, 1.0), (12, 0.05))
    ]
    other = training("g", 6, GOOD, 1000.0)
    found = recommended(useless, *later, other)
    assert found.signal == "f, epoch 12"
    assert found.rungs == (2, 5, 12)
    assert "epochs 2, 5, 12" in found.reason
    blurred = replace(useless, name="f, sum of losses", epoch=5)
    assert recommended(useless, *later, blurred).rungs == (3, 12), "all that is read there has to tell"
    assert "no rungs below it" in recommended(later[-1]).reason


def test_a_training_without_an_epoch_has_no_rungs():
    assert recommended(training("f", 0, GOOD, 1.0)).rungs == (0,)


def test_the_better_baseline_is_the_one_to_beat():
    signals = training("f", 4, GOOD, 4.0), baseline("macs", USELESS), baseline("params", 1.0)
    found = evaluate(correlation(*signals))
    assert found.baseline == "params"
    trained, macs, params = found.results
    assert trained.over_baseline.above_zero
    taus = [v.agreement.tau.value for v in (trained, params)]
    assert trained.over_baseline.value == pytest.approx(taus[0] - taus[1])
    assert math.isnan(macs.over_baseline.value)
    assert "alone" not in found.recommendation.reason
    as_good = recommended(training("f", 4, GOOD, 4.0), baseline("params", GOOD))
    assert "not shown to be better than params alone" in as_good.reason


def test_a_baseline_that_is_the_same_for_all_is_none():
    flat = replace(baseline("macs", 0.0), values=(4e9,) * COUNT)
    found = evaluate(correlation(training("f", 4, GOOD, 4.0), flat))
    assert found.baseline == ""
    assert math.isnan(found.results[0].over_baseline.value)


def test_a_score_as_good_is_mentioned():
    trained = training("f", 4, GOOD, 4.0)
    assert (
        "The zero-cost proxy synflow (0.02 s) is not clearly worse"
        in recommended(trained, score("synflow", GOOD)).reason
    )
    assert (
        "The zero-cost proxy naswot (0.02 s) is better"
        in recommended(training("f", 4, POOR, 4.0), score("naswot", 0.1)).reason
    )
    assert "zero-cost" not in recommended(trained, score("naswot", POOR)).reason


def test_architectures_that_diverged_in_the_reference_rank_lowest():
    runs = [list(row) for row in correlation().runs]
    runs[int(np.argmin(TRUTH))][1] = math.nan
    found = evaluate(correlation(training("f", 4, 0.0, 4.0), runs=tuple(map(tuple, runs)), noise=0.01))
    assert math.isnan(found.correlation.means[int(np.argmin(TRUTH))])
    known = evaluate(correlation(training("f", 4, 0.0, 4.0)))
    assert found.results[0].agreement == known.results[0].agreement


def test_all_of_it_is_json_whatever_is_not_a_number():
    flat = training("flat", 1, 0, 1.0, values=(math.nan,) * (COUNT - 1) + (math.inf,))
    content = json.loads(
        json.dumps(evaluate(correlation(flat, baseline("params", 1.0), seeds=1)).as_dict(), allow_nan=False)
    )
    assert content["correlation"]["signals"][0]["values"][0] is None
    assert content["ceiling"]["seed_std"] is None
    assert content["verdicts"][1]["signal"] == "params"
    assert len(content["means"]) == COUNT
    assert set(content["recommendation"]) >= {"signal", "fidelity", "epoch", "rungs", "reason"}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"macs": (1, 2)}, "macs: 2 for 48 architectures"),
        ({"params": (1,), "signals": (baseline("params", 1.0),)}, "params: 1 for 48 architectures"),
        ({"runs": ((0.1,),)}, "runs: 1 for 48 architectures"),
        ({"runs": ((0.1,), *((0.1, 0.2),) * (COUNT - 1))}, "runs: expected the same number of seeds"),
        ({"runs": ((),) * COUNT}, "runs: expected the same number of seeds"),
        ({"signals": (training("f", 1, 0, 1.0, values=(1.0,)),)}, "f, epoch 1: 1 for 48 architectures"),
        (
            {"signals": (training("f", 1, 0, 1.0, kind="oracle"),)},
            "f, epoch 1: kind = 'oracle' is not one of",
        ),
        ({"signals": (training("f", 1, 0, 1.0),) * 2}, "signals: 'f, epoch 1' is given twice"),
    ],
)
def test_what_does_not_fit_together_is_refused(changed, named):
    with pytest.raises(ValueError, match=named):
        correlation(**changed)


def test_thirty_signals_are_judged_in_seconds():
    signals = [training("f", epoch, 1.0, float(epoch)) for epoch in range(1, 29)]
    start = time.perf_counter()
    evaluate(correlation(*signals, score("synflow", 1.0), baseline("params", 1.0)))
    assert time.perf_counter() - start < 10
