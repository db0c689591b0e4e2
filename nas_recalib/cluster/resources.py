"""What each training gets of its node."""

from dataclasses import dataclass

import ray

from nas_recalib.errors import InputError

_LEAST_SHARE = 0.0001  # that Ray keeps the books of


@dataclass(frozen=True)
class Resources:
    """What each training gets of its node.

    Attributes:
        cpus: Cores.
        gpus: GPUs, or a share of one; Ray keeps the books of shares, but nothing enforces them.

    Raises:
        ValueError: If a number is out of range.
    """

    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"cpus: {self.cpus} is not at least 1")
        if not (_LEAST_SHARE <= self.gpus <= 1 or (self.gpus >= 0 and self.gpus % 1 == 0)):
            least = f"a share of a GPU from {_LEAST_SHARE} to 1"
            raise ValueError(f"gpus: {self.gpus:g} is neither {least} nor a whole number")

    def places(self) -> int:
        """How many trainings the cluster's nodes have room for at once."""
        return sum(self._fit(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def require(self) -> None:
        """Raises InputError if no node of the cluster has them."""
        if not self.places():
            wanted = f"{self.cpus} CPUs and {self.gpus:g} GPUs"
            raise InputError(f"resources: no node of the cluster has {wanted}")

    def _fit(self, node: dict[str, float]) -> int:
        fit = int(node.get("CPU", 0) // self.cpus)
        if not self.gpus:
            return fit
        gpus = int(node.get("GPU", 0))
        return min(fit, gpus * int(1 / self.gpus + 1e-6) if self.gpus <= 1 else int(gpus // self.gpus))
