"""Other projects' checkpoints as models of ours; the architecture is read from the tensors.  One file for
each project."""

from i2i.convert.models import import_cyclegan, import_generator

__all__ = ["import_cyclegan", "import_generator"]
