"""One training as it is handed out, wherever it runs."""

import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Epoch, State, Training
from nas_recalib.search.checkpoints import Checkpoints


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        number: Of its trial.
        architecture: Which.
        after: Numbers of the trials whose training it goes on with, the last first.
        parts: That each batch is split into.
    """

    number: int
    architecture: Architecture
    after: tuple[int, ...] = ()
    parts: int = 1


@dataclass(frozen=True)
class Step:
    """What an epoch came to.

    Attributes:
        epoch: Its number, loss and accuracy.
        seconds: Trained so far, with what was gone on from.
        restored: Whether it was not trained now but comes from a checkpoint.
    """

    epoch: Epoch
    seconds: float
    restored: bool = False


def train(proxy: Proxy, job: Job, checkpoints: Checkpoints) -> Iterator[Step | Failure]:
    """Trains from the last checkpoint on; one is kept before an epoch is told, so that what is told is safe.

    Yields:
        The epochs, those before the checkpoint first; instead of the next one, why there is none.
    """
    begun = time.monotonic()
    try:
        state = _last_state(proxy, job, checkpoints)
        if state:
            checkpoints.save(job.number, state)  # its own, for its forerunners' are dropped when it ends
        before: float = state["seconds"] if state else 0.0
        for told in state["curve"] if state else ():
            yield Step(Epoch(*told), before, restored=True)
        for training in proxy.steps(job.architecture, state["training"] if state else None, job.parts):
            if isinstance(training, Failure):
                yield training
                return
            epoch = training.curve[-1]
            seconds = before + time.monotonic() - begun
            if epoch.number < proxy.epochs:
                checkpoints.save(job.number, _kept(proxy, job, training, seconds))
            yield Step(epoch, seconds)
    except InputError as error:
        yield Failure("checkpoint", str(error))


def _last_state(proxy: Proxy, job: Job, checkpoints: Checkpoints) -> State | None:
    """The youngest of its forerunners'; what an older study left under their numbers is none of its."""
    mine = {"course": proxy.fingerprint, "architecture": str(job.architecture)}
    for number in job.after:
        state = checkpoints.load(number)
        if state is not None and mine.items() <= state.items():
            return state
    return None


def _kept(proxy: Proxy, job: Job, training: Training, seconds: float) -> State:
    return {
        "course": proxy.fingerprint,
        "architecture": str(job.architecture),
        "seconds": seconds,
        "curve": [astuple(epoch) for epoch in training.curve],
        "training": training.state_dict(),
    }
