"""From files to batches, without networks or recipes.  Importing it registers the kinds of datasets."""

from i2i.data import labeled, paired, unpaired

__all__ = ["labeled", "paired", "unpaired"]
