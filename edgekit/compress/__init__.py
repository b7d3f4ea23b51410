"""Methods that make a torch module smaller, each a frozen config and a function, and recipes of them."""

from edgekit.compress.channels import ChannelPruning, channel_groups, prune_channels
from edgekit.compress.recipe import FineTuning, Quantization, Recipe, load_recipe, parse_recipe
from edgekit.compress.sparsity import MagnitudePruning, sparsity_report
from edgekit.compress.training import Labelled, Training, TrainingRun, train

__all__ = [
    "ChannelPruning",
    "FineTuning",
    "Labelled",
    "MagnitudePruning",
    "Quantization",
    "Recipe",
    "Training",
    "TrainingRun",
    "channel_groups",
    "load_recipe",
    "parse_recipe",
    "prune_channels",
    "sparsity_report",
    "train",
]
