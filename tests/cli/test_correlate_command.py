"""`nas-recalib correlate` as its users meet it."""

import json

import pytest

from nas_recalib.cli import run

BRIEF = "images: 60\nvalidation: 30\nresolution: 8\nepochs: 1\n"
SMALL = ["--space=tiny.yaml", "--data=digits", "--within=20", "--architectures=3", "--seeds=1"]
CHEAP = ["--reference=brief.yaml", "--fidelity=brief.yaml", "--score=params", "--score=snip"]


@pytest.fixture
def here(here):
    (here / "brief.yaml").write_text(BRIEF)
    return here


def test_it_recommends_and_keeps_to_its_own_studies(here, capsys):
    assert run(["correlate", *SMALL, *CHEAP, "--json", "--html=page.html", "--jobs=1"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert [len(row) for row in found["correlation"]["runs"]] == [1, 1, 1]
    assert found["correlation"]["commands"]
    assert {verdict["signal"] for verdict in found["verdicts"]} >= {"params", "snip", "brief, epoch 1"}
    assert "9/9: architecture 3, reference, seed 1" in told.err
    assert "<svg" in (here / "page.html").read_text()

    assert run(["correlate", *SMALL, *CHEAP, "--markdown"]) == 0
    told = capsys.readouterr()
    assert "| params |" in told.out
    assert "/9:" not in told.err, "nothing is left to do"

    for command in (["search", *SMALL[:2], "--study=tiny-correlation"], ["show", "tiny-correlation"]):
        assert run(command) == 2
        assert "was made by 'nas-recalib correlate' and is not a search" in capsys.readouterr().err


def test_a_search_is_not_gone_on_with(here, capsys):
    fast = ["--images=40", "--validation=20", "--resolution=8", "--epochs=1", "--trials=1", "--study=s"]
    assert run(["search", *SMALL[:2], *fast]) == 0
    capsys.readouterr()
    assert run(["correlate", *SMALL, *CHEAP, "--study=s"]) == 2
    assert "study: 's' is a search" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--within=0"], "within: 0"),
        (["--within=-3"], "within: -3"),
        (["--architectures=2"], "--architectures"),
        (["--seeds=0"], "--seeds"),
        (["--jobs=0"], "--jobs"),
        (["--budget=1k"], "budget"),
        (["--budget=lots"], "budget: 'lots'"),
        (["--fidelity=instant"], "fidelity: unknown 'instant'; allowed: quick, standard, thorough"),
        (["--fidelity=none.yaml"], "none.yaml"),
        (["--score=luck"], "score: unknown 'luck'"),
        (["--architectures=5000"], "5000 were asked for"),
        (["--html=nowhere/page.html"], "nowhere"),
        (["--study=a/b"], "study: 'a/b' is not a name"),
    ],
)
def test_bad_input_is_one_line_and_status_2(here, capsys, arguments, complaint):
    assert run(["correlate", *SMALL, *CHEAP, *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert told.out == ""
    assert len([line for line in told.err.splitlines() if line.startswith("error: ")]) == 1
    assert not (here / "runs").exists()
