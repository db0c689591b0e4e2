"""`nas-recalib cost` as its users meet it."""

import json

import numpy as np

from nas_recalib.cli import run
from nas_recalib.costs import Budget
from nas_recalib.space import SearchSpace


def test_cost_of_a_space_a_choice_and_json(here, capsys):
    assert run(["cost", "--space", "resnet50"]) == 0
    told = capsys.readouterr().out
    assert "all vanilla: 4,089,184,256 MACs" in told
    assert run(["cost", "scconv", "--budget", "4G", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"resnet50, all scconv": {"macs": 3925286912, "params": 25564584}, "within_budget": True}


def test_how_much_of_a_space_is_within_a_budget(here, capsys):
    """The tiny space has 216 architectures, few enough to count by hand."""
    space = SearchSpace.load("tiny.yaml")
    budget = Budget(40_000_000, 271_000)
    costs = [space.table.cost(indices) for indices in np.ndindex(6, 6, 6)]
    fitting = sum(map(budget.allows, costs))
    asked = ["cost", "--space", "tiny.yaml", "--budget", "40M", "--params", "271k"]
    assert run([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["within_budget"] == fitting < told["architectures"] == 216
    assert told["share"] == fitting / 216
    assert told["budget"] == {"macs": 40_000_000, "params": 271_000}
    histogram = told["histogram"]
    assert (histogram["macs"][0], histogram["macs"][-1]) == (told["least"]["macs"], told["greatest"]["macs"])
    assert sum(histogram["architectures"]) == 216

    assert run(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"within 40.000M MACs and 271.000k params: {fitting} of 216 ({fitting / 2.16:.3g}%)" in lines
    rows = lines[lines.index("MACs of all architectures") + 2 :]
    assert len(rows) == 20
    (marked,) = [row for row in rows if row.endswith("<- 40.000M")]
    low, _, high = marked.split()[:3]
    assert float(low[:-1]) <= 40 < float(high[:-1])


def test_a_large_count_is_readable(here, capsys):
    assert run(["cost", "--space", "resnet50", "--params", "26M"]) == 0
    told = capsys.readouterr().out
    assert "within 26.000M params: 6.53e19 of 1.21e22 (0.539%)\n" in told
    assert "<-" not in told, "there is no limit on MACs"
    assert run(["cost", "--space", "resnet20", "--budget", "1M"]) == 2
    assert "the least possible cost, 32.040M MACs (32,039,552)" in capsys.readouterr().err


def test_cost_is_checked_against_other_counters(here, capsys):
    assert run(["cost", "psconv+ab", "--space", "tiny.yaml", "--check"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("resnet20, all psconv+ab: ")
    assert told[1].startswith("FlopCounterMode on the whole network: ")
    assert told[1].endswith(": the same")
    assert told[-1] == "our count and these differences add up to thop's count, to the last digit"

    assert run(["cost", "psconv+ab", "--space", "tiny.yaml", "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    ours, check = told["resnet20, all psconv+ab"], told["check"]
    assert check["flop_counter"] == ours
    assert ours["macs"] + sum(d["macs"] for d in check["differences"]) == check["thop"]["macs"]
    assert check["unexplained"] == {"macs": 0, "params": 0}

    assert run(["cost", "--check"]) == 2
    assert "check: needs an architecture file, or a choice" in capsys.readouterr().err


def test_names_of_other_things_than_operators_get_a_hint(here, capsys):
    (here / "runs" / "mine").mkdir(parents=True)
    (here / "runs" / "mine" / "study.db").touch()
    (here / "best.yaml").touch()
    for what, hint in (
        ("resnet50", "'resnet50' is a search space, not an operator; give --space resnet50"),
        (
            "resnet500",
            "'resnet500' is neither an operator nor a search space; did you mean --space resnet50?",
        ),
        ("mine", "'mine' is a study, not an operator; 'nas-recalib export mine' writes its best"),
        ("best", "'best' is not an operator; the name of an architecture file ends in .yaml"),
        ("psconvv", "did you mean 'psconv'?"),
        ("vanilla+scconvs", "did you mean 'scconv'?"),
        ("PSConv", "'PSConv' is not an operator; names have lower-case letters and hyphens, like ab-plus"),
        ("ab_plus", "names have lower-case letters and hyphens, like ab-plus"),
        ("halve", "load an operator of your own with --plugin MODULE (in Python, import its module first)"),
    ):
        assert run(["cost", what]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: cost: ")
        assert line.endswith(hint)
        assert "layer1.0" not in line
