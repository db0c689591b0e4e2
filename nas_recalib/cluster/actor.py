"""What trains on a node: an actor that is given one job after the other."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from nas_recalib.cluster.resources import Resources
from nas_recalib.device import device_name
from nas_recalib.plugins import load_plugins
from nas_recalib.proxy.objective import Failure, explain
from nas_recalib.search.job import Job, Step

Train = Callable[[Job], Iterator[Step | Failure]]


@dataclass(frozen=True)
class Told:
    """What an actor tells of a job: the next thing its training yielded, or None where there is no more."""

    item: Step | Failure | None
    facts: dict[str, Any]


class Actor(tune.Trainable):  # type: ignore[misc]
    """An actor, which trains one job after the other; a step is an epoch."""

    def setup(
        self,
        config: dict[str, Any],
        begin: Callable[[torch.device], Train],
        resources: Resources,
        plugins: Sequence[str],
    ) -> None:
        torch.set_num_threads(resources.cpus)
        self._device = torch.device("cuda:0" if resources.gpus else "cpu")
        self._begin = begin
        self._plugins = plugins
        self._facts = {"node": platform.node()}
        self._train: Train | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._items = self._run(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        item = next(self._items, None)
        return {"told": Told(item, self._facts)}

    def _run(self, job: Job) -> Iterator[Step | Failure]:
        try:
            if self._train is None:
                load_plugins(self._plugins)
                self._train = self._begin(self._device)
                self._facts["device"] = device_name(self._device)
            yield from self._train(job)
        except Exception as error:
            yield explain(error)
