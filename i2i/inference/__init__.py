"""Trained models at work: loading, translating, generating, exploring, and use in people's own training
code."""
