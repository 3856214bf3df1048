"""The command line: one module per command.

The modules import what a command needs inside its function, so that `i2i --help` needs no torch.
"""

from typing import Annotated

import typer

from i2i.cli import (
    bench,
    convert,
    data,
    evaluate,
    explore,
    generate,
    list_components,
    report,
    train,
    translate,
    weights,
)
from i2i.cli.application import App

app = App(help="Train, run and evaluate image-to-image translation and image generation.")


def _print_version(requested: bool) -> None:
    if requested:
        from i2i.config import VERSION
        print(VERSION)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option(
        "--version", callback=_print_version, is_eager=True,
        help="Print the version and exit.")] = False) -> None:
    pass


app.command()(train.train)
app.command()(translate.translate)
app.command()(generate.generate)
app.add_typer(explore.app, name="explore")
app.command()(evaluate.evaluate)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.add_typer(bench.app, name="bench")
app.command()(report.report)
app.command()(convert.convert)
app.command("list")(list_components.list_components)
