"""Stabilizers: what keeps two players in balance and a generator from collapsing (docs/stabilizers.md).

Each is one file with one hook: a wrapper around a discriminator, a loss or `update`.  `StabilizerSettings`
holds the settings that all recipes share; options of a loss, a network, a prior or an optimizer stay there.
"""

from i2i.recipes.stabilizers.settings import (
    AdversarialLoss,
    DOptimizer,
    GOptimizer,
    Schedule,
    StabilizerSettings,
)

__all__ = ["AdversarialLoss", "DOptimizer", "GOptimizer", "Schedule", "StabilizerSettings"]
