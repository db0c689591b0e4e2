"""Progress lines of a search: rates and remaining time count the epochs that were really trained."""

from contextlib import suppress

import optuna
import pytest
from stand_in import StandIn, make_search

from nas_recalib.search.local import run_here
from nas_recalib.search.progress import Progress

SECONDS = 10  # seconds of an epoch; a training has three


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name="s", direction="maximize")


@pytest.fixture
def search(study, tmp_path, monkeypatch, capsys):
    """Return a function that runs a search with a fake clock and returns its progress lines."""
    now = [0.0]
    monkeypatch.setattr("nas_recalib.search.progress.time.monotonic", lambda: now[0])

    class Timed(StandIn):
        end = None

        def steps(self, *given, **options):
            for step in super().steps(*given, **options):
                if self.end and len(self.passed) == 3:
                    raise self.end
                now[0] += SECONDS
                yield step

    def run(target, end=None):
        proxy = Timed()
        proxy.end = end
        with Progress.of(study, target, proxy.epochs) as progress, suppress(end or ()):
            run_here(make_search(study, tmp_path, proxy, strategy="random"), target, progress)
        return capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_a_resumed_training_counts_by_its_remaining_epochs(search, end):
    """After two of its three epochs the first is interrupted, or its process dies."""
    search(4, end)
    lines = [line for line in search(4) if "accuracy" in line]
    assert "1 of 4 trials" in lines[0]
    assert [line.split(", ")[-2] for line in lines] == ["120 trials/h"] * 4
    assert [line.rpartition(", ")[2] for line in lines] == [
        "1 min 30 s left",
        "1 min 00 s left",
        "0 min 30 s left",
        "0 min 00 s left",
    ]


def test_a_transferred_trial_is_not_counted(study, search, capsys):
    search(1)
    progress = Progress.of(study, 4, 3)
    (trial,) = study.get_trials()
    trial.number, trial.user_attrs["taken_from"] = 1, "other/0"
    progress.ended(trial)
    assert " | 1 of 4 trials, best " in capsys.readouterr().err
