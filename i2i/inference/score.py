"""How likely images are to a model: bits per dimension, or what a discriminator makes of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from i2i.config import from_dict
from i2i.data.labeled import ImageDataset
from i2i.data.sources import Unreadable, convert_or_unreadable, image_names, open_source
from i2i.errors import RequestError
from i2i.files import write_atomically
from i2i.images.convert import ConversionLog, make_grid, tensor_to_rgb, to_tensor
from i2i.images.format import ImageFormat
from i2i.inference.latents import dataset_for
from i2i.inference.model import Model
from i2i.inference.targets import plan_targets
from i2i.recipes.base import Batch, DataInfo, Discriminates, Reconstructs, Scores
from i2i.recipes.discriminator_outputs import average_logits
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.seeding import stable_seed

FULL_HEAT = 0.5     # Mean error of a pixel, of images from 0 to 1, that is white in a heat map.


@dataclass(frozen=True)
class Scorer:
    """Scores images by a model: the higher, the less likely.

    Args:
        name: what a score is called.
        meaning: what it is, in words.
        dimensions: over which a density of classes is averaged; 0 for scores that are no densities.
    """

    model: Model
    name: str
    meaning: str
    score: Callable[[Batch], Tensor]
    dimensions: int = 0

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, seed: int) -> list[float]:
        """Scores of a batch (N, C, H, W) in [-1, 1]; of a model of classes, those of all classes together."""
        torch.manual_seed(stable_seed(seed))
        images = images.to(self.model.device)
        classes = self.model.learned_classes
        if not classes:
            return list(map(float, self.score({"b": images})))
        labels = [torch.full((len(images),), number, device=images.device) for number in classes]
        each = torch.stack([self.score({"b": images, "c": c}) for c in labels]).double()
        if not self.dimensions:
            return list(map(float, each.amin(0)))
        nats = -each * self.dimensions * math.log(2)
        mixture = torch.logsumexp(nats, 0) - math.log(len(classes))
        return list(map(float, -mixture / (self.dimensions * math.log(2))))


def make_scorer(model: Model) -> Scorer:
    """The scorer of a loaded model.  RequestError if its recipe has neither a density nor a discriminator."""
    recipe, name = model.recipe, model.header["recipe"]["name"]
    info = from_dict(DataInfo, model.header["info"])
    if isinstance(recipe, Scores):
        bound = recipe.family.density == "bound"    # type: ignore[attr-defined]
        return Scorer(model, "bits_per_dim", f"bits per dimension, {'an upper bound' if bound else 'exact'}",
                      partial(recipe.score, model.modules), info.b_channels * math.prod(info.size))
    if isinstance(recipe, Discriminates) and not recipe.sources:    # type: ignore[attr-defined]
        modules = _load_discriminator(model, info)
        return Scorer(model, "minus_logit", "minus the discriminator's logit, how little an image looks like "
                      "a training image to it; no density", partial(_minus_logit, recipe, modules))
    raise RequestError(f"this {name} model scores no images: it has no density, and no discriminator of "
                       "single images; i2i list family says what the models of each recipe can do")


def _minus_logit(recipe: Discriminates, modules: nn.ModuleDict, batch: Batch) -> Tensor:
    return -average_logits(recipe.discriminate(modules, batch)).float().flatten(1).mean(1)


def _load_discriminator(model: Model, info: DataInfo) -> nn.ModuleDict:
    """All networks of the run that a model lies in, from the training state of the model, in eval mode."""
    images = model.header.get("images")
    states = RunFolder(model.path.parent).states() if model.path else []
    state = next((path for path in states if int(path.stem.rpartition("-")[2]) == images), None)
    if state is None:
        raise RequestError("a model file holds no discriminator, which is what scores images without a "
                           "density; accepted: a run folder with the training state "
                           + (f"of {images} images (there: {', '.join(path.name for path in states)})"
                              if states else "of the model")
                           + ", or a model of a recipe with a density (i2i list family)")
    tensors, _ = checkpoint.load(state, "state")
    modules = model.recipe.modules(info)
    try:
        modules.load_state_dict(checkpoint.subset(tensors, "modules"))
    except RuntimeError as error:
        raise RequestError(f"{state} does not fit {model.path}: "
                           f"{str(error).splitlines()[-1].strip()[:200]}") from None
    return modules.to(model.device).eval().requires_grad_(False)


@dataclass
class SetScores:
    """Scores of the images of a set, by name, and what could not be read."""

    scores: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)     # "name: reason"
    converted: ConversionLog = field(default_factory=ConversionLog)


def score_set(scorer: Scorer, where: str | Path, *, seed: int = 0, max_pixels: int | None = None,
              heat_maps: Path | None = None,
              progress: Callable[[int, int], None] | None = None) -> SetScores:
    """Score all images of a folder, zip or URL, resized to the model's size.

    Args:
        heat_maps: a folder for images of original, reconstruction and their difference.
        progress: called with the images done and their number.

    Raises:
        RequestError: if there are no images, or heat maps are requested of a model that reconstructs nothing.
    """
    model = scorer.model
    source = open_source(where, max_pixels=max_pixels)
    if heat_maps and not isinstance(model.recipe, Reconstructs):
        raise RequestError(f"--heatmaps are of models that reconstruct images, and "
                           f"{model.header['recipe']['name']} does not; accepted: a model of vae")
    if heat_maps and model.classes:
        raise RequestError("--heatmaps are of models without classes: the class of an image is not known")
    names: Sequence[str] = image_names(source)
    refused, files = list[str](), dict[str, Path]()
    if heat_maps:
        targets, refused = plan_targets(source, heat_maps, ".png", ImageFormat(), flag="--heatmaps")
        files, names = dict(targets), [name for name, _ in targets]
    dataset = dataset_for(model, source, names)
    result = SetScores(failed=refused)
    for rows, images in _batches(dataset, model.batch_size(), result):
        chosen = [names[row] for row in rows]
        result.scores |= dict(zip(chosen, scorer(images, seed=seed), strict=True))
        if heat_maps:
            _write_heat_maps(model, images, [files[name] for name in chosen])
        if progress:
            progress(len(result.scores) + len(result.failed), len(dataset))
    return result


def _batches(dataset: ImageDataset, size: int, result: SetScores) -> Iterator[tuple[list[int], Tensor]]:
    """The rows that can be read, so many at a time, and their images; `result` says what became of others."""
    image_format = dataset.format("b")
    for start in range(0, len(dataset), size):
        rows, images = [], []
        for row in range(start, min(start + size, len(dataset))):
            try:
                (stored,) = dataset.decode("b", row)
                array = dataset.transform.resize(convert_or_unreadable(stored, image_format),
                                                 image_format.resize)
            except Unreadable as error:
                result.failed.append(str(error))
                continue
            images.append(to_tensor(array, image_format))
            rows.append(row)
            result.converted.add(dataset.names[row], stored, image_format)
        if rows:
            yield rows, torch.stack(images)


@torch.inference_mode()
def _write_heat_maps(model: Model, images: Tensor, targets: Sequence[Path]) -> None:
    recipe, image_format = model.recipe, model.formats["b"]
    assert isinstance(recipe, Reconstructs)
    made = recipe.reconstruct(model.modules, {"b": images.to(model.device)}).float().cpu()
    for image, reconstruction, target in zip(images, made, targets, strict=True):
        error = ((image - reconstruction) / 2).abs().mean(0)
        heat = (2 * error / FULL_HEAT - 1).clamp(max=1).expand(3, -1, -1)
        shown = [tensor_to_rgb(each, image_format) for each in (image, reconstruction)]
        target.parent.mkdir(parents=True, exist_ok=True)
        save = partial(Image.fromarray(make_grid([[*shown, heat]])).save, format="png")
        write_atomically(target, save)
