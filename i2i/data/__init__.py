"""Files to arrays to batches.  Knows no networks and no recipes."""
