"""`nas-recalib train`: what it prints where, what it refuses, and how it is interrupted."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from inputs import edited, pictures
from safetensors import safe_open

from nas_recalib.cli import run
from nas_recalib.data import sources
from nas_recalib.training import checkpoint
from nas_recalib.training.checkpoint import save_checkpoint

OPTIONS = "--epochs 2 --batch-size 16 --limit-batches 2 --input-size 8 --workers 0 --device cpu"


@pytest.fixture
def train(here):
    edited(here, "a.yaml")
    return lambda *arguments, data="digits": run(
        ["train", "a.yaml", "--data", data, *OPTIONS.split(), *arguments]
    )


def history(folder="runs/train-a"):
    return json.loads(Path(folder, "history.json").read_text())


def test_progress_is_on_stderr_and_the_result_on_stdout(train, capsys):
    assert train() == 0
    printed = capsys.readouterr()
    last = history()["epochs"][-1]
    accuracy = f"top-1 {last['top1']:.4f}, top-5 {last['top5']:.4f} on 32 of 355 held-out images"
    assert printed.out == f"wrote runs/train-a/weights.safetensors: last epoch 2, {accuracy}\n"
    assert [line.split(":")[0] for line in printed.err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert f"{accuracy}, " in printed.err
    assert not Path("runs/train-a/best.safetensors").exists()


def test_without_held_out_images_the_best_validated_epoch_is_written_too(train, here, capsys):
    pictures(here / "own" / "train", "ab", each=20)
    assert train(data="folder:own") == 0
    selected, result = capsys.readouterr().out.splitlines()
    best = max(history()["epochs"], key=lambda epoch: epoch["top1"])
    figures = f"top-1 {best['top1']:.4f}, biased upwards as it selected the epoch"
    assert selected == f"wrote runs/train-a/best.safetensors: best epoch {best['epoch']}, {figures}"
    assert result.startswith("wrote runs/train-a/weights.safetensors: last epoch 2, ")
    assert result.endswith(" on 4 validation images")
    with safe_open("runs/train-a/best.safetensors", "pt") as file:
        assert file.metadata()["epoch"] == str(best["epoch"])


def test_corrupt_images_are_refused_by_name_or_skipped_by_name_once_and_recorded(train, here, capsys):
    pictures(here / "own" / "train", "ab", each=20)
    pictures(here / "own" / "test", "ab", each=5)
    spoilt = [here / "own" / "train" / "a" / "7.png", here / "own" / "test" / "b" / "2.png"]
    for path in spoilt:
        path.write_bytes(b"not a picture")
    everything = ["--limit-batches", "9"]
    assert train(*everything, data="folder:own") == 2
    *_, line = capsys.readouterr().err.splitlines()  # after what is said of the folder
    assert line.startswith("error: ")
    assert line.endswith("; --corrupt-images skip leaves such images out")

    assert train(*everything, "--corrupt-images", "skip", data="folder:own") == 0
    printed = capsys.readouterr()
    named = [line for line in printed.err.splitlines() if line.startswith("skipped ")]
    assert len(named) == len(history()["skipped"]) == 2
    assert all(any(str(path) in line for line in named) for path in spoilt)
    assert printed.out.endswith(" on 9 of 10 held-out images\n")

    assert train(*everything, "--corrupt-images", "drop", data="folder:own") == 2
    assert "corrupt-images: unknown 'drop'; allowed: refuse, skip" in capsys.readouterr().err


def test_sigterm_is_one_line_and_the_same_command_resumes(train, capsys, monkeypatch):
    def save_and_be_interrupted(*arguments):
        save_checkpoint(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # which does not disturb the clean-up

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(checkpoint, "save_checkpoint", save_and_be_interrupted)
        assert train() == 130
    assert capsys.readouterr().err == "interrupted: run the same command again to resume\n"
    assert signal.getsignal(signal.SIGTERM) == before
    assert train() == 0
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["epoch 2/2"]


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("a.yaml", "a.yaml: cannot be created as a folder: File exists"),
        ("a.yaml/below", "a.yaml/below: cannot be created as a folder: Not a directory"),
        ("/proc", "/proc: cannot be written: "),
        ("other", "other/checkpoint.pt: damaged, or not a checkpoint; "),
        ("weights", "weights/weights.safetensors: there is no checkpoint.pt beside it to resume from; "),
    ],
)
def test_an_unusable_output_folder_is_one_line_and_no_file_changes(train, here, capsys, output, named):
    for name in ("other/checkpoint.pt", "weights/weights.safetensors"):
        (here / name).parent.mkdir()
        (here / name).write_text("mine")
    before = {path: path.is_file() and path.read_bytes() for path in here.rglob("*")}
    assert train("-o", output) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"error: {named}")
    assert printed.out == ""
    assert {path: path.is_file() and path.read_bytes() for path in here.rglob("*")} == before


def test_other_settings_in_the_default_folder_are_refused_and_the_option_is_named(train, capsys):
    assert train() == 0
    before = Path("runs/train-a/checkpoint.pt").read_bytes()
    capsys.readouterr()
    for option, values in (
        (["--recipe", "cosine120"], "step100, asked for cosine120"),
        (["--seed", "1"], "0, asked for 1"),
        (["--limit-batches", "3"], "2, asked for 3"),
    ):
        assert train(*option) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {option[0]}: runs/train-a/checkpoint.pt was made with {values}; ")
    assert Path("runs/train-a/checkpoint.pt").read_bytes() == before


def test_the_data_set_that_auto_chose_is_named(train, capsys, monkeypatch):
    monkeypatch.setattr(sources, "_auto", lambda _: replace(sources._digits(), note="auto chose digits"))
    assert train("--batch-size", "9999", data="auto") == 2
    noted, refused = capsys.readouterr().err.splitlines()
    assert noted == "data: auto chose digits"
    assert refused == "error: batch_size: 9999 is more than the 1442 training images"


@pytest.mark.soak
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_is_one_line_of_the_program(here, sign, workers):
    """As a terminal or a cluster sends it, to the whole group; the traceback after it is torchrun's own."""
    edited(here, "a.yaml")
    launch = "-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2 -m nas_recalib"
    options = OPTIONS.replace("--epochs 2", "--epochs 99").replace("--workers 0", f"--workers {workers}")
    command = [sys.executable, *launch.split(), "train", "a.yaml", "--data=digits", *options.split()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not process.stderr.readline().startswith("epoch 2/99"):
            assert process.poll() is None
        os.killpg(process.pid, sign)
        said = process.communicate(timeout=60)[1]
    ours = [line for line in said.split("Traceback")[0].splitlines() if not line.startswith(("W", "epoch "))]
    assert ours == ["interrupted: run the same command again to resume"]
    assert "nas_recalib/" not in said
    assert len(history()["epochs"]) >= 2
