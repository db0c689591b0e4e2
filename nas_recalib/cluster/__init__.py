"""A search's trainings on Ray, the one room of the package that knows of it."""

from nas_recalib.cluster.connection import Resources, connect
from nas_recalib.cluster.dispatcher import Dispatcher
from nas_recalib.cluster.engine import on_ray, run_on_ray, run_there

__all__ = ["Dispatcher", "Resources", "connect", "on_ray", "run_on_ray", "run_there"]
