"""Model files: the header that describes a model, and the networks it describes."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from i2i import recipes  # noqa: F401 - registers the recipes.
from i2i.config import from_dict, parse, validate
from i2i.data.sources import fetched, is_url
from i2i.errors import RequestError, require
from i2i.images.convert import palette_values
from i2i.images.format import ImageFormat
from i2i.inference.bundled_models import bundled_model, bundled_models
from i2i.inference.hub import download, is_hub_model
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.meta_device import build_on_meta
from i2i.registry import MAX_NAME_LENGTH, lookup, suggest
from i2i.registry.plugins import check_plugins
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder, split_run

MAX_TRAINING_SIZE = 2**15       # Pixels per side, of the images a model was trained on.
MAX_LISTED = 12         # Models of checkpoints that a message names one by one.
# What a header that was not written by `model_header` can raise when networks are built from it.
HEADER_ERRORS = (KeyError, TypeError, AttributeError, ValueError, RuntimeError, IndexError, ArithmeticError,
                 RecursionError)


def model_header(recipe_name: str, settings: Mapping[str, Any], info: DataInfo,
                 formats: tuple[ImageFormat, ImageFormat], **more: Any) -> dict[str, Any]:
    """The header of a model file: everything but the weights that is needed to use the model."""
    return {"recipe": {"name": recipe_name, "settings": dict(settings)}, "info": vars(info).copy(),
            "formats": {"a": vars(formats[0]).copy(), "b": vars(formats[1]).copy()}, **more}


def find_model(model: str | Path) -> Path:
    """The file that a MODEL argument means: a model file, a run folder, RUN@IMAGES, RUN@best, RUN@last,
    hf:USER/NAME, a URL of one of these, or a bundled model by name.  What exists as a file or a folder is no
    name.

    RequestError if the run folder has no such model; whether a file exists is found out by reading it.
    """
    if is_hub_model(model):
        return download(model)
    if is_url(model):
        return _model_behind(str(model))
    path, which = split_run(model)
    if Path(path).is_dir():
        return _model_of_run(RunFolder(path), which)
    return bundled_model(str(model)).file if _is_name(model) else Path(model)


def _model_behind(url: str) -> Path:
    """A local copy of the model at a URL: of a model file, a run folder, RUN@IMAGES, RUN@best or RUN@last."""
    run, which = split_run(url)
    if "/" in which:        # The @ is that of a user.
        run, which = url, ""
    if which.isdecimal():
        name = RunFolder(run).model_at(int(which)).name
    elif which in ("", "best", "last"):
        name = RunFolder(run).best.name if which == "best" else RunFolder(run).model.name
    else:
        raise RequestError(f"{url} has no model @{which}; accepted: @IMAGES, @best or @last")
    return fetched(run if run.endswith(".safetensors") and not which else f"{run.rstrip('/')}/{name}")


def _model_of_run(run: RunFolder, which: str) -> Path:
    if not run.model.exists():
        raise RequestError(f"{run.path} is a folder without model.safetensors; accepted: a run folder made "
                           "by i2i train, or a model file")
    named = {"last": run.model} | ({"best": run.best} if run.best.exists() else {})
    if not which or which in named:
        return named[which or "last"]
    kept = run.models()
    with contextlib.suppress(RequestError):
        images = parse("images", which, int)
        if images in kept:
            return kept[images]
        for file in named.values():
            if checkpoint.read_header(file, "model").get("images") == images:
                return file
    known = [*map(str, kept), *named]
    listed = known if len(kept) <= MAX_LISTED else [f"{len(kept)} from {known[0]} to {max(kept)}", *named]
    raise RequestError(f"{run.path} has no model @{which[:MAX_NAME_LENGTH]}; {suggest(which, known, listed)} "
                       "(train.keep_models=every keeps those of all checkpoints)")


def is_model(text: str | Path) -> bool:
    """Whether an argument that may also mean images means a model."""
    path, _ = split_run(text)
    return (is_hub_model(text) or Path(path).suffix == ".safetensors" or RunFolder(path).model.exists()
            or (_is_name(text) and str(text) in bundled_models()))


def read_directions(model: str | Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The header of a model, and the directions in which it translates: none if it makes images from noise.

    RequestError if it is damaged or of a recipe that is not known; weights are not read.
    """
    header = checkpoint.read_header(find_model(model), "model")
    try:
        recipe: Any = lookup("recipe", header["recipe"]["name"])
        return header, tuple(source + recipe.targets[key] for key, source in recipe.sources.items())
    except HEADER_ERRORS as error:
        raise RequestError(f"{model} has a damaged header: {error}") from None


