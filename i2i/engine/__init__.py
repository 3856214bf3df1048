"""The one training engine.  Knows recipes only by their protocol."""
