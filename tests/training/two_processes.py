"""Started by torchrun: trains into the given folder, and leaves there what each process holds."""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from digits_run import ARCHITECTURE, CPU, small_digits, train
from PIL import Image

from nas_recalib import cli
from nas_recalib.architecture import build
from nas_recalib.data.streaming import open_stream
from nas_recalib.errors import InputError
from nas_recalib.training import loop
from nas_recalib.training.distributed import join_world
from nas_recalib.training.loop import evaluate, train_epoch


def refuse():
    raise InputError("no")


def refused(world):
    try:
        world.from_main(refuse)
    except InputError as error:
        return str(error)


def train_by_hand(world):
    """One epoch; the network's state and the evaluation's counts."""
    network = build(ARCHITECTURE, seed=0)
    optimizer = torch.optim.SGD(network.parameters(), momentum=0.9)
    stream = open_stream(small_digits(), 8, 8, seed=0, rank=world.rank, world_size=world.size)
    rates = [0.1] * len(stream.train)
    settings = {"dtype": torch.float32, "world": world}
    replica = world.replicate(network)
    loss = train_epoch(replica, optimizer, stream.training(0), rates, label_smoothing=0.1, **settings)
    world.average_buffers(network)
    return network.state_dict(), loss, evaluate(network, stream.evaluation(), **settings)


def write_pictures(out):
    """Two classes of ten pictures, one of which cannot be decoded."""
    ARCHITECTURE.save(out / "a.yaml")
    for name in "ab":
        (out / "pictures" / "train" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.full((8, 8, 3), number, np.uint8)
            Image.fromarray(pixels).save(out / "pictures" / "train" / name / f"{number}.png")
    (out / "pictures" / "train" / "a" / "3.png").write_bytes(b"not a picture")


def train_by_command(out):
    """The statuses of a command that is interrupted in its second epoch, and of the same command again."""
    evaluated, evaluate_really = [], loop.evaluate

    def evaluate_and_be_interrupted(*args, **kwargs):
        evaluated.append(evaluate_really(*args, **kwargs))
        if len(evaluated) == 2:
            for sign in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):  # the terminal's, and torchrun's
                os.kill(os.getpid(), sign)
        return evaluated[-1]

    options = (
        "--corrupt-images skip --epochs 3 --batch-size 8 --input-size 8 --workers 0 --device cpu --seed 1"
    )
    command = f"train {out}/a.yaml --data folder:{out}/pictures -o {out}/commanded {options}".split()
    loop.evaluate = evaluate_and_be_interrupted
    return [cli.run(command), cli.run(command)]


def main(out):
    torch.set_num_threads(1)
    calls = []

    def copy_after_first(result):
        calls.append(result.epoch)
        if result.epoch == 1:
            shutil.copytree(out / "whole", out / "resumed")

    with join_world(CPU) as world:
        with world.main_first():
            if world.is_main:
                write_pictures(out)
        whole = train(out / "whole", progress=copy_after_first)
        resumed = train(out / "resumed")
        state, loss, counts = train_by_hand(world)
        with world.main_first():
            order = sorted(path.name for path in out.glob("saw-*"))
            (out / f"saw-{world.rank}").touch()
        left = {
            "order": order,
            "calls": calls,
            "histories": [[vars(result) for result in history] for history in (whole, resumed)],
            "state": state,
            "loss": loss,
            "counts": vars(counts),
            "refused": refused(world),
            "statuses": train_by_command(out),
            "sum": world.sum(torch.tensor([1, world.rank])).tolist(),
        }
        torch.save(left, out / f"process{world.rank}.pt")


main(Path(sys.argv[1]))
