"""Files to arrays to batches.  Knows no networks and no recipes.  Importing the room registers its kinds of
data set."""

from i2i.data import labeled, paired, unpaired

__all__ = ["labeled", "paired", "unpaired"]
