"""Preparation of a one-shot search: supernets are trained, and their subnets scored, before any trial."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from nas_recalib.search.options import SearchOptions
from nas_recalib.search.samplers.base import Indices
from nas_recalib.search.samplers.oneshot import one_shot_scores
from nas_recalib.search.search import Search
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.regression import AdditiveModel, options_of
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
        checkpoints: Checkpoints of the search.
        threads: Number of CPU threads.
        plugins: Modules of the user's own operators.
    """

    one_shots: tuple[OneShot, ...]
    checkpoints: Checkpoints
    threads: int
    plugins: tuple[str, ...]

    def resume(self, number: int, device: torch.device) -> tuple[OneShot, Training]:
        """Return a supernet on a device, with its training from its checkpoint on, if there is one."""
        load_plugins(self.plugins)
        torch.set_num_threads(self.threads)
        one_shot = self.one_shots[number].to(device)
        training = one_shot.training()
        state = self.checkpoints.load(_name(number))
        if state is not None and state.get("supernet") == one_shot.fingerprint:
            training.load_state_dict(state["training"])
        return one_shot, training


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
    _latest.clear()


def _supernets(search: Search, config: SearchConfig) -> Supernets:
    proxies = (
        replace(search.proxy, epochs=config.supernet_epochs, seed=config.seed + number)
        for number in range(config.supernet_seeds)
    )
    one_shots = tuple(OneShot(search.space, proxy) for proxy in proxies)
    return Supernets(one_shots, search.checkpoints, config.threads, tuple(config.plugins))


def _name(number: int) -> str:
    """Return the name of a supernet's checkpoint."""
    return f"supernet-{number}"


def _train(supernets: Supernets, number: int, device: torch.device, say: Callable[[str], None]) -> str:
    """Train a supernet to the end, with a checkpoint after every epoch, and return a line of summary."""
    one_shot, training = supernets.resume(number, device)
    title = f"supernet {number + 1} of {len(supernets.one_shots)}"
    try:
        for epoch in training:
            state = {"supernet": one_shot.fingerprint, "training": training.state_dict()}
            supernets.checkpoints.save(_name(number), state)
            progress = f"epoch {epoch.number} of {one_shot.proxy.epochs}"
            say(f"{title}: {progress}, training loss {epoch.loss:.4f}")
    except (Diverged, InputError) as error:
        raise StopSearch(f"{title}: {error}") from error
    return f"{title}: trained; accuracy of the subnet of all first choices {training.curve[-1].accuracy:.4f}"


# The trained supernet that was scored last, on its device.
_latest: dict[tuple[str, str, torch.device], tuple[OneShot, nn.Module]] = {}


def _score(
    supernets: Supernets,
    item: tuple[int, Sequence[Indices]],
    device: torch.device,
    say: Callable[[str], None],  # noqa: ARG001  # scoring a few subnets takes seconds
) -> dict[tuple[int, Indices], Score]:
    """Return accuracy and loss of subnets of one supernet, by its number and their indices."""
    number, subnets = item
    key = (supernets.one_shots[number].fingerprint, str(supernets.checkpoints.folder), device)
    if key not in _latest:  # tasks of the same supernet follow one another
        _latest.clear()
        one_shot, training = supernets.resume(number, device)
        _latest[key] = one_shot, training.evaluated_network
    one_shot, network = _latest[key]
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
    model = AdditiveModel.fit(options_of(search.space), [*scores], [*scores.values()]) if guided else None
    chosen: dict[Indices, None] = {}
    while len(chosen) < count:
        best = model and feasible.best(model.draw(random, _BOLDNESS), {*scores, *chosen})
        drawn = best or feasible.sample(random)
        if drawn not in scores:
            chosen[drawn] = None
    return list(chosen)


def refuse_one_shot(options: SearchOptions, settings: Mapping[str, Any]) -> None:
    """Raise InputError for options that one-shot scoring needs or excludes."""
    if settings.get("evaluator") == "oneshot":
        if settings["strategy"] != "oneshot":
            raise InputError(
                f"strategy: {settings['strategy']} does not use the scores of --evaluator oneshot; "
                "leave it out"
            )
        return
    if settings["strategy"] == "oneshot":
        raise InputError("strategy: oneshot needs the scores of supernets; add --evaluator oneshot")
    names = ("supernet_epochs", "supernet_seeds", "supernet_scores")
    given = next((name for name in names if getattr(options, name) is not None), None)
    if given:
        raise InputError(f"{given.replace('_', '-')}: has no effect without --evaluator oneshot")
