"""Plugins: a user's own operator, from its module to a trained network."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from examples import soaked

import nas_recalib as nr
from nas_recalib.cli import run
from nas_recalib.errors import InputError
from nas_recalib.operators import catalog
from nas_recalib.plugins import load_plugins

SPACE = """
name: tiny
backbone: resnet20
granularity: stage
convolution: [vanilla]
recalibration: [none, halve, halve(times=2)]
proxy: {width: 0.5}
"""
HALVE = """
from torch import nn
from nas_recalib import register

@register("halve", "recalibration")
class Halve(nn.Module):
    def __init__(self, channels, *, times: int = 1):
        super().__init__()
        self.times = times

    def forward(self, x):
        return x / 2**self.times
"""
QUICK = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--epochs=1"]
SEARCH = ["search", "--space", "tiny.yaml", *QUICK]


@pytest.fixture
def here(tmp_path, monkeypatch, forget):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    (tmp_path / "own_halve.py").write_text(HALVE)
    return tmp_path


@pytest.fixture
def error_line(capsys):
    """Return the only line on standard error, which reports an error."""

    def line():
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    return line


def stored():
    return optuna.load_study(study_name="tiny", storage="sqlite:///runs/tiny/study.db")


def test_the_whole_job_with_an_operator_of_ones_own(here, forget, capsys, error_line):
    assert run([*SEARCH, "--plugin", "own_halve", "--trials", "2"]) == 0
    assert stored().user_attrs["config"]["plugins"] == ["own_halve"]
    assert yaml.safe_load((here / "runs/tiny/config.yaml").read_text())["plugins"] == ["own_halve"]
    for again in (["--space", "tiny.yaml"], ["--study", "tiny"]):
        forget()
        assert run(["search", *again, "--trials", "4", "--plugin", "own_halve"]) == 0
    assert len(stored().trials) == 4
    assert any("halve" in trial.user_attrs["architecture"] for trial in stored().trials)
    capsys.readouterr()
    assert run(["show", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["plugins"] == ["own_halve"]
    halved = next(t.number for t in stored().trials if "halve" in t.user_attrs["architecture"])
    forget()
    told_trial = ["--trial", str(halved), "--plugin", "own_halve"]
    assert run(["export", "tiny", "-o", "best.yaml", *told_trial]) == 0
    assert yaml.safe_load((here / "best.yaml").read_text())["origin"]["plugins"] == ["own_halve"]

    forget()
    capsys.readouterr()
    for command in (["cost", "best.yaml"], ["train", "best.yaml", "--data=digits"]):
        assert run(command) == 2
        assert error_line() == (
            "error: best.yaml: it was made with operators that are not loaded; "
            "a plugin is a program: if you trust it, give --plugin 'own_halve'"
        )
    whole = (here / "best.yaml").read_text()
    (here / "torn.yaml").write_text(whole.replace("layer1.0:", "layer9.9:"))
    assert run(["cost", "torn.yaml"]) == 2
    assert error_line().startswith("error: torn.yaml: resnet20 has no block"), "not a matter of plugins"
    assert run(["cost", "best.yaml", "--plugin", "own_halve"]) == 0
    train = "train best.yaml --data digits --epochs 1 --batch-size 32 --limit-batches 1 --workers 0"
    forget()
    assert run([*train.split(), "--device", "cpu", "--plugin", "own_halve.py", "-o", "out"]) == 0
    assert (here / "out" / "weights.safetensors").is_file()


OPENED = (["search", "--study", "tiny", "--trials", "2"], ["show", "tiny"], ["export", "tiny"])


def test_a_plugin_may_have_moved(here, forget, error_line, capsys):
    assert run([*SEARCH, "--plugin", "own_halve.py", "--trials", "1"]) == 0
    (here / "lib").mkdir()
    (here / "own_halve.py").rename(here / "lib" / "own_halve.py")
    for command in OPENED:
        forget()
        capsys.readouterr()
        assert run([*command, "--plugin", "own_halve.py"]) == 2
        assert "plugin: own_halve.py cannot be loaded: FileNotFoundError" in error_line()
    forget()
    assert run(["search", "--study", "tiny", "--trials", "2", "--plugin", "lib/own_halve.py"]) == 0
    assert stored().user_attrs["config"]["plugins"] == ["lib/own_halve.py"]
    forget()
    assert run(["show", "tiny", "--plugin", "own_halve"]) == 2
    assert run(["show", "tiny", "--plugin", "lib/own_halve.py"]) == 0


@pytest.mark.parametrize("named", ["own_halve", "own_halve.py", "{here}/own_halve.py"])
@pytest.mark.parametrize("command", soaked(OPENED, OPENED[:1]))
def test_nothing_is_run_because_a_study_names_it(here, forget, error_line, capsys, command, named):
    assert run([*SEARCH, "--plugin", "own_halve", "--trials", "1"]) == 0
    plugins = ["json", named.format(here=here)]
    stored().set_user_attr("config", {**stored().user_attrs["config"], "plugins": plugins})
    (here / "own_halve.py").write_text(f"{HALVE}\nopen('it ran', 'w')\n")
    forget()
    capsys.readouterr()
    assert run(command) == 2
    assert error_line().endswith(f"if you trust it, give --plugin {plugins[1]!r}")
    assert not (here / "it ran").exists()
    assert run([*command, "--plugin", plugins[1]]) == 0
    assert (here / "it ran").exists()


def test_a_file_may_import_what_lies_beside_it_and_be_pickled(here):
    (here / "lib").mkdir()
    (here / "lib" / "own_power.py").write_text("BASE = 2\n")
    beside = HALVE.replace("2**", "BASE**").replace("halve", "beside") + "\nfrom own_power import BASE\n"
    (here / "lib" / "own_beside.py").write_text(beside)
    load_plugins(["lib/own_beside.py", str(here / "lib" / "own_beside.py"), "own_beside"])
    module = catalog.build_recalibration(catalog.parse_part("beside(times=3)", "recalibration"), 4)
    assert pickle.loads(pickle.dumps(module)).times == 3


def test_several_plugins_join_at_once(here, capsys):
    (here / "own_quarter.py").write_text(HALVE.replace("halve", "quarter").replace("2**", "4**"))
    plugins = ["--plugin", "own_halve", "--plugin", "own_quarter.py"]
    for choice in ("halve(times=2)", "quarter"):
        assert run(["cost", choice, "--space", "tiny.yaml", *plugins]) == 0
    assert "all quarter: 40,813,184 MACs" in capsys.readouterr().out


PLAIN = "import nas_recalib as nr\n"
BAD = {
    "not there": (None, "ModuleNotFoundError: No module named 'own_bad'"),
    "not Python": ("def", "SyntaxError: invalid syntax (own_bad.py, line 1)"),
    "an error of its own": ("1 / 0", "ZeroDivisionError: division by zero"),
    "an error of many lines": ("raise RuntimeError('one\\ntwo')", "RuntimeError: one"),
    "an exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "nothing in it": (PLAIN, "plugin: own_bad registers no operator"),
    "a taken name": (HALVE.replace("halve", "psconv"), "an operator named 'psconv' is registered already"),
    "a bad kind": (HALVE.replace("recalibration", "gate"), "'gate' is not a kind of operator; allowed: conv"),
    "no kind": (PLAIN + "nr.register('x')(print)", "TypeError: register() missing 1 required"),
    "a bad name": (HALVE.replace("halve", "Halve"), "an operator cannot be named 'Halve'"),
    "no channels": (HALVE.replace("channels,", "width,"), "halve: a block builds a recalibration from (chan"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("command", [SEARCH, ["cost", "halve"], ["train", "best.yaml", "--data=digits"]])
def test_a_plugin_that_cannot_be_loaded_gets_one_line_and_status_2(here, error_line, case, command):
    content, message = BAD[case]
    if content is not None:
        (here / "own_bad.py").write_text(content)
    before = sorted(here.glob("*.*"))
    assert run([*command, "--plugin", "own_bad"]) == 2
    line = error_line()
    assert line.startswith("error: plugin: own_bad ")
    assert message in line
    assert sorted(here.glob("*.*")) == before


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("none.py", "none.py cannot be loaded: FileNotFoundError"),
        ("lib/json.py", "another module named 'json' is loaded already; rename the file"),
        ("json", "json registers no operator"),
        ("", "cannot be loaded: ValueError: Empty module name"),
        ("..up", "..up cannot be loaded: TypeError"),
    ],
)
def test_a_path_must_be_that_of_a_plugin(here, plugin, message, error_line, monkeypatch):
    if plugin == "json":
        monkeypatch.delitem(sys.modules, "json")  # as in a process that has not needed it yet
    (here / "lib").mkdir()
    (here / "lib" / "json.py").write_text(HALVE)
    assert run(["cost", "vanilla", "--plugin", plugin]) == 2
    assert message in error_line()


def test_an_operator_that_fails_in_a_block_gets_one_line(here, error_line):
    (here / "own_failing.py").write_text(
        HALVE.replace("halve", "failing").replace("x / 2", "x.no_such_thing")
    )
    (here / "tiny.yaml").write_text(SPACE.replace("halve", "failing"))
    assert run([*SEARCH, "--plugin", "own_failing"]) == 2
    line = error_line()
    assert "tiny.yaml: layer1.0: vanilla+failing fails in a block: AttributeError" in line
    assert "no_such_thing" in line


def install(site, package, module, content):
    """Install a package whose entry point names its module, as pip would."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nas_recalib.operators]\nany = {module}\n")
    (site / f"{module}.py").write_text(content)


