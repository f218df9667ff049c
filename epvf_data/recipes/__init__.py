"""Mixtures of many kinds of policies, as a table says: `epvf-data collect --recipe`."""

from epvf_data.recipes.collect import collect_recipe, lots_of, runs_of
from epvf_data.recipes.settings import RecipeConfig
from epvf_data.recipes.tables import build, read

__all__ = ["RecipeConfig", "build", "collect_recipe", "lots_of", "read", "runs_of"]
