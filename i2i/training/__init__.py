"""Training a recipe: the job, the loop, its state, its processes, and its callbacks."""
