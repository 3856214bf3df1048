"""Judges a run while it trains: against held-out images at its ticks, for collapse all along, and its losses at the end."""

from i2i.watch.alarm import Advise, Alarm, Remedy, told
from i2i.watch.balance import unbalanced
from i2i.watch.conclusion import conclude, overfitting, warnings
from i2i.watch.look import Look, best_look
from i2i.watch.noise import NoiseWatch
from i2i.watch.pairs import METRIC, Watch, spread
from i2i.watch.probe import Probe, from_noise, from_pictures
from i2i.watch.remedies import remedies

__all__ = ["METRIC", "Advise", "Alarm", "Look", "NoiseWatch", "Probe", "Remedy", "Watch", "best_look", "conclude", "from_noise", "from_pictures",
           "overfitting", "remedies", "spread", "told", "unbalanced", "warnings"]
