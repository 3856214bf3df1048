"""From files to batches, without networks or recipes.  Importing the package registers the kinds of data sets."""

from i2i.data import labeled, paired, unpaired

__all__ = ["labeled", "paired", "unpaired"]
