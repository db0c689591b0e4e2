"""Preparation of a one-shot search: supernets are trained, and their subnets scored, before any trial."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from nas_recalib.errors import Diverged, InputError, StopSearch
from nas_recalib.plugins import load_plugins
from nas_recalib.proxy.supernet import OneShot
from nas_recalib.proxy.train import Training
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.samplers.base import Indices, SearchState, tuples
from nas_recalib.search.samplers.oneshot import one_shot_scores
from nas_recalib.search.samplers.predictor import draw_best
from nas_recalib.search.search import Search
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.trials import ONE_SHOT

Item = TypeVar("Item")
Result = TypeVar("Result")
Score = tuple[float, float]  # accuracy (0 to 1) and cross-entropy

_ROUND = 50  # subnets that are scored before the scores are stored
_CHUNK = 10  # subnets of one task
_WORST_LOSS = 100.0  # in place of one that is not finite
_BOLDNESS = 0.5  # factor on the deviation from the posterior mean, of proposals to score


class RunTasks(Protocol):
    """Runner of independent tasks, in this process or on a cluster."""

    def __call__(
        self,
        function: Callable[["Supernets", Item, torch.device, Callable[[str], None]], Result],
        supernets: "Supernets",
        items: Sequence[Item],
        say: Callable[[str], None],
    ) -> Iterator[Result]:
        """Call a function for each item and yield the results in the order of completion.

        Args:
            function: Function of a module, called with the supernets, the item, the device that trains, and
                a function that takes lines of progress.
            supernets: Supernets, sent to each machine once.
            items: Items.
            say: Function that takes each line of progress; tasks on other machines are silent.
        """
        ...


@dataclass(frozen=True, eq=False)
class Supernets:
    """Supernets of a search, and where their weights are kept.

    Attributes:
        one_shots: Training and scoring of each supernet.
        fingerprints: Text of all that decides the weights of each, compared by checkpoints.
        checkpoints: Checkpoints of the search.
        threads: Number of CPU threads.
        plugins: Modules of the user's own operators.
    """

    one_shots: tuple[OneShot, ...]
    fingerprints: tuple[str, ...]
    checkpoints: Checkpoints
    threads: int
    plugins: tuple[str, ...]

    def training(self, number: int, device: torch.device) -> Training:
        """Return the training of a supernet, resumed from its checkpoint if there is one."""
        load_plugins(self.plugins)
        torch.set_num_threads(self.threads)
        one_shot = replace(self.one_shots[number], data=self.one_shots[number].data.to(device))
        training = one_shot.training()
        state = self.checkpoints.load(_name(number))
        if state is not None and state.get("supernet") == self.fingerprints[number]:
            training.load_state_dict(state["training"])
        return training


def score_subnets(
    search: Search, config: SearchConfig, run_tasks: RunTasks, say: Callable[[str], None]
) -> None:
    """Train the supernets of a search and score subnets, so that its strategy can propose the best.

    The first half of the subnets are uniform draws within the budget; the others are optima of a regression
    on all scores so far, with coefficients drawn from their posterior. After an interruption supernets resume
    from their last epoch and scoring from the last complete round, with the same result.

    Args:
        search: Search to prepare.
        config: Configuration of the search.
        run_tasks: Runner of the trainings and scorings.
        say: Function that takes each line of progress.

    Raises:
        StopSearch: If a supernet diverges, or its checkpoint cannot be written.
    """
    scores = one_shot_scores(search.study.user_attrs)
    target = min(config.supernet_scores, search.feasible.count())
    if len(scores) >= target:
        return
    supernets = _supernets(search, config)
    numbers = range(config.supernet_seeds)
    say(
        f"one-shot: supernets: {config.supernet_seeds}, of {config.supernet_epochs} epochs each; "
        f"subnets to score: {target - len(scores)}"
    )
    for line in run_tasks(_train, supernets, numbers, say):
        say(line)
    while len(scores) < target:
        number = sum(key.startswith(ONE_SHOT) for key in search.study.user_attrs)
        guided = 2 * len(scores) >= target
        subnets = _subnets(search, scores, min(_ROUND, target - len(scores)), number, guided)
        if not subnets:  # every architecture within the budget has been scored
            break
        chunks = [subnets[start : start + _CHUNK] for start in range(0, len(subnets), _CHUNK)]
        items = [(network, chunk) for network in numbers for chunk in chunks]
        found: dict[tuple[int, Indices], Score] = {}
        for result in run_tasks(_score, supernets, items, say):
            found |= result
        row = [[list(one), [list(found[network, one]) for network in numbers]] for one in subnets]
        search.study.set_user_attr(f"{ONE_SHOT}{number}", row)
        scores = one_shot_scores(search.study.user_attrs)
        say(f"one-shot: {len(scores)} of {target} subnets scored")


def _supernets(search: Search, config: SearchConfig) -> Supernets:
    proxy = search.proxy
    one_shots = tuple(
        OneShot(
            search.space,
            proxy.data,
            proxy.width,
            config.supernet_epochs,
            proxy.recipe,
            proxy.dtype,
            seed=config.seed + number,
        )
        for number in range(config.supernet_seeds)
    )
    fingerprints = tuple(
        f"{replace(proxy, epochs=one.epochs, seed=one.seed).fingerprint} {search.space.describe()}"
        for one in one_shots
    )
    return Supernets(one_shots, fingerprints, search.checkpoints, config.threads, tuple(config.plugins))


def _name(number: int) -> str:
    """Return the name of a supernet's checkpoint."""
    return f"supernet-{number}"


