"""What D sees of an image: differentiable variations of it.  They know no networks.  Importing the room
registers its pieces."""

from i2i.augment import ada, base, diffaugment, instance_noise

__all__ = ["ada", "base", "diffaugment", "instance_noise"]
