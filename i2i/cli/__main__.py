"""python -m i2i.cli, for launchers."""

from i2i.cli import app

app()
