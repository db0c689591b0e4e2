"""Full-size training of an architecture: recipes, training loop, checkpoints, distributed training."""

from nas_recalib.training.checkpoint import EpochResult
from nas_recalib.training.loop import train_full
from nas_recalib.training.recipe import RECIPES, Recipe, get_recipe

__all__ = ["RECIPES", "EpochResult", "Recipe", "get_recipe", "train_full"]
