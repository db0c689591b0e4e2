"""Started by torchrun: trains into the given folder, and leaves there what each process holds."""

import shutil
import sys
from pathlib import Path

import torch
from digits_run import ARCHITECTURE, CPU, small_digits, train

from nas_recalib.architecture import build
from nas_recalib.data.streaming import open_stream
from nas_recalib.errors import InputError
from nas_recalib.training.distributed import join_world
from nas_recalib.training.epoch import evaluate, train_epoch


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


def main(out):
    torch.set_num_threads(1)
    calls = []

    def copy_after_first(result):
        calls.append(result.epoch)
        if result.epoch == 1:
            shutil.copytree(out / "whole", out / "resumed")

    with join_world(CPU) as world:
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
            "sum": world.sum(torch.tensor([1, world.rank])).tolist(),
        }
        torch.save(left, out / f"process{world.rank}.pt")


main(Path(sys.argv[1]))
