"""A search whose training is a formula: everything else is real."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import optuna

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, Feasible
from nas_recalib.proxy.evaluation import State
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.job import Job, train
from nas_recalib.search.search import Search
from nas_recalib.space import SearchSpace

SPACE = """
name: tiny
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv, psconv]
recalibration: [none, ab]
"""


def formula(architecture: Architecture) -> float:
    """Between 0 and 1; psconv+ab everywhere is best."""
    score = {"vanilla": 0.0, "scconv": 0.2, "psconv": 0.6, "none": 0.0, "ab": 0.3}
    choices = architecture.choices
    return sum(score[c.convolution.name] + score[c.recalibration.name] for c in choices) / len(choices)


@dataclass
class Training:
    curve: list[Epoch]

    def state_dict(self) -> State:
        return {"curve": [astuple(epoch) for epoch in self.curve]}


@dataclass
class StandIn:
    """In the place of the proxy training; `verdict` may answer with a failure instead."""

    verdict: Callable[[Architecture], Failure | None] = lambda _: None
    epochs: int = 3
    seed: int = 0
    trained: list[Architecture] = field(default_factory=list)
    resumed: list[Architecture] = field(default_factory=list)
    passed: list[tuple[Architecture, int]] = field(default_factory=list)

    fingerprint = "formula"

    def steps(
        self, architecture: Architecture, start: State | None = None, parts: int = 1
    ) -> Iterator["Training | Failure"]:
        training = Training([Epoch(*told) for told in start["curve"]] if start else [])
        (self.resumed if start else self.trained).append(architecture)
        if failure := self.verdict(architecture):
            yield failure
            return
        for number in range(len(training.curve) + 1, self.epochs + 1):
            training.curve.append(Epoch(number, 1.0, formula(architecture) * number / self.epochs))
            self.passed.append((architecture, number))
            yield training

    def train(self, architecture: Architecture, report: Callable[[Epoch], bool]) -> list[Epoch] | Failure:
        step: Training | Failure = Training([])
        for step in self.steps(architecture):
            if isinstance(step, Failure):
                return step
            if report(step.curve[-1]):
                break
        return step.curve


_workers = defaultdict[Path, itertools.count](itertools.count)  # of each folder, that is, each test


class Silent:
    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


def all_architectures(space: SearchSpace) -> list[Architecture]:
    indices = itertools.product(*(range(len(position.choices)) for position in space.positions))
    return [space.from_indices(pick) for pick in indices]


def make_search(study: optuna.Study, folder: Path, proxy: StandIn, **changes: object) -> Search:
    """A search on the tiny space without a budget; `changes` are fields of Search."""
    common_attrs = {"fidelity": {"validation": 100}, "device": "formula", "versions": {}}
    space = changes.get("space", SearchSpace.parse(SPACE, "tiny"))
    assert isinstance(space, SearchSpace)
    given = {
        "study": study,
        "space": space,
        "feasible": Feasible(changes.pop("table", space.table), changes.pop("budget", Budget())),
        "proxy": proxy,
        "strategy": "predictor",
        "pruner": "none",
        "seed": proxy.seed,
        "common_attrs": common_attrs,
        "checkpoints": Checkpoints(folder / "checkpoints"),
        "worker": f"here/{next(_workers[folder])}",
        **changes,
    }
    return Search(**given)  # type: ignore[arg-type]


def finish(search: Search, job: Job) -> None:
    """Trains it to its end."""
    for step in train(search.proxy, job, search.checkpoints):
        search.report(job.number, step)
    search.finish(job.number)


def states(search: Search) -> list[str]:
    """Of all trials; of a failed one the kind of its failure."""
    return [trial.user_attrs.get("failure", trial.state.name) for trial in search.study.get_trials()]


def die(*_: object, **__: object) -> None:
    """In the place of what a worker would do next."""
    raise SystemExit


def pass_away(clock: Any, finder: Search) -> None:
    """As long as it takes until the dead are buried."""
    for now in (0, 61, 125):
        clock.now += now
        finder._refresh()
