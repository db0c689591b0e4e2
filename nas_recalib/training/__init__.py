"""Training an architecture at full size: recipes, the loop, checkpoints, several processes."""

from nas_recalib.training.loop import train_full
from nas_recalib.training.recipe import RECIPES, Recipe, get_recipe
from nas_recalib.training.results import EpochResult

__all__ = ["RECIPES", "EpochResult", "Recipe", "get_recipe", "train_full"]
