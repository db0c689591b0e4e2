import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.export import export_architecture
from nas_recalib.report.page import study_page
from nas_recalib.report.summary import summarise
from nas_recalib.report.tables import print_table, study_tables
from nas_recalib.search.config import SearchConfig

CONFIG = SearchConfig(
    space="a space",
    budget=Budget(macs=41_000_000),
    data="digits",
    data_note="",
    data_hash="x",
    fidelity={"images": 10, "validation": 400, "resolution": 16, "width": 1.0, "epochs": 2},
    recipe={},
    dtype="float32",
    threads=1,
    sampler="tpe",
    pruner="none",
    seed=0,
)


def trial(choice, accuracy, macs, state=TrialState.COMPLETE, **attributes):
    architecture = str(Architecture.of("resnet20", choice))
    options = CategoricalDistribution(["vanilla", "psconv", "scconv", "ab"])
    return create_trial(
        state=state,
        value=None if state == TrialState.FAIL else accuracy,
        params={"layer1.convolution": choice},
        distributions={"layer1.convolution": options},
        user_attrs={"architecture": architecture, "macs": macs, "params": 7, "seconds": 1.5, **attributes},
        intermediate_values={} if state == TrialState.FAIL else {1: accuracy},
    )


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", study_name="s")
    study.set_user_attr("config", CONFIG.as_dict())
    study.add_trial(trial("vanilla", 0.5, 40, baseline="vanilla"))
    study.add_trial(trial("psconv", 0.7, 40))
    study.add_trial(trial("scconv", 0.6, 30))
    study.add_trial(trial("ab", 0.9, 41, TrialState.PRUNED))
    study.add_trial(trial("ab", 0.9, 41, TrialState.FAIL, failure="diverged"))
    study.add_trial(trial("psconv", 0.7, 40, replayed_from=1))
    return study


def test_the_best_ran_to_the_end_and_replays_count_for_nothing(study):
    summary = summarise(study)
    assert [row.number for row in summary.rows] == [1, 2, 0, 3]
    assert summary.best.number == 1
    assert summary.replayed == 1
    assert summary.failures == {"diverged": 1}
    assert summary.rows[2].baseline == "vanilla"


def test_the_front_has_what_nothing_beats_in_both(study):
    assert summarise(study).front == (2, 1)


def test_the_error_is_that_of_a_share_of_the_validation_images(study):
    assert summarise(study).best.error == pytest.approx(math.sqrt(0.7 * 0.3 / 400))


def test_importance_needs_ten_trials_and_finds_what_matters(study):
    assert summarise(study).importance == {}
    both = {f"layer{i}.convolution": CategoricalDistribution(["vanilla", "psconv"]) for i in (1, 2)}
    for number in range(24):
        picks = {name: ["vanilla", "psconv"][number >> i & 1] for i, name in enumerate(both)}
        value = 0.9 if picks["layer1.convolution"] == "psconv" else 0.1
        attributes = trial("vanilla", 0, 1).user_attrs
        study.add_trial(create_trial(value=value, params=picks, distributions=both, user_attrs=attributes))
    shares = summarise(study).importance
    assert shares["layer1"] > 0.9


def test_a_study_without_a_finished_trial_and_a_foreign_one_are_refused():
    empty = optuna.create_study(study_name="e", direction="maximize")
    with pytest.raises(InputError, match="'e' was not made by nas-recalib"):
        summarise(empty)
    empty.set_user_attr("config", CONFIG.as_dict())
    with pytest.raises(InputError, match="'e' has no finished trial yet"):
        _ = summarise(empty).best


def test_tables_name_the_best_its_blocks_and_the_baselines(study, capsys):
    print_table(study_tables(summarise(study), top=2))
    told = capsys.readouterr().out
    assert "best: trial 1, accuracy 0.7000 ± 0.0229" in told
    assert "layer3.2" in told
    assert "1 diverged" in told
    assert "all vanilla" not in told, "the third of two rows"
    assert not any(line.endswith(" ") for line in told.splitlines())


def test_the_page_stands_alone_and_escapes_names(study):
    study.set_user_attr("config", {**CONFIG.as_dict(), "data": "folder:<script>"})
    page = study_page(summarise(study))
    assert "folder:&lt;script&gt;" in page
    assert "src=" not in page.replace("src=null", "").split("<div")[0]
    assert "Best architecture, block by block (trial 1)" in page


def test_export_takes_the_best_or_the_one_named(study, tmp_path):
    summary = summarise(study)
    assert export_architecture(summary, tmp_path / "best.yaml").number == 1
    assert Architecture.load(tmp_path / "best.yaml") == Architecture.of("resnet20", "psconv")
    export_architecture(summary, tmp_path / "two.yaml", 2)
    assert Architecture.load(tmp_path / "two.yaml") == Architecture.of("resnet20", "scconv")
    text = (tmp_path / "two.yaml").read_text()
    assert "study: s" in text
    assert "accuracy: 0.6" in text
    with pytest.raises(InputError, match="trial: 4 is not a trained trial of s; there are 1, 2, 0, 3"):
        export_architecture(summary, tmp_path / "no.yaml", 4)
    assert not (tmp_path / "no.yaml").exists()
