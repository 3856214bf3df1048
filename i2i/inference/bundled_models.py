"""The trained models that come with i2i, by name: `weights/models/catalog.json` describes each."""

import json
from dataclasses import dataclass
from pathlib import Path

from i2i.errors import RequestError
from i2i.files import bundled_folder
from i2i.registry import suggest


@dataclass(frozen=True)
class BundledModel:
    """A model of the catalog.

    Attributes:
        name: what stands for a path wherever a model is asked for.
        sha256: of its file.
        purpose: what it makes of what.
        data: the dataset it was trained on.
        license: of these data, and so of the model.
        figures: how good its images are, in short; the card beside the file has the rest.
        usage: a command that uses it.
    """

    name: str
    sha256: str
    purpose: str
    data: str
    license: str
    figures: str
    usage: str

    @property
    def file(self) -> Path:
        """The model file."""
        return models_folder() / f"{self.name}.safetensors"

    @property
    def card(self) -> Path:
        """The model card, in Markdown."""
        return models_folder() / f"{self.name}.md"


def models_folder() -> Path:
    """The folder of the model files, their cards and the catalog."""
    return bundled_folder("weights") / "models"


def bundled_models() -> dict[str, BundledModel]:
    """All bundled models by name."""
    with open(models_folder() / "catalog.json", encoding="utf-8") as file:
        return {name: BundledModel(name, **entry) for name, entry in json.load(file).items()}


def bundled_model(name: str) -> BundledModel:
    """A bundled model.  RequestError with the nearest name if there is none."""
    known = bundled_models()
    if name not in known:
        raise RequestError(f"{name} does not exist; accepted: a model file, a run folder made by i2i train, "
                           f"or a bundled model ({suggest(name, known)})")
    return known[name]
