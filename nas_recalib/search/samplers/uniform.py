"""Random search."""

from nas_recalib.search.samplers.situation import Situation


def uniform(situation: Situation) -> None:
    """Never has an opinion: everything within the budget is equally likely."""
