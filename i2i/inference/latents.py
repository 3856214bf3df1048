"""Images as the noise that a generator would make them from."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from i2i.data.labeled import ImageDataset
from i2i.data.sources import Source, Unreadable, image_names, open_source
from i2i.errors import RequestError
from i2i.images.convert import ConversionLog
from i2i.inference.model import Model
from i2i.recipes.base import Inverts


def dataset_for(model: Model, source: Source, names: Sequence[str]) -> ImageDataset:
    """Images as a generator makes them: of its size and format."""
    return ImageDataset(source, "all", names).for_evaluation(
        (model.formats["a"], model.formats["b"]), tuple(model.header["info"]["size"]))


def read_images(model: Model, paths: Sequence[str | Path], limit: int, *,
                warn: Callable[[str], None] = lambda line: None) -> Tensor:
    """The first `limit` images of files, folders and zips together, (N, C, H, W) of the model's size.

    Args:
        warn: called with each line on what was converted.

    Raises:
        RequestError: if one cannot be read.
    """
    images, converted = list[Tensor](), ConversionLog()
    for path in paths:
        source = open_source(path)
        names = image_names(source)[:limit - len(images)]
        dataset = dataset_for(model, source, names)
        try:
            for i, name in enumerate(names):
                images.append(dataset.tensors(i)["b"])
                converted.add(name, dataset.decode("b", i)[0], dataset.format("b"))
        except Unreadable as error:
            raise RequestError(str(error)) from None
    for line in converted.lines():
        warn(line)
    return torch.stack(images)


@torch.inference_mode()
def invert(model: Model, images: Tensor, label: int | None = None) -> Tensor:
    """The standard normal noise of images, (N, C, H, W) in [-1, 1] -> (N, D) on the CPU.

    `Model.generate_from` makes them again from it, or something near.  RequestError if the model cannot.
    """
    recipe, name = model.recipe, model.header["recipe"]["name"]
    if not isinstance(recipe, Inverts) or model.directions:
        raise RequestError(f"this {name} model does not go back from an image to noise; accepted: a model of "
                           "vae, flow, diffusion or rectified-flow (i2i list family)")
    found = []
    for batch in images.split(model.batch_size()):
        labels = {} if label is None else {"c": torch.full((len(batch),), label, device=model.device)}
        found.append(recipe.invert(model.modules, {"b": batch.to(model.device)} | labels).float().cpu())
    return torch.cat(found)
