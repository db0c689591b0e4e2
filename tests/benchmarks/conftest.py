"""How benchmarks are run in their tests."""

import argparse
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(FOLDER))


@pytest.fixture
def benchmark(monkeypatch, capsys):
    """Runs a script here, as in a process of its own, whose start would take longer."""

    def run(name, *options):
        monkeypatch.setattr(sys, "argv", [str(FOLDER / name), *map(str, options)])
        monkeypatch.syspath_prepend(FOLDER)
        status = 0
        try:
            runpy.run_path(str(FOLDER / name), run_name="__main__")
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        if isinstance(status, str):  # which Python prints on its way out
            status, said = 1, said._replace(err=f"{said.err}{status}\n")
        return argparse.Namespace(returncode=status, stdout=said.out, stderr=said.err)

    return run
