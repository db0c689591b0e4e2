"""Options of a search, those of its study and the defaults are resolved to a search that is ready to run."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from commands import SPACE
from stand_in import Silent

from nas_recalib.costs import Budget
from nas_recalib.device import describe
from nas_recalib.errors import InputError
from nas_recalib.proxy.objective import Failure
from nas_recalib.search.options import SearchOptions
from nas_recalib.search.setup import prepared, refuse_unused
from nas_recalib.study.location import StudyLocation, open_study

CPU = torch.device("cpu")
QUICK = {"data": "digits", "images": 40, "validation": 20, "resolution": 8, "epochs": 1, "threads": 1}
KEPT = {"trials": 6, "confirm": 2, "retries": 1, "corrupt": "skip", "baselines": "no"}
LATER = {"trials": 9, "confirm": 0, "retries": 0, "corrupt": "refuse", "baselines": "yes", "strategy": "tpe"}
FIRST = {
    **QUICK,
    **KEPT,
    "macs": "41M",
    "memory": "100MB",
    "batch": 2,
    "seed": 3,
    "strategy": "random",
    "pruner": "median",
}


@pytest.fixture
def prepare(tmp_path):
    """Function that prepares a search on the study `s` and returns it with its configuration."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (tmp_path / "tiny.yaml").write_text(SPACE)

    def once(**given):
        options = SearchOptions(runs=tmp_path / "runs", study="s", **given)
        with prepared(options, tmp_path, CPU, describe(CPU), said.append) as (search, config):
            return search, config

    said = once.said = []
    return once


def test_what_is_not_given_again_is_as_the_study_has_it(prepare, tmp_path):
    space, kept = str(tmp_path / "tiny.yaml"), str(tmp_path / "kept")
    _, first = prepare(space=space, checkpoints=kept, **FIRST)
    assert {name: getattr(first, name) for name in KEPT} == {**KEPT, "baselines": False}
    search, again = prepare()
    assert again == first
    assert (search.retries, list(search.first)) == (1, [])
    assert str(search.checkpoints.folder) == f"{kept}/s"
    assert prepare(macs="41M")[1] == first, "of several limits, too"
    for name, value in LATER.items():
        first = replace(first, **{name: value == "yes" if name == "baselines" else value})
        assert prepare(**{name: value})[1] == first
    for name, value in (("memory", "99MB"), ("seed", 4), ("batch", 3)):
        with pytest.raises(InputError, match="was made with another"):
            prepare(**{name: value})


def test_a_study_of_an_earlier_version_is_opened_with_the_defaults(prepare, tmp_path):
    _, config = prepare(space=str(tmp_path / "tiny.yaml"), **QUICK)
    study = open_study(StudyLocation.of("s", tmp_path / "runs"))
    content = {key: value for key, value in config.as_dict().items() if key not in (*KEPT, "checkpoints")}
    study.set_user_attr("config", content)
    search, again = prepare()
    assert again == config
    assert (again.trials, again.confirm, again.retries, again.corrupt) == (20, 0, 3, "refuse")
    assert again.baselines
    assert search.checkpoints.folder == tmp_path / "runs/s/checkpoints"


def test_checkpoints_stay_at_their_url_but_its_password_is_not_kept(prepare, tmp_path):
    url = f"file://{tmp_path}/elsewhere"
    prepare(space=str(tmp_path / "tiny.yaml"), checkpoints=url, **QUICK)
    assert prepare.said == []
    assert prepare()[0].checkpoints.folder == f"{url}/s"
    assert prepare.said == [f"checkpoints: {url}/s, as the study has it"]
    secret = "memory://me:s3cret@bucket"
    search, config = prepare(checkpoints=secret)
    assert search.checkpoints.folder == f"{secret}/s"
    assert "s3cret" not in str(config)
    with pytest.raises(
        InputError, match=r"^checkpoints: .* memory://me:\*\*\*@bucket, .* give .* --checkpoints"
    ):
        prepare()
    assert prepare(checkpoints=url)[0].checkpoints.folder == f"{url}/s"


def test_the_threads_are_those_that_are_asked_for(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    search, _ = prepare(space=str(tmp_path / "tiny.yaml"), **QUICK)
    assert f"(1 of {describe(CPU).cores} threads)" in search.common_attrs["device"]


def test_baselines_that_are_left_are_counted(prepare, tmp_path):
    """Of the papers' six the space has four; the one that diverged is not trained again."""
    search, _ = prepare(space=str(tmp_path / "tiny.yaml"), **QUICK)
    assert search.baselines_left() == 4
    search.begin(1, Silent())
    search.fail(search.next_job().number, Failure("diverged", "the loss is not a number"))
    assert search.baselines_left() == 3
    assert prepare(baselines="no")[0].baselines_left() == 0
    assert prepare(baselines="yes")[0].baselines_left() == 3


@pytest.mark.parametrize(
    ("option", "given", "objective"),
    [("latency_table", Path("t.json"), "latency"), ("batch", 4, "latency"), ("batch", 4, "memory")],
)
def test_an_option_without_effect_is_refused(option, given, objective):
    options = SearchOptions(**{option: given})
    refuse_unused(options, Budget(), ["accuracy", objective])
    with pytest.raises(InputError, match="has no effect without a limit"):
        refuse_unused(options, Budget(), ["accuracy", "macs"])


@pytest.mark.parametrize("option", ["trials", "retries", "seed", "confirm"])
def test_an_option_out_of_range_is_refused_by_name(prepare, tmp_path, option):
    with pytest.raises(InputError, match=f"^{option}: input should be greater than or equal to"):
        prepare(space=str(tmp_path / "tiny.yaml"), **QUICK, **{option: -1})
    assert not (tmp_path / "runs").exists()
