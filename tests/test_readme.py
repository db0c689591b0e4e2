"""Claims of the README."""

import re
from pathlib import Path

import pytest

from nas_recalib.cli import run
from nas_recalib.operators.catalog import names, parse_part
from nas_recalib.space import SearchSpace

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example, *_ = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "mine.yaml").is_file()


def test_the_example_of_a_backbone_runs():
    _, example, _ = blocks("python")
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    strides = {key: 64 // m.shape[-1] for key, m in names["maps"].items()}
    assert strides == {"0": 4, "1": 8, "2": 16, "3": 32}
    assert set(names["detector"].eval()([names["image"]])[0]) == {"boxes", "labels", "scores"}


def test_the_example_space_loads(tmp_path):
    (example,) = blocks("yaml")
    (tmp_path / "my.yaml").write_text(example)
    assert SearchSpace.load(tmp_path / "my.yaml").count() == 3**13 * 9**3


def test_ones_own_operator_is_checked_and_searched(tmp_path, monkeypatch, forget, capsys):
    monkeypatch.chdir(tmp_path)
    *_, example = blocks("python")
    (tmp_path / "my_ops.py").write_text(example)
    (options,) = re.findall(r"`(recalibration: \[.*?\])` in `my.yaml`", README)
    space = "name: my\nbackbone: resnet20\ngranularity: network\nconvolution: [vanilla]\n"
    (tmp_path / "my.yaml").write_text(f"{space}{options}\n")
    check, search = blocks("sh")[-1].splitlines()
    (program,) = re.fullmatch('python -c "(.*)"', check).groups()
    monkeypatch.syspath_prepend(tmp_path)
    exec(program, {})
    number = int(re.search(r"([0-9]+) checks\) and names", README)[1])
    assert capsys.readouterr().out.startswith(f"gate passes {number - 1} checks; not run: groups (only")
    forget()
    quick = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--epochs=1", "--width=0.5"]
    assert run([*search.split()[1:], *quick]) == 0
    assert "gate(level=2)" in capsys.readouterr().out


def test_the_table_of_operators_has_every_operator_with_its_defaults():
    rows = re.findall(r"^\| (`.*?`) \|", README, re.M)
    written = [text for row in rows for text in re.findall(r"`([a-z-]+(?:\([^`]*\))?)`", row)]
    listed = [text.split("(")[0] for text in written]
    for kind in ("convolution", "recalibration"):
        assert set(names(kind)) <= set(listed)
        for text in written:
            if text.split("(")[0] in names(kind) and "..." not in text:
                assert str(parse_part(text, kind)) == text.split("(")[0], "these are the defaults"


@pytest.mark.parametrize(
    "line", [line for line in blocks("sh")[2].splitlines() if line.startswith("nas-recalib")]
)
def test_the_commands_are_the_command_lines(line, capsys):
    words = line.split("#")[0].split()[1:]
    assert run([words[0], "--help"]) == 0
    output = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in output


def test_the_first_two_shell_blocks_are_one_line_each():
    first, second = blocks("sh")[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert "nas-recalib search --space resnet50 --budget 4G" in first
    assert "pytest" in second
