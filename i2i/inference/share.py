"""Publish a trained model on the Hugging Face Hub."""

import json
from collections.abc import Callable
from pathlib import Path

from i2i.config import VERSION
from i2i.data.sources import bundled_datasets
from i2i.errors import RequestError
from i2i.files import temporary_folder
from i2i.inference.hub import LOG_IN, MODEL, check_repository, explained
from i2i.inference.model import Model
from i2i.runs import checkpoint

SAMPLES = "samples.png"


def push(model: Model, repo: str, write_page: Callable[[str], str], *, private: bool = False) -> str:
    """Upload a model, its header as `config.json`, samples and a page to the Hub; the address of the page.

    The repository is made if it does not exist.  Of the data's location only the name is published.

    Args:
        repo: USER/NAME.
        write_page: the Markdown of README.md, given the name of the file of samples, or "" without them.
        private: whether a new repository can be seen by its owners only.

    Raises:
        RequestError: if there is no token, or the token may not write there.
        JobError: if the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token
    check_repository(repo)
    if not get_token():
        raise RequestError(f"publishing {repo} needs a token of the Hub that may write: {LOG_IN}")
    with temporary_folder() as folder:
        header = published_header(model)
        checkpoint.save(folder / MODEL, model.modules.state_dict(), {"kind": "model", **header})
        (folder / "config.json").write_text(json.dumps({"library_name": "i2i", **header}, indent=2) + "\n")
        picture = model._repr_png_()
        if picture:
            (folder / SAMPLES).write_bytes(picture)
        (folder / "README.md").write_text(write_page(SAMPLES if picture else ""), encoding="utf-8")
        with explained(repo):
            api = HfApi(library_name="i2i", library_version=VERSION)
            address = api.create_repo(repo, private=private or None, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Model of i2i {VERSION}")
    return str(address)


def published_header(model: Model) -> dict[str, object]:
    """The header without the folders that the training data were in."""
    name = Path(str(model.header.get("data", ""))).name
    stem = name.removesuffix(".zip")
    return {**model.header, "data": stem if stem in bundled_datasets() else name}


def model_facts(model: Model) -> dict[str, str]:
    """What a model is, as the rows of a table."""
    recipe = model.recipe
    network = next((str(value) for key in ("generator", "denoiser", "network")
                    if (value := getattr(recipe, key, None))), "")
    height, width = model.header["info"]["size"]
    source = f"{model.formats['a']} -> " if model.directions else "noise -> "
    rows = {"recipe": model.header["recipe"]["name"], "network": network,
            "images": source + str(model.formats["b"]), "directions": ", ".join(model.directions),
            "classes": ", ".join(model.classes), "size of training": f"{width}x{height} pixels",
            "trained on": str(published_header(model)["data"]),
            "images seen": f"{model.header['images']:,}" if model.header.get("images") else "",
            "made with": f"i2i {model.header['i2i']}" if model.header.get("i2i") else "",
            "converted from": str(model.header.get("converted_from", ""))}
    return {key: value for key, value in rows.items() if value}
