"""Which images come when: shuffled epochs that can be entered at any position, and evenly spaced choices."""

import numpy as np

from i2i.seeding import stable_seed


class Order:
    """An endless order of `size` images: each epoch is a permutation drawn from (seed, epoch, *stream).

    With shuffle=False every epoch has the images in the order of their indices.
    """

    def __init__(self, size: int, seed: int, *stream: int, shuffle: bool = True) -> None:
        self.size, self.seed, self.stream, self.shuffle = size, seed, stream, shuffle
        self._epoch, self._permutation = -1, np.empty(0, np.int32)

    def __call__(self, position: int) -> int:
        """The index of the image at a position; fast where successive positions are of one epoch."""
        if not self.shuffle:
            return position % self.size
        epoch = position // self.size
        if self._epoch != epoch:
            generator = np.random.default_rng(stable_seed(self.seed, epoch, *self.stream))
            permutation = np.arange(self.size, dtype=np.int32)      # Each loader process has its own.
            generator.shuffle(permutation)
            self._epoch, self._permutation = epoch, permutation
        return int(self._permutation[position % self.size])


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most `count` of the indices 0 to n-1, evenly spaced from the first to the last."""
    return np.linspace(0, n - 1, min(n, count)).astype(int).tolist()
