"""Images that cannot be decoded and files that are no images, in whatever command reads them."""

from pathlib import Path

import pytest
from inputs import edited, pictures, search

from nas_recalib.cli import run
from nas_recalib.correlation import run as correlation_run
from nas_recalib.errors import StopSearch

HIDDEN = "data: ignored hidden files and folders: 1, such as train/.ipynb_checkpoints"


@pytest.fixture
def spoilt(here):
    """Two classes of 30 pictures, of which twelve are not."""
    pictures(here / "own" / "train", "ab", each=30)
    broken = sorted((here / "own" / "train" / "a").iterdir())[::3] + [
        here / "own" / "train" / "b" / f"{number}.png" for number in (5, 6)
    ]
    for path in broken:
        path.write_bytes(b"not a picture")
    return [str(path) for path in broken]


def search_own(*arguments):
    own = ("--data=folder:own", "--images=45", "--validation=15", "--cache-dir=cache")
    return search("--budget=40M", "--study=own", *own, *arguments, "--trials=1")


def test_corrupt_images_are_refused_by_name(spoilt, capsys):
    assert search_own() == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert any(line.startswith(f"error: {path}: not an image that can be decoded") for path in spoilt)
    assert "(and 11 more); --corrupt-images skip" in line
    assert not Path("runs").exists()


def test_corrupt_images_are_skipped_by_name_when_asked(spoilt, capsys):
    pictures(Path("own/train"), [".ipynb_checkpoints"])
    assert search_own("--corrupt-images=skip") == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("data: ")] == [HIDDEN]
    skipped = [line for line in lines if line.startswith("skipped ")]
    assert len(skipped) == 11
    assert len({path for path in spoilt for line in skipped if path in line}) == 10
    assert skipped[-1] == "skipped 2 more such images"
    assert search_own() == 0, "as the study has it"
    assert search_own("--corrupt-images=refuse") == 2
    assert search_own("--study=other") == 2, "nothing is left out unless asked"


def test_train_and_correlate_report_ignored_files_once_as_search_does(here, capsys, monkeypatch):
    pictures(here / "own" / "train", ["a", "b", ".ipynb_checkpoints"], each=20)
    edited(here, "fine.yaml")
    (here / "brief.yaml").write_text("images: 10\nvalidation: 10\nresolution: 8\nepochs: 1\n")
    training = ["train", "fine.yaml", "--data=folder:own", "--device=cpu", "--workers=0", "--batch-size=999"]
    assert run(training) == 2  # for the batch size, when the images are known
    first, last = capsys.readouterr().err.splitlines()
    assert (first, last.split(":")[:2]) == (HIDDEN, ["error", " batch_size"])

    def stop(*_, **__):
        raise StopSearch("enough")

    monkeypatch.setattr(correlation_run, "run", stop)
    brief = ["--reference=brief.yaml", "--fidelity=brief.yaml", "--score=none", "--architectures=3"]
    correlating = ["correlate", "--space=tiny.yaml", "--data=folder:own", "--within=20", *brief]
    assert run([*correlating, "--device=cpu", "--cache-dir=cache"]) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("data: ")] == [HIDDEN]
