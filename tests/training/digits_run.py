"""A training of a second or two: imported by tests, and started by them in processes of their own."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nas_recalib.architecture import Architecture
from nas_recalib.data.sources import ArrayImages, open_source
from nas_recalib.training.loop import train_full
from nas_recalib.training.recipe import Recipe

ARCHITECTURE = Architecture.of("resnet20", "psconv+ab")
RECIPE = Recipe("quick", epochs=3, schedule="step", milestones=(2,), batch_size=16, base_rate=1.6)
CPU = torch.device("cpu")


def first(images, count):
    return ArrayImages(images.pixels[:count], images.labels[:count])


def small_digits(train=64, held_out=33):
    whole = open_source("digits", Path())
    return replace(whole, train=first(whole.train, train), held_out=first(whole.held_out, held_out))


def train(out, **changed):
    settings = {
        "architecture": ARCHITECTURE,
        "source": small_digits(),
        "recipe": RECIPE,
        "device": CPU,
        "dtype": torch.float32,
        "input_size": 8,
    }
    return train_full(out=Path(out), **(settings | changed))


@dataclass(frozen=True, eq=False)
class InterruptedImages(ArrayImages):
    """Images of which only so many can be opened before something happens."""

    opened: list[int]
    limit: int
    then: object

    def open(self, index):
        self.opened.append(index)
        if len(self.opened) > self.limit:
            self.then()
        return super().open(index)


def interrupted_digits(limit, then):
    source = small_digits()
    return replace(source, train=InterruptedImages(source.train.pixels, source.train.labels, [], limit, then))