def test_installed_plugins_join_by_themselves(here, forget, monkeypatch, capsys):
    install(here / "site", "own-third", "own_third", HALVE.replace("halve", "third"))
    (here / "third.yaml").write_text(SPACE.replace("halve", "third"))
    monkeypatch.syspath_prepend(here / "site")
    assert run(["cost", "--space", "third.yaml"]) == 0
    forget()
    monkeypatch.syspath_prepend(here / "site")
    assert nr.SearchSpace.load("third.yaml").count() == 3**3
    forget()
    monkeypatch.syspath_prepend(here / "site")
    nr.Architecture.of("resnet20", "third").save("third-best.yaml")
    assert run(["cost", "third-best.yaml"]) == 0


def test_a_broken_installed_plugin_is_named_with_its_package(here, monkeypatch, error_line):
    install(here / "site", "own-broken", "own_broken", "1 / 0")
    monkeypatch.syspath_prepend(here / "site")
    message = "own_broken of the installed package own-broken cannot be loaded: ZeroDivisionError"
    assert run(["cost", "vanilla"]) == 2
    assert message in error_line()
    with pytest.raises(InputError, match=message):
        nr.Architecture.of("resnet20", "vanilla")


def test_the_command_finds_a_module_of_the_current_directory(here):
    """The installed command's own path does not begin with it."""
    program = "import sys; sys.path.remove(''); from nas_recalib.cli import main; main()"
    command = [sys.executable, "-c", program, "cost", "halve", "--space", "resnet20", "--plugin", "own_halve"]
    root = {**os.environ, "PYTHONPATH": str(Path(nr.__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all halve: 40,813,184 MACs" in done.stdout
