"""Made-up correlation studies: accuracies with known noise, and signals with a chosen amount of noise."""

from dataclasses import replace

import numpy as np

from nas_recalib.correlation.signals import Correlation, Signal

COUNT = 48
_CHOICES = ("vanilla", "scconv", "psconv", "vanilla+ab", "psconv+msar")
TRUTH = np.random.default_rng(0).standard_normal(COUNT)


def noisy(noise, seed):
    """The truth, with so many times its own spread of noise; higher is better."""
    return tuple(map(float, TRUTH + noise * np.random.default_rng((7, seed)).standard_normal(COUNT)))


def training(fidelity, epoch, noise, seconds, **changed):
    name, seed = f"{fidelity}, epoch {epoch}", sum(map(ord, fidelity)) + epoch
    signal = Signal(name, "training", noisy(noise, seed), seconds, fidelity, epoch)
    return replace(signal, **changed)


def score(name, noise, seconds=0.02):
    return Signal(name, "score", noisy(noise, sum(map(ord, name))), seconds)


def baseline(name, noise):
    return Signal(name, "baseline", noisy(noise, sum(map(ord, name))), 0.0)


def architecture(number):
    indices = np.random.default_rng(number).integers(0, len(_CHOICES), 9)
    blocks = (f"layer{1 + i // 3}.{i % 3}={_CHOICES[index]}" for i, index in enumerate(indices))
    return f"resnet20@32/10 {' '.join(blocks)}"


def correlation(*signals, seeds=3, noise=0.3, **changed):
    drawn = np.random.default_rng(11).standard_normal((COUNT, seeds))
    runs = 0.6 + 0.02 * (TRUTH[:, None] + noise * drawn)
    whole = {
        "study": "a study",
        "space": "resnet20",
        "budget": "41.000M MACs",
        "data": "digits",
        "device": "cpu",
        "commands": ("nas-recalib correlate --space resnet20",),
        "seed": 0,
        "architectures": tuple(map(architecture, range(COUNT))),
        "macs": tuple(40_800_000 + 13 * i for i in range(COUNT)),
        "params": tuple(270_000 + 7 * i for i in range(COUNT)),
        "reference": {"images": None, "validation": 360, "resolution": 16, "width": 1.0, "epochs": 30},
        "reference_seconds": 120.0,
        "runs": tuple(map(tuple, runs.tolist())),
        "signals": signals,
    }
    return Correlation(**{**whole, **changed})
