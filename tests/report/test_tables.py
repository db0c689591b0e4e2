import warnings
from dataclasses import replace

import optuna
import pytest
from small_study import CONFIG, small_study, trial

from nas_recalib.report.study import study_tables
from nas_recalib.report.terminal import print_table
from nas_recalib.study.summary import summarise


def test_tables_name_the_best_its_blocks_and_the_baselines(capsys):
    print_table(study_tables(summarise(small_study()), top=2))
    output = capsys.readouterr().out
    assert "best: trial 1, accuracy 0.7000 ± 0.0229" in output
    assert "layer3.2" in output
    assert "1 diverged" in output
    assert "all vanilla" not in output, "the third of two rows"
    assert not any(line.endswith(" ") for line in output.splitlines())


def importance(capsys, summary):
    print_table(study_tables(summary, top=2))
    output = capsys.readouterr().out
    return output[output.index("Importance for accuracy") :].splitlines()


def test_importance_is_shown_or_why_it_is_not(capsys):
    study = small_study()
    assert importance(capsys, summarise(study)) == [
        "Importance for accuracy: needs 10 trials trained to the end (3 so far)"
    ]
    for _ in range(7):
        study.add_trial(trial("scconv", 0.6, 30))
    summary = summarise(study)
    assert importance(capsys, summary)[1:] == ["position  share", "layer1    1.000"]
    alike = replace(summary, rows=tuple(replace(row, accuracy=0.5) for row in summary.rows), importance={})
    assert importance(capsys, alike) == [
        "Importance for accuracy: unknown, all 10 trials have the same accuracy"
    ]


@pytest.mark.parametrize("tied", [True, False])
def test_optuna_warns_neither_of_ties_nor_of_choices_that_few_trials_have(tied):
    study = optuna.create_study(direction="maximize", study_name="s")
    study.set_user_attr("config", CONFIG.as_dict())
    for number in range(12):
        one = trial("vanilla" if number % 2 else "psconv", 0.7 if tied else 0.1 * (number % 3), 40)
        if number == 11:
            one.params, one.distributions = {}, {}
        study.add_trial(one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bool(summarise(study).importance) is not tied
