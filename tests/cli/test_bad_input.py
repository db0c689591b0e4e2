"""Bad input gets one clear line and exit status 2, and no file is written."""

import pytest
from commands import SPACE
from inputs import LATENCY, QUICK, TINY, edited, pictures

from nas_recalib.cli import run

BAD_INPUT = {
    "no such space": (
        ["search", "--space", "resnet51"],
        "unknown space 'resnet51'; allowed: ablation",
    ),
    "no such space file": (["search", "--space", "no.yaml"], "no.yaml: cannot be read"),
    "no space": (["search"], "--space"),
    "no quantity": (["search", "--space", "resnet50", "--budget", "4X"], "'4X' is not a quantity"),
    "too little": (["search", "--space", "resnet50", "--budget", "1G"], "the least possible cost, 3.732G"),
    "too few": (["search", "--space", "resnet50", "--params", "1M"], "the least possible cost, 25.557M"),
    "no such data": (["search", "--space", "tiny.yaml", "--data", "mnist"], "unknown set 'mnist'; allowed"),
    "no such device": (["search", "--space", "tiny.yaml", "--device", "tpu9"], "device: 'tpu9'"),
    "no such strategy": (
        ["search", "--space", "tiny.yaml", "--data", "digits", "--strategy", "x"],
        "strategy: unknown 'x'; allowed: random, tpe",
    ),
    "no such folder": (["search", "--space", "tiny.yaml", "--data", "folder:none"], "is not a folder"),
    "no train part": (["search", "--space", "tiny.yaml", "--data", "folder:bare"], "no folder train/"),
    "empty folder": (["search", "--space", "tiny.yaml", "--data", "folder:empty"], "no images"),
    "one class": (["search", "--space", "tiny.yaml", "--data", "folder:single"], "has one class, 'a'"),
    "bad resolution": (
        ["search", "--space", "tiny.yaml", "--data", "digits", "--resolution", "2"],
        "resolution: 2",
    ),
    "too many images": (
        [*TINY, "--images", "9999"],
        "images: 9999 is more",
    ),
    "too many pixels": (
        [*TINY, "--resolution", "100000"],
        "at most 512",
    ),
    "too many threads": ([*TINY, "--threads", "99999"], "threads: 99999"),
    "a seed that is too large": ([*TINY, "--seed", str(2**64)], "--seed"),
    "a budget that is too large": (["cost", "--budget", "1e99"], "'1e99' is not a quantity"),
    "not a number": ([*TINY, "--width", "nan"], "width: nan"),
    "an infinite width": ([*TINY, "--width", "inf"], "width: inf"),
    "an operator that does not fit the scaled network": (
        ["search", "--space", "misfit.yaml", *QUICK],
        "layer1.0: psconv: in_channels = 8",
    ),
    "huge images": (["search", "--space", "huge.yaml"], "input_size: input should be less than or equal"),
    "nested options": (["search", "--space", "nested.yaml"], "overrides"),
    "a name that is too long": (["search", "--space", "tiny.yaml", "--study", "s" * 300], "is not a name"),
    "a storage in memory": (
        [*TINY, "--storage", "sqlite://"],
        "is in memory and lost",
    ),
    "a missing storage": (["show", "s", "--storage", "sqlite:///new.db"], "there is no 's'"),
    "the home of an unknown user": (
        ["search", "--space", "tiny.yaml", "--data", "folder:~no-such-user/x"],
        "cannot be read",
    ),
    "a folder as output file": (["export", "none", "-o", "."], "there is no 'none'"),
    "no such paper": (
        ["tables", "--paper", "resnet"],
        "'resnet' is not one of scnet, psconv, ms-sar, booster",
    ),
    "an endless choice": (["cost", "x" * 5000], "unknown operator"),
    "name of a study": (["search", "--space", "tiny.yaml", "--study", "../up"], "'../up' is not a name"),
    "no such study": (["show", "none"], "there is no 'none'"),
    "no such study to export": (["export", "none"], "there is no 'none'"),
    "no such option": (["search", "--spice", "x"], "--spice"),
    "no trials": (["search", "--space", "tiny.yaml", "--trials", "0"], "--trials"),
    "no such command": (["serach"], "serach"),
    "unreachable storage": (
        ["search", "--space", "tiny.yaml", "--data", "digits", "--storage", "sqlite:////no/such/folder/s.db"],
        "storage:",
    ),
    "no such storage": (
        ["show", "s", "--storage", "nonsense"],
        "storage: the given URL cannot be used",
    ),
    "secret storage": (
        ["show", "s", "--storage", "postgresql://me:secret@127.0.0.1:1/db"],
        "storage: postgresql://me:***@127.0.0.1:1/db cannot be used",
    ),
    "runs not writable": (
        [*TINY, "--runs-dir", "tiny.yaml"],
        "cannot be written",
    ),
    "wrong key": (
        ["search", "--space", "wrong_key.yaml"],
        "unknown key 'backbones'; allowed: format, name, backbone",
    ),
    "list for a name": (["search", "--space", "list.yaml"], "backbone: "),
    "unknown operator": (["search", "--space", "operator.yaml"], "convolution: unknown convolution 'ps'"),
    "unknown argument": (
        ["search", "--space", "argument.yaml"],
        "psconv takes no argument 'r'; allowed: pattern",
    ),
    "impossible argument": (["search", "--space", "impossible.yaml"], "convolution: scconv: r = 0"),
    "unknown block": (["cost", "block.yaml"], "resnet20 has no block 'layer9.9'"),
    "missing block": (["cost", "missing.yaml"], "no choice for the block 'layer1.0'"),
    "edited cost": (
        ["train", "edited.yaml", "--data", "digits"],
        "cost.macs is 1, but its blocks cost 40813184",
    ),
    "no such choice": (["cost", "psconvv"], "unknown operator 'psconvv'"),
    "no such recipe": (
        ["train", "fine.yaml", "--data", "digits", "--recipe", "step90"],
        "step100, cosine120",
    ),
    "no such set": (["bench", "--set", "layer"], "set: 'layer' is not one of layers, blocks, networks, all"),
    "no such sizes": (["bench", "--sizes", "big"], "sizes: 'big' is not one of imagenet, cifar, all"),
    "no such mode": (["bench", "--mode", "both"], "mode: 'both' is not one of forward, train"),
    "no such type": (["bench", "--dtype", "int8"], "dtype: 'int8' is not one of float32, bfloat16"),
    "no such format": (["bench", "--memory-format", "x"], "memory-format: 'x' is not one of channels_last"),
    "no batch": (["bench", "--batch-size", "0"], "--batch-size"),
    "no time": (["bench", "--seconds", "nan"], "seconds: nan is not"),
    "no such device to time": (["bench", "--device", "tpu9"], "device: 'tpu9' does not exist here"),
    "cores nobody has to time": (["bench", "--threads", "99999"], "threads: 99999 is not from 1 to"),
    "no such choice to time": (["bench", "--choice", "psconvv"], "choice: unknown operator 'psconvv'"),
    "a gate alone": (["bench", "--set", "layers", "--choice", "ab"], "vanilla+ab recalibrates a block"),
    "a misfit to time": (
        ["bench", "--sizes", "cifar", "--choice", "ab(groups=3)"],
        "ab: groups = 3 is not a divisor",
    ),
    "no place for timings": (["bench", "-o", "no/such/folder.json"], "cannot be written: No such file"),
    "latencies without a limit": (
        ["search", "--space", "tiny.yaml", "--latency-table", "t.json"],
        "latency-table: has no effect without a limit",
    ),
    "a batch without a limit": (
        ["search", "--space", "tiny.yaml", "--batch", "8"],
        "batch: has no effect without a limit",
    ),
    "a latency without a unit": (["search", "--space", "tiny.yaml", "--latency", "5"], "latency: '5' is not"),
    "memory without a unit": (
        ["search", "--space", "tiny.yaml", "--memory", "3"],
        "memory: '3' is not a size",
    ),
    "no such space to time": (["latency", "--space", "resnet51"], "unknown space 'resnet51'"),
    "no such device for a table": ([*LATENCY, "--device", "tpu9"], "device: 'tpu9' does not exist here"),
    "no such type for a table": ([*LATENCY, "--dtype", "int8"], "dtype: 'int8' is not one of"),
    "no batch for a table": ([*LATENCY, "--batch", "0"], "--batch"),
    "too few rounds": (
        [*LATENCY, "--rounds", "5"],
        "rounds: 5 is not from 6 (so that every choice is timed)",
    ),
    "endless rounds": ([*LATENCY, "--rounds", "900000000"], "rounds: 900000000 is not from 6"),
    "no place for a table": ([*LATENCY, "-o", "no/such/folder.json"], "cannot be written: No such file"),
    "a folder for a table": ([*LATENCY, "-o", "bare"], "bare: cannot be written: not a regular file"),
    "a foreign table": ([*LATENCY, "-o", "tiny.yaml"], "tiny.yaml: not JSON"),
    "no such table": (
        [*TINY, "--latency", "9ms", "--latency-table", "no.json"],
        "error: no.json: cannot be read: No such file",
    ),
    "one class to train on": (["train", "fine.yaml", "--data", "folder:single"], "has one class"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_status_2_and_writes_no_files(here, capsys, case):
    arguments, named = BAD_INPUT[case]
    (here / "bare").mkdir()
    (here / "empty" / "train").mkdir(parents=True)
    pictures(here / "single" / "train", ["a"])
    for name, old, new in (
        ("wrong_key", "backbone:", "backbones:"),
        ("list", "resnet20", "[resnet20]"),
        ("operator", "psconv", "ps"),
        ("argument", "psconv", "psconv(r=2)"),
        ("impossible", "psconv", "scconv(r=0)"),
        ("misfit", "psconv", "psconv(pattern=1-2-3-4-1-2-3-5-1-2-3-4-1-2-3-6)"),
        ("huge", "granularity", "input_size: 10000000000\ngranularity"),
        ("nested", "granularity", "overrides: {convolution: {foo: 1}}\ngranularity"),
    ):
        (here / f"{name}.yaml").write_text(SPACE.replace(old, new))
    edited(here, "fine.yaml")
    edited(here, "block.yaml", **{"layer1.0": "layer9.9"})
    edited(here, "missing.yaml", **{"  layer1.0: vanilla\n": ""})
    edited(here, "edited.yaml", **{"macs: 40813184": "macs: 1"})
    before = sorted(here.rglob("*"))

    assert run(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    lines = [line for line in streams.err.splitlines() if not line.startswith(("study ", "data: "))]
    assert len(lines) == 1, streams.err
    assert lines[0].startswith("error: ")
    assert named in lines[0]
    assert "secret" not in streams.err
    if case != "unreachable storage":  # its lock folder is made before the storage is opened
        assert sorted(here.rglob("*")) == before
