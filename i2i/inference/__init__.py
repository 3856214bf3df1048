"""Use trained models: load, translate, generate, explore, chain, and integrate into other training code."""
