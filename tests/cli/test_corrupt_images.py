"""Images that cannot be decoded, in a search."""

from pathlib import Path

import pytest
from inputs import pictures, search


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
    assert search_own("--corrupt-images=skip") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped ")]
    assert len(told) == 11
    assert len({path for path in spoilt for line in told if path in line}) == 10
    assert told[-1] == "skipped 2 more such images"
    assert search_own() == 0, "as the study has it"
    assert search_own("--corrupt-images=refuse") == 2
    assert search_own("--study=other") == 2, "nothing is left out unless asked"
