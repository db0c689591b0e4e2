"""What a study's trials say: which count, how accurate they are, and which go on from one another."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
ACCURACY = "accuracy"  # the first objective of every search
ATTRIBUTES = {  # a trial's, that hold its costs
    "macs": "macs",
    "params": "params",
    "latency": "predicted_latency_ms",
    "memory": "memory",
}
CONTINUES = "continues"  # a trial's attribute: number of the trial whose training it goes on with
CURVE = "curve"  # where several objectives keep Optuna from taking accuracies after each epoch
TAKEN = "taken_from"  # study and number of the trial of another study that was taken over
REPLAYED = "replayed_from"  # number of the trial that answered this one
FAILURE = "failure"  # kind of a failed trial's failure
ATTEMPT = "attempt"  # how often, with this one, its training was begun or gone on with after a worker died
PARTS = "parts"  # that each batch is split into, where a whole one did not fit into memory
OUR_OWN = ("architecture", CONTINUES, CURVE, TAKEN, REPLAYED, FAILURE, "message", ATTEMPT, PARTS)
ENQUEUED = "fixed_params"  # a system attribute: Optuna's, of a trial that somebody enqueued
BEAT = "nas_recalib:beat"  # a system attribute: a count that its worker raises, and when it did last
WITHDRAWN: Final = "withdrawn"  # a kind of failure: another worker was first
OF_ITS_OWN = ("out-of-memory", "diverged", "abandoned")  # kinds that come from the architecture
_PASSING = ("interrupted", "lost", WITHDRAWN)  # kinds that say nothing of the architecture


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were really trained, to the end or until they were given up or left."""
    return finished_of(study.get_trials(deepcopy=False))


def finished_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """As `finished`, of trials at hand."""
    return _last((trial for trial in trials if trial.state in FINISHED), trials)


def standing(study: optuna.Study) -> list[FrozenTrial]:
    """As `finished`, and what is being trained in the place of what that goes on from.

    A training that failed for a reason of its own takes what it went on from along; an interrupted one, or
    one whose worker died, does not.
    """
    trials = study.get_trials(deepcopy=False)
    lasting = (trial for trial in trials if failure_of(trial) not in _PASSING)
    return [trial for trial in _last(lasting, trials) if trial.state in (*FINISHED, TrialState.RUNNING)]


def trained_here(study: optuna.Study) -> list[FrozenTrial]:
    """As `finished`, without what was begun in another study."""
    return trained_here_of(study.get_trials(deepcopy=False))


def trained_here_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return what `trained_here` does, for trials at hand."""
    first, taken = firsts(trials), taken_over(trials)
    return [trial for trial in finished_of(trials) if first(trial) not in taken]


def failure_of(trial: FrozenTrial) -> str | None:
    """Kind of a failed trial's failure; of another it may be written, where who wrote it got no further."""
    return trial.user_attrs.get(FAILURE, "error") if trial.state == TrialState.FAIL else None


def comes_back(trial: FrozenTrial) -> bool:
    """Whether a trial failed in a way after which its training is gone on with."""
    kind = failure_of(trial)
    if not trial.params or "architecture" not in trial.user_attrs or REPLAYED in trial.user_attrs:
        return False
    return kind in ("interrupted", "lost") or (kind == "out-of-memory" and PARTS not in trial.user_attrs)


def owed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Failed trainings that are to be gone on with: interrupted, lost with their workers, or short of memory.

    What ran out of memory is owed once: with each batch in two parts. Nothing is owed that a younger trial
    has trained without saying what it goes on with, as in older studies.
    """
    broken_off = [trial for trial in trials if trial.state == TrialState.FAIL and comes_back(trial)]
    if not broken_off:
        return []
    taken_up = {trial.user_attrs.get(CONTINUES) for trial in trials if failure_of(trial) != WITHDRAWN}
    youngest = {
        trial.user_attrs.get("architecture"): trial.number
        for trial in trials
        if trial.state in FINISHED and REPLAYED not in trial.user_attrs
    }
    return [
        trial
        for trial in broken_off
        if trial.number not in taken_up and youngest.get(trial.user_attrs["architecture"], -1) < trial.number
    ]


def begun(trials: Sequence[FrozenTrial]) -> set[int]:
    """Trainings of this study that have ended, go on or are owed, each by the number of its first trial."""
    standing_for = [
        trial
        for trial in trials
        if trial.state in (*FINISHED, TrialState.RUNNING) and REPLAYED not in trial.user_attrs
    ]
    first = firsts(trials)
    return {first(trial) for trial in (*standing_for, *owed(trials))} - taken_over(trials)


def taken_over(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that were taken over from another study."""
    return {trial.number for trial in trials if TAKEN in trial.user_attrs}


def firsts(trials: Collection[FrozenTrial]) -> Callable[[FrozenTrial], int]:
    """What tells of a trial the number of the one that its training was begun as."""
    older = lineage(trials)
    return lambda trial: (trial.number, *older(trial))[-1]


def lineage(trials: Collection[FrozenTrial]) -> Callable[[FrozenTrial], tuple[int, ...]]:
    """What tells of a trial the numbers of those whose training it goes on with, the last first."""
    before = _before(trials)
    return lambda trial: tuple(_line(trial.number, before)) if trial.number in before else ()


def cost_attributes(cost: Mapping[str, int]) -> dict[str, Any]:
    """A cost as trials carry it; a latency is in milliseconds, and only predicted."""
    values = {name: value / 1e6 if name == "latency" else value for name, value in cost.items()}
    return {ATTRIBUTES[name]: value for name, value in values.items()}


def accuracy_of(trial: FrozenTrial) -> float:
    """At the last epoch trained, 0 to 1; 0 before there is one."""
    return float(trial.values[0]) if trial.values else 0.0


def curve_of(trial: FrozenTrial) -> list[float]:
    """Accuracies after each epoch."""
    steps = sorted(trial.intermediate_values.items())
    return [value for _, value in steps] or list(trial.user_attrs.get(CURVE, ()))


def _before(trials: Collection[FrozenTrial]) -> dict[int, int]:
    return {trial.number: trial.user_attrs[CONTINUES] for trial in trials if CONTINUES in trial.user_attrs}


def _line(number: int, before: Mapping[int, int]) -> Iterator[int]:
    while 0 <= (one := before.get(number, -1)) < number:
        yield (number := one)


def _last(some: Iterator[FrozenTrial], trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Without what was replayed, and of those that go on from one another the last."""
    trained = [trial for trial in some if REPLAYED not in trial.user_attrs]
    older = lineage(trials)
    passed = {number for trial in trained for number in older(trial)}
    return [trial for trial in trained if trial.number not in passed]