def _train(supernets: Supernets, number: int, device: torch.device, say: Callable[[str], None]) -> str:
    """Train a supernet to the end, with a checkpoint after every epoch, and return a line of summary."""
    training = supernets.training(number, device)
    epochs = supernets.one_shots[number].epochs
    title = f"supernet {number + 1} of {len(supernets.one_shots)}"
    try:
        for epoch in training:
            state = {
                "supernet": supernets.fingerprints[number],
                "curve": [],
                "training": training.state_dict(),
            }
            supernets.checkpoints.save(_name(number), state)
            say(f"{title}: epoch {epoch.number} of {epochs}, training loss {epoch.loss:.4f}")
    except (Diverged, InputError) as error:
        raise StopSearch(f"{title}: {error}") from error
    return f"{title}: trained; accuracy of the subnet of all first choices {training.curve[-1].accuracy:.4f}"


_latest: dict[tuple[str, str, torch.device], nn.Module] = {}  # the trained supernet that was scored last


def _score(
    supernets: Supernets,
    item: tuple[int, Sequence[Indices]],
    device: torch.device,
    say: Callable[[str], None],  # noqa: ARG001  # scoring a few subnets takes seconds
) -> dict[tuple[int, Indices], Score]:
    """Return accuracy and loss of subnets of one supernet, by its number and their indices."""
    number, subnets = item
    key = (supernets.fingerprints[number], str(supernets.checkpoints.folder), device)
    if key not in _latest:  # tasks of the same supernet follow one another
        _latest.clear()
        _latest[key] = supernets.training(number, device).evaluated_network
    network = _latest[key]
    one_shot = replace(supernets.one_shots[number], data=supernets.one_shots[number].data.to(device))
    return {(number, subnet): _finite(one_shot.score(network, subnet)) for subnet in subnets}


def _finite(score: Score) -> Score:
    accuracy, loss = score
    return accuracy, loss if math.isfinite(loss) else _WORST_LOSS


def _subnets(
    search: Search, scores: dict[Indices, float], count: int, number: int, guided: bool
) -> list[Indices]:
    """Return architectures within the budget that have no score: uniform draws, later likely optima.

    Args:
        search: Search, for the space, the budget and the seed.
        scores: Scores so far.
        count: Number of architectures.
        number: Number of the round, which with the seed of the search decides the draws.
        guided: Whether to propose likely optima instead of uniform draws.
    """
    random = np.random.default_rng((search.seed, number))
    feasible = search.feasible
    if feasible.count() <= 2 * (len(scores) + count):  # too few to draw from at random
        rest = (one for one in feasible.enumerate(random) if one not in scores)
        return list(dict.fromkeys(islice(rest, count)))
    chosen: dict[Indices, None] = {}
    while len(chosen) < count:
        best = None
        if guided:
            best = draw_best(
                _state(search, {*scores, *chosen}, random), [*scores], [*scores.values()], _BOLDNESS
            )
        drawn = [best] if best is not None else tuples(feasible.sample_many(1, random))
        chosen |= dict.fromkeys(one for one in drawn if one not in scores)
    return list(chosen)


def _state(search: Search, excluded: set[Indices], random: np.random.Generator) -> SearchState:
    nothing: dict[str, Any] = {"completed": (), "pruned": (), "running": (), "directions": (), "trials": ()}
    return SearchState(
        space=search.space, feasible=search.feasible, excluded=excluded, random=random, **nothing
    )