def _is_name(model: str | Path) -> bool:
    """Whether this cannot be a path: a word without folder and suffix, of nothing that exists."""
    path = Path(model)
    return str(model) == path.name and not path.suffix and not path.exists()


def read_networks(file: Path) -> tuple[Recipe, nn.ModuleDict, dict[str, Any]]:
    """Read the recipe, the networks with their weights, and the header.  RequestError if it is damaged."""
    header = checkpoint.read_header(file, "model")
    check_plugins(header.get("plugins", []), file, exact=False)
    try:
        recipe, modules = networks_from_header(header)
        stored = checkpoint.shapes(file)        # Before memory is allocated.
        expected = {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in modules.state_dict().items()}
        for key in sorted(expected.keys() | stored.keys()):
            if stored.get(key) not in (expected.get(key), _half(expected.get(key))):
                raise ValueError(f"{key[:80]} is {_describe(stored.get(key))}, and "
                                 f"{_describe(expected.get(key))} by the header")
    except HEADER_ERRORS as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).strip() or type(error).__name__
        raise RequestError(f"{file} does not hold the model its header describes "
                           f"({reason.splitlines()[-1][:300]})") from None
    tensors, header = checkpoint.load(file, "model")
    modules.to_empty(device="cpu").load_state_dict(tensors)
    return recipe, modules, header


def networks_from_header(header: Mapping[str, Any]) -> tuple[Recipe, nn.ModuleDict]:
    """The recipe and the networks that a header describes, on the meta device, or one of HEADER_ERRORS."""
    recipe_class = cast(Any, lookup("recipe", header["recipe"]["name"]))
    recipe: Any = from_dict(recipe_class, header["recipe"]["settings"])
    info = from_dict(DataInfo, header["info"])
    require(all(1 <= side <= MAX_TRAINING_SIZE for side in info.size), "info.size", info.size,
            f"1 to {MAX_TRAINING_SIZE}")
    require(info.a_channels >= 1 and info.b_channels >= 1, "info", "no channels", "1 or more")
    formats = {side: ImageFormat.of(values) for side, values in header["formats"].items()}
    require(formats.keys() == {"a", "b"}, "formats", list(formats), "a and b")
    require((formats["a"].channels, formats["b"].channels) == (info.a_channels, info.b_channels), "formats",
            "their channels", "those of info")
    require(palette_values(formats["a"]) == info.a_colors, "formats", "the palette", "the colors of info")
    classes = validate("classes", header.get("classes", []), tuple[str, ...])
    require(not info.num_classes or len(classes) == info.num_classes, "classes", len(classes),
            f"{info.num_classes} names")
    data = header.get("data", "")
    require(isinstance(data, str) and "\0" not in data, "data", "this", "a path")
    require(header.get("direction", "ab") in ("ab", "ba"), "direction", "this", "ab or ba")
    networks = build_on_meta(recipe, info)
    return recipe, nn.ModuleDict({name: networks[name] for name in recipe.ema_modules})


def _half(tensor: tuple[tuple[int, ...], torch.dtype] | None) -> tuple[tuple[int, ...], torch.dtype] | None:
    """What a tensor of single precision may be stored as."""
    return (tensor[0], torch.float16) if tensor and tensor[1] == torch.float32 else tensor


def _describe(tensor: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    if tensor is None:
        return "absent"
    shape, dtype = tensor
    return f"{'x'.join(map(str, shape)) or 'one number'} of {str(dtype).removeprefix('torch.')}"
