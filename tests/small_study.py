"""A study of six trials, made by hand."""

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget
from nas_recalib.study.config import SearchConfig

CONFIG = SearchConfig(
    space="a space",
    budget=Budget(macs=41_000_000),
    data="digits",
    data_note="",
    data_hash="x",
    split_hash="y",
    fidelity={"images": 10, "validation": 400, "resolution": 16, "width": 1.0, "epochs": 2},
    recipe={},
    dtype="float32",
    threads=1,
    strategy="tpe",
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


def small_study():
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
