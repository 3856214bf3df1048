"""What D sees of an image: differentiable variations of it.  They know no networks.  Importing the room
registers its pieces."""

from i2i.augment import ada, base, diffaug, noise

__all__ = ["ada", "base", "diffaug", "noise"]
