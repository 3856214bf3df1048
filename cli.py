"""Launcher for a checkout: python cli.py train pix2pix."""

from i2i.cli import app

app()
