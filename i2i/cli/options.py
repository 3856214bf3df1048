"""Options that several commands share, and short ways to write the others."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from i2i.cli.completion import complete_data, complete_model
from i2i.errors import RequestError
from i2i.files import check_file, to_json, write_text


def option(metavar: str | None, help: str, *flags: str, **settings: Any) -> Any:
    """`typer.Option` with what nearly every option has first."""
    return typer.Option(*flags, metavar=metavar, help=help, **(_completion(metavar or "") | settings))


def argument(metavar: str, help: str, **settings: Any) -> Any:
    """`typer.Argument` whose default is not shown."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, **(_completion(metavar) | settings))


def _completion(metavar: str) -> dict[str, Any]:
    """How the shell completes a model or a dataset by name."""
    accepted = set(metavar.strip("[]").split("|"))
    if "MODEL" in accepted:
        return {"autocompletion": complete_model}
    return {"autocompletion": complete_data} if {"DIR", "NAME"} <= accepted else {}


def _load_plugins(paths: list[str] | None) -> list[str]:
    """Run the files given by --plugin, before the command looks up any component."""
    from i2i.registry.plugins import load_plugin
    for path in paths or ():
        load_plugin(path)
    return paths or []      # Older versions of Typer take the length of what a callback returns.


def _local_file(flag: str, where: str) -> str:
    """The local path of an output file, from which it is uploaded if it is to be behind a URL."""
    if "://" not in where:
        return where
    from i2i.data.sources import output_file
    return str(output_file(flag, where))


def _to_local(param: typer.CallbackParam, where: str | None) -> str | None:
    return None if where is None else _local_file(param.opts[0], where)


@dataclass(frozen=True)
class JsonOutput:
    """Where --json writes a result: to a file, to stdout, or nowhere."""

    file: str | None = None
    stdout: TextIO | None = None

    @classmethod
    def parse(cls, where: str | JsonOutput) -> JsonOutput:
        """From what follows --json.  After `-`, all that is printed goes to stderr until the command ends."""
        if isinstance(where, JsonOutput):       # The default.
            return where
        if where == "-":
            output = cls(stdout=sys.stdout)
            sys.stdout = sys.stderr             # `App.run` undoes it.
            return output
        file = _local_file("--json", where)
        check_file("--json", file)
        return cls(file)

    def write(self, result: Any) -> None:
        """Write a result.  JobError if the file cannot be written."""
        if self.stdout:
            print(to_json(result), end="", file=self.stdout, flush=True)
        elif self.file:
            write_text(Path(self.file), to_json(result))


NO_JSON = JsonOutput()


def output_option(metavar: str, help: str, *flags: str) -> Any:
    """The option of a file to write, by path or URL."""
    return option(metavar, help, *flags, callback=_to_local)


FORMATS = "png|jpg|webp|bmp|tif|npy"
MaxPixels = Annotated[int | None, option(
    None, "Refuse images of more pixels as decompression bombs; by default 89,478,485.", min=1)]
Device = Annotated[str, option(None, "auto, cpu, cuda or mps.")]
Model = Annotated[str, argument(
    "MODEL", "A model file, a run folder, RUN@IMAGES, RUN@best (of an earlier checkpoint), a URL of these, "
             "hf:USER/NAME, or a name of i2i models.")]
NoiseModel = Annotated[str, argument(
    "MODEL", "A model that makes images from noise: a file, a run folder, RUN@IMAGES, hf:USER/NAME or a name "
             "of i2i models.")]
Json = Annotated[JsonOutput, option(
    "FILE|URL|-", "Write everything as JSON, too; -: to stdout, and all else to stderr.", "--json",
    parser=lambda where: where, callback=JsonOutput.parse, show_default=False)]
Plugins = Annotated[list[str] | None, option(
    "FILE.py", "Run a Python file that registers components of yours; can be repeated.", "--plugin",
    callback=_load_plugins)]
Steps = Annotated[int | None, option(None, "Steps to an image, in models that sample in steps.")]
Classes = Annotated[str | None, option("NAME,NAME|balanced", "Which classes, in turns; by default all.")]


def writable_folder(flag: str, out: str, rank: int = 0) -> Path:
    """Create an output folder.  RequestError if files cannot be written to it."""
    from i2i.data.sources import output_folder
    folder = output_folder(flag, out)
    test_file = folder / f".i2i-write-test-{rank}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        test_file.touch()
        test_file.unlink()
    except OSError as error:
        raise RequestError(f"{flag} {out} cannot be written: {error.strerror}") from None
    return folder
