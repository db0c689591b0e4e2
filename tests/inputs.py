"""What commands are given: the smallest of searches, pictures, and edited architecture files."""

import numpy as np
from PIL import Image

from nas_recalib.architecture import Architecture
from nas_recalib.cli import run

QUICK = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--epochs=1"]
TINY = ["search", "--space", "tiny.yaml", *QUICK]
LATENCY = ["latency", "--space", "tiny.yaml", "--device", "cpu", "--threads", "1", "--seconds", "0.01"]


def search(*arguments):
    return run([*TINY, *arguments])


def pictures(folder, classes, each=2):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(each):
            Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(folder / name / f"{index}.png")


def edited(here, name, **changes):
    """An architecture file with lines replaced: {"layer1.0: vanilla": "layer9.9: vanilla"}."""
    Architecture.of("resnet20", "vanilla").save(here / name)
    text = (here / name).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (here / name).write_text(text)
