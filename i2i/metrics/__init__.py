"""Image metrics: formulas with their sources, the feature networks they use, and the registry of both."""
