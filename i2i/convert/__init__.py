"""Convert checkpoints of other projects to model files; the architecture is read from the tensors."""

from i2i.convert.models import convert_cyclegan, convert_generator

__all__ = ["convert_cyclegan", "convert_generator"]
