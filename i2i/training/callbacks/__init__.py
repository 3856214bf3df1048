"""Callbacks that observe a training run: evaluation, collapse detection, sample grids, the final verdict."""
