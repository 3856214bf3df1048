"""i2i push and i2i pull."""

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

from i2i.cli.options import Model, Plugins, argument, option
from i2i.errors import RequestError


def push(
    model: Model,
    repository: Annotated[str, argument("USER/NAME", "The model's name on the Hugging Face Hub.")],
    license: Annotated[str, option("NAME", "License of the model, such as mit or cc-by-4.0.")] = "",
    private: Annotated[bool, option(None, "A new repository is private.", "--private")] = False,
    results: Annotated[list[str] | None, option(
        "FILE|DIR", "More JSON files of evaluate, worth, leaks, hype and audit than those in RUN, for the "
                    "page; can be repeated.", "--results")] = None,
    plugin: Plugins = None,
) -> None:
    """Publish a model on the Hugging Face Hub, with a page that says what it is and what was tested."""
    from i2i.inference import share
    from i2i.inference.model import load
    from i2i.report import model_card
    from i2i.report.model_card import ModelCard
    model_card.check_license(license)
    loaded = load(model, "cpu")
    run = loaded.path.parent if loaded.path and (loaded.path.parent / "config.json").exists() else None
    tests = model_card.read_tests(run, [Path(each) for each in results or ()])
    card = partial(ModelCard, repository, loaded.header["recipe"]["name"], bool(loaded.directions),
                   share.model_facts(loaded), license, tests=tests)
    address = share.push(loaded, repository, lambda picture: model_card.render_model_card(
        card(picture=picture)), private=private)
    print(f"{address}  (load it with hf:{repository})")


def pull(
    repository: Annotated[str, argument("USER/NAME[@REVISION]", "A model's name on the Hugging Face Hub.")],
    out: Annotated[str | None, option(
        "FILE.safetensors", "The model file; by default NAME.safetensors.")] = None,
) -> None:
    """Download a model of the Hugging Face Hub as a model file; hf:USER/NAME also works as any MODEL."""
    from i2i.files import check_file, write_atomically
    from i2i.inference.hub import PREFIX, download
    from i2i.inference.model_file import read_networks
    name = repository.removeprefix(PREFIX)
    target = Path(out or name.partition("@")[0].rpartition("/")[2] + ".safetensors")
    if target.suffix != ".safetensors":
        raise RequestError(f"--out {target} must end in .safetensors")
    if target.exists():
        raise RequestError(f"{target} exists already; choose another --out")
    check_file("--out", out or str(target))
    source = download(PREFIX + name)
    read_networks(source)
    write_atomically(target, lambda part: shutil.copyfile(source, part))
    print(target)
