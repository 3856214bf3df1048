"""Metrics: formulas with citations.  They know no recipes, data sets or engine."""
