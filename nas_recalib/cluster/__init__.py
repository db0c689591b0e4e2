"""A search's trainings on Ray, the one room of the package that knows of it."""

from nas_recalib.cluster.bench import Desk
from nas_recalib.cluster.connection import connect
from nas_recalib.cluster.engine import run_on_ray
from nas_recalib.cluster.resources import Resources
from nas_recalib.cluster.search import on_ray, run_there

__all__ = ["Desk", "Resources", "connect", "on_ray", "run_on_ray", "run_there"]
