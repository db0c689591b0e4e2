"""Trainer of the reference set: ResNet-20 networks on CIFAR-10, close to convergence.

    python benchmarks/reference/train_reference.py --data folder:/data/cifar10

Run the same command again to resume after an interruption; a training that was interrupted continues after
its last epoch, and none is done twice. Every epoch keeps accuracy and loss of raw and of averaged weights.
"""

import argparse
import io
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from reference.networks import Network, reference_networks, trainings
from tabular.journal import Journal, commit, open_journal

from nas_recalib.cli.output import cache_folder
from nas_recalib.data import open_source
from nas_recalib.device import default_threads, device_name, keep_freed_memory, pick_device, versions
from nas_recalib.errors import InputError
from nas_recalib.files import write_atomically
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Training, default_recipe
from nas_recalib.proxy.trainer import Loader
from nas_recalib.report.terminal import duration
from nas_recalib.space import SearchSpace

HERE = Path(__file__).parent
FIDELITY = Fidelity(images=20_000, validation=10_000, resolution=16, width=1.0, epochs=15)
DTYPE = torch.float32  # on every device, so that all trainings can be compared


def train_all(arguments: argparse.Namespace, journal: Journal, proxy: Proxy) -> None:
    """Train what the journal lacks, one training after the other."""
    device = proxy.data.train_images.device
    origin = {
        "device": device_name(device, arguments.threads),
        "versions": versions(),
        "commit": commit(),
    }
    done = {(row["network"], row["seed"]) for row in journal.rows}
    networks = reference_networks(SearchSpace.load("resnet20"))
    missing = [one for one in trainings(networks) if (one[0].name, one[1]) not in done]
    say(f"{len(done)} trainings are done, {len(missing)} are left; {origin['device']}")
    for count, (network, seed) in enumerate(missing, start=1):
        begun = time.monotonic()
        row = train(network, replace(proxy, seed=seed), arguments.journal)
        journal.add({**row, "origin": origin})
        left = (time.monotonic() - begun) * (len(missing) - count)
        end = f"accuracy {row['accuracies'][-1]:.4f}, loss {row['val_losses'][-1]:.4f}"
        say(f"{count}/{len(missing)}: {network.name}, seed {seed}: {end}; about {duration(left)} left")


def train(network: Network, proxy: Proxy, journal: Path) -> dict[str, Any]:
    """Train a network with a seed, from its checkpoint beside the journal on, if there is one.

    Returns:
        The row of the journal, without the origin.

    Raises:
        InputError: If the training fails.
    """
    path = journal.with_name(f"{journal.stem}-{network.name}-{proxy.seed}.pt")
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True) if path.exists() else None
    if state is not None and state["proxy"] != f"{proxy.fingerprint} {network.architecture}":
        state = None  # of other options
    before = state["seconds"] if state else 0.0
    begun, curve = time.process_time(), []
    for step in proxy.steps(network.architecture, state["training"] if state else None):
        if isinstance(step, Failure):
            raise InputError(f"{network.name}, seed {proxy.seed}: {step.message}")
        seconds, curve = before + time.process_time() - begun, step.curve
        keep_checkpoint(path, step, f"{proxy.fingerprint} {network.architecture}", seconds)
    path.unlink()
    return {
        "network": network.name,
        "group": network.group,
        "architecture": str(network.architecture),
        "seed": proxy.seed,
        "losses": [round(epoch.loss, 5) for epoch in curve],
        "accuracies": [round(epoch.accuracy, 6) for epoch in curve],
        "val_losses": [round(epoch.val_loss or 0.0, 5) for epoch in curve],
        "raw_accuracies": [round(epoch.raw[0], 6) for epoch in curve if epoch.raw],
        "raw_val_losses": [round(epoch.raw[1], 5) for epoch in curve if epoch.raw],
        "cpu_seconds": round(seconds, 1),
    }


def keep_checkpoint(path: Path, training: Training, proxy: str, seconds: float) -> None:
    buffer = io.BytesIO()
    torch.save({"proxy": proxy, "seconds": seconds, "training": training.state_dict()}, buffer)
    write_atomically(path, buffer.getvalue())


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="as `nas-recalib search --data` takes it")
    parser.add_argument("--threads", type=int, default=default_threads(), help="CPU threads")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument(
        "--journal",
        type=Path,
        default=HERE / "resnet20.jsonl",
        help="trainings so far (default: benchmarks/reference/resnet20.jsonl)",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    try:
        device = pick_device(arguments.device)
        source = open_source(arguments.data, cache_folder(None))
        images = Loader(source.spec, cache_folder(None), "refuse", seed=0).load(FIDELITY)
        recipe = default_recipe(len(images.train_labels))
        header = {
            "space": SearchSpace.load("resnet20").describe(),
            "fidelity": FIDELITY.as_dict(),
            "recipe": vars(recipe),
            "dtype": str(DTYPE).removeprefix("torch."),
            "data": source.spec.partition(":")[0],
            "data_hash": source.fingerprint(),
            "split_hash": images.split,
        }
        proxy = Proxy(
            data=images.to(device),
            width=FIDELITY.width,
            epochs=FIDELITY.epochs,
            recipe=recipe,
            dtype=DTYPE,
            seed=0,
            with_raw=True,
        )
        with open_journal(arguments.journal, header) as journal:
            train_all(arguments, journal, proxy)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
