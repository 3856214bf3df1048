"""Files to arrays to batches.  Knows no networks and no recipes.  Importing the room registers its kinds of data set."""

from i2i.data import datasets, labelled, unpaired

__all__ = ["datasets", "labelled", "unpaired"]
