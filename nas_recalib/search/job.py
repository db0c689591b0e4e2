"""Training of one trial, resumed from its last checkpoint, in this process or on another machine."""

import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.proxy.evaluation import State
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.checkpoints import Checkpoints


@dataclass(frozen=True)
class Job:
    """A training to run.

    Attributes:
        number: Number of the trial.
        architecture: Architecture to train.
        resumed_from: Numbers of the trials whose training it continues, the latest first.
        micro_batches: Number of micro-batches that each batch is split into (gradient accumulation).
    """

    number: int
    architecture: Architecture
    resumed_from: tuple[int, ...] = ()
    micro_batches: int = 1


@dataclass(frozen=True)
class Step:
    """Result of an epoch.

    Attributes:
        epoch: Number, loss and accuracy of the epoch.
        seconds: Seconds of training so far, with those of the trials that it was resumed from.
        restored: Whether the epoch comes from a checkpoint and was not trained now.
    """

    epoch: Epoch
    seconds: float
    restored: bool = False


def train(proxy: Proxy, job: Job, checkpoints: Checkpoints) -> Iterator[Step | Failure]:
    """Train an architecture from its last checkpoint on, with a new checkpoint before each epoch is reported.

    Yields:
        The result of every epoch, those before the checkpoint first; a failure in place of the next one.
    """
    start = time.monotonic()
    origin = {"course": proxy.fingerprint, "architecture": str(job.architecture)}
    try:
        state = _last_state(origin, job, checkpoints)
        if state:
            checkpoints.save(job.number, state)  # those of earlier trials are dropped when this one ends
        before: float = state["seconds"] if state else 0.0
        for values in state["curve"] if state else ():
            yield Step(Epoch(*values), before, restored=True)
        steps = proxy.steps(job.architecture, state["training"] if state else None, job.micro_batches)
        for training in steps:
            if isinstance(training, Failure):
                yield training
                return
            epoch = training.curve[-1]
            seconds = before + time.monotonic() - start
            if epoch.number < proxy.epochs:
                curve = [astuple(step) for step in training.curve]
                progress = {"seconds": seconds, "curve": curve, "training": training.state_dict()}
                checkpoints.save(job.number, {**origin, **progress})
            yield Step(epoch, seconds)
    except InputError as error:
        yield Failure("checkpoint", str(error))


def _last_state(origin: dict[str, str], job: Job, checkpoints: Checkpoints) -> State | None:
    """Return the latest checkpoint of the trials to resume, ignoring files that another study left."""
    for number in job.resumed_from:
        state = checkpoints.load(number)
        if state is not None and origin.items() <= state.items():
            return state
    return None
