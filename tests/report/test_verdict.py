"""Sentences on how certain the best trial of a study is."""

import pytest
from small_study import small_study

from nas_recalib.report.study import confirmation_text, study_tables, verdict
from nas_recalib.report.terminal import print_table
from nas_recalib.study.statistics import write_confirmation
from nas_recalib.study.summary import summarise


def confirmed(**seeds):
    """The small study, `t1=[0.6, None]` being trial 1 with seeds 1 and 2, the second diverged."""
    study = small_study()
    for name, values in seeds.items():
        for seed, value in enumerate(values, start=1):
            result = {"failure": "diverged"} if value is None else {"accuracy": value}
            write_confirmation(study, int(name[1:]), seed, result)
    return summarise(study)


A, B, C = [0.62, 0.60, 0.64], [0.61, 0.63, 0.60], [0.40, 0.41, 0.42]
FAR = [0.70, 0.71, 0.72]
OTHERS = (
    ". not confirmed among the leaders: trials 2 and 0; "
    "run the search again with --confirm N to re-train them"
)


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        (
            {},
            "the best value comes from one training per network and is biased upwards; "
            "add --confirm 5 to re-train the leaders with new seeds",
        ),
        (
            {"t0": C, "t1": A, "t2": B},
            "trial 1 is not distinguishable from trial 2 at 95% with 3 new seeds; "
            "trial 2 has the fewest MACs of them",
        ),
        (
            {"t0": [0.61, 0.61, 0.61], "t1": A, "t2": [0.63, 0.65]},
            "trial 2 is not distinguishable from trials 1 and 0: "
            "too few seeds for an interval (2 to 3 new seeds): add --confirm 3 or more",
        ),
        (
            {"t0": C, "t1": FAR, "t2": [0.50, 0.51, 0.52]},
            "trial 1 is better than trials 2 and 0 at 95% with 3 new seeds",
        ),
        (
            {"t0": [0.2], "t1": [0.3], "t2": [0.1]},
            "trial 1 is not distinguishable from trials 0 and 2: too few seeds for an interval (1 new seed): "
            "add --confirm 3 or more",
        ),
        (
            {"t1": [0.9, 0.2]},
            "only trial 1 was confirmed, with 2 new seeds, too few for an interval: add --confirm 3 or more"
            f"{OTHERS}",
        ),
        (
            {"t1": A},
            f"only trial 1 was confirmed, with 3 new seeds{OTHERS}",
        ),
        (
            {"t0": C, "t1": [0.7, None], "t2": FAR},
            "trial 2 is better than trial 0 at 95% with 3 new seeds. trial 1 diverged with a new seed",
        ),
    ],
)
def test_one_plain_sentence(seeds, sentence):
    assert verdict(confirmed(**seeds)) == sentence


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.9], "0.9000 (1)"),
        ([0.2, 0.9], "0.5500 (2)"),
        ([0.80, 0.81, 0.82], "0.8100 ± 0.0248 (3)"),
        ([0.97, 0.99, 1.0], "0.9867, 0.9487 to 1.0000 (3)"),
        ([0.0, 0.1, 0.9], "0.3333, 0.0000 to 1.0000 (3)"),
    ],
)
def test_an_interval_needs_three_seeds_and_stays_within_0_and_1(values, text):
    row = next(row for row in confirmed(t1=values).rows if row.number == 1)
    assert confirmation_text(row) == text


def test_the_tables_say_it_and_show_the_means(capsys):
    print_table(study_tables(confirmed(t0=C, t1=A, t2=[0.9, None]), top=9))
    output = capsys.readouterr().out
    assert "best: trial 1, accuracy 0.6200 ± 0.0497 (3) over new seeds, 0.7000 in the search" in output
    assert "trial 1 is better than trial 0 at 95% with 3 new seeds" in output
    assert "diverged (seed 2)" in output
    assert "confirmed, 95% (seeds)" in output
    print_table(study_tables(confirmed(), top=9))
    output = capsys.readouterr().out
    assert "confirmed, 95% (seeds)" not in output
    assert "add --confirm 5" in output
