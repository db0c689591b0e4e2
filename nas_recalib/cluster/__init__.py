"""Trainings of a search on a Ray cluster; the only package that imports Ray."""

from nas_recalib.cluster.connection import Resources, connect
from nas_recalib.cluster.engine import on_ray, run_on_ray, run_there

__all__ = ["Resources", "connect", "on_ray", "run_on_ray", "run_there"]
