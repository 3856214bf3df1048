"""The command line: one module per command.

The modules import what a command needs inside its function, so that `i2i --help` needs no torch.
"""

from typing import Annotated

import typer

from i2i.cli import (
    audit,
    bench,
    convert,
    data,
    evaluate,
    explore,
    export,
    generate,
    hub,
    hype,
    leaks,
    listing,
    models,
    report,
    score,
    train,
    translate,
    weights,
    worth,
)
from i2i.cli.application import App
from i2i.cli.studio import command as studio

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


for _command in (train.train, translate.translate, generate.generate, score.score, evaluate.evaluate,
                 leaks.leaks, worth.worth, audit.audit, report.report, studio.studio, convert.convert,
                 models.models, export.export, hub.push, hub.pull):
    app.command()(_command)
app.command("list")(listing.list_components)
for _group in (explore, data, weights, hype, bench):
    app.add_typer(_group.app, name=_group.__name__.rpartition(".")[2])
