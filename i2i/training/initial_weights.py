"""Starting a run from the weights of a trained model: `i2i train RECIPE --init MODEL`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.inference.model_file import find_model
from i2i.recipes.base import Recipe
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder, split_run

MIN_SHARE = 0.1         # Of a network's parameters; where fewer fit, they do so by chance.
MAX_NAMED = 3           # Tensors that a message names one by one.
Stored = tuple[tuple[int, ...], torch.dtype]        # Shape and type of a tensor in a file.
FOREIGN = (".pkl", ".pt", ".pth", ".ckpt")      # Suffixes of other tools' checkpoints.


@dataclass(frozen=True)
class InitialWeights:
    """The file that a run starts from, which stands in its config.

    Args:
        model: what was asked for, with an absolute path.
        file: a model file, or the training state of the same model, which has the discriminators too.
        sha256: of the file.
        images: that its model has seen.
        feature_networks: those it was trained with, by name: sha256.
    """

    model: str
    file: str = ""
    sha256: str = ""
    images: int = 0
    feature_networks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> "InitialWeights":
        """From the config of a run, or TypeError."""
        weights, networks = cls(**data), data["feature_networks"]
        if not all(isinstance(text, str) for text in (weights.model, weights.file, weights.sha256,
                                                      *networks, *networks.values())):
            raise TypeError("init has values that are no text")
        return weights

    @property
    def kind(self) -> str:
        return "state" if Path(self.file).name.startswith("state-") else "model"


def absolute(model: str | Path) -> str:
    """A MODEL argument as it means the same in any folder."""
    path, which = split_run(model)
    return str(Path(path).absolute()) + (f"@{which}" if which else "") if Path(path).exists() else str(model)


def find_initial_weights(model: str) -> InitialWeights:
    """Find the weights that a MODEL argument means: of a run folder, the training state if it is kept."""
    if Path(model).suffix in FOREIGN:
        raise RequestError(f"--init takes models of i2i, and {model} is none; networks of another tool "
                           f"become one by: i2i convert {model}")
    file = find_model(model)
    header = checkpoint.read_header(file, "model")
    images, networks = header.get("images"), header.get("feature_networks", {})
    if type(images) is not int or images < 0 or not isinstance(networks, dict):
        raise RequestError(f"{file} cannot be used: its header is none that i2i writes")
    if Path(split_run(model)[0]).is_dir() and (state := RunFolder(file.parent).state(images)).exists():
        file = state
    with open(file, "rb") as opened:
        return InitialWeights(model, str(file), hashlib.file_digest(opened, "sha256").hexdigest(),
                              images, {str(key): str(value) for key, value in networks.items()})


@dataclass(frozen=True)
class Match:
    """Which tensors of the networks there are in a file of initial weights, by name and shape.

    Args:
        sources: tensor of a network -> its name in the file.
        averages: tensor of an averaged network -> its name in the file.
        lines: what was taken and what was not, for people.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    averages: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


def match_weights(weights: InitialWeights, recipe: Recipe, modules: nn.ModuleDict) -> Match:
    """Match names and shapes, without reading tensors.  RequestError if no network fits."""
    checkpoint.read_header(Path(weights.file), weights.kind)
    stored = checkpoint.shapes(Path(weights.file))
    prefix = "modules." if weights.kind == "state" else ""
    averaged = "ema." if any(name.startswith("ema.") for name in stored) and prefix else prefix
    trained = [name for player in recipe.players.values() for name in player.modules]
    sources, taken, misfits, absent = dict[str, str](), list[str](), list[str](), list[str]()
    for name in dict.fromkeys([*recipe.ema_modules, *trained]):
        module = modules[name]
        expected = {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
        fitting = {key: prefix + key for key, tensor in expected.items()
                   if _fits(tensor, stored.get(prefix + key))}
        parameters = {f"{name}.{key}": p.numel() for key, p in module.named_parameters()}
        count, total = sum(parameters[key] for key in parameters if key in fitting), sum(parameters.values())
        if total and count < MIN_SHARE * total:
            there = any(key.startswith(f"{prefix}{name}.") for key in stored)
            absent.append(f"{name} ({'other shapes' if there else 'not there'})")
            continue
        sources |= fitting
        if total:
            taken.append(f"{name} {'whole' if len(fitting) == len(expected) else f'{count / total:.1%}'}")
        misfits += [_misfit(key, tensor, stored.get(prefix + key)) for key, tensor in expected.items()
                    if key not in fitting]
    what = f"{weights.model} ({Path(weights.file).name}, {weights.images:,} images)"
    if not taken:
        raise RequestError(f"--init {what} has no network that fits those of this run: {', '.join(absent)}; "
                           "accepted: a model of the same recipe, networks and size")
    averages = {key: averaged + key for key in sources if key.partition(".")[0] in recipe.ema_modules}
    lines = [f"init: {what}: {', '.join(taken)}"]
    if absent:
        lines[0] += f"; from scratch: {', '.join(absent)}"
    if misfits:
        more = f" and {len(misfits) - MAX_NAMED} more" if len(misfits) > MAX_NAMED else ""
        lines.append(f"init: from scratch, as they do not fit: {', '.join(misfits[:MAX_NAMED])}{more}")
    return Match(sources, averages, tuple(lines))


def _fits(tensor: Tensor, found: Stored | None) -> bool:
    return found is not None and found[0] == tuple(tensor.shape) and \
        found[1].is_floating_point == tensor.is_floating_point()


def _misfit(name: str, tensor: Tensor, found: Stored | None) -> str:
    shapes = tensor.shape, found[0] if found else ()
    here, there = ("x".join(map(str, shape)) or "a number" for shape in shapes)
    return f"{name} ({there if found else 'absent'} there, {here} here)"


@torch.no_grad()
def load_weights(weights: InitialWeights, recipe: Recipe, modules: nn.ModuleDict,
                 ema_modules: nn.ModuleDict) -> None:
    """Copy the weights that fit into the networks and their averages.

    RequestError if the file is damaged, has changed since the run began, or has values that are not finite.
    """
    path = Path(weights.file)
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != weights.sha256:
            raise RequestError(f"{path} has changed since this run began, which has no state yet; choose "
                               "another --out to begin again")
    match, (tensors, _) = match_weights(weights, recipe, modules), checkpoint.load(path, weights.kind)
    averages = {name: source for name, source in match.averages.items()
                if ema_modules[name.partition(".")[0]] is not modules[name.partition(".")[0]]}
    for network, names in ((modules, match.sources), (ema_modules, averages)):
        target = network.state_dict()
        for name, source in names.items():
            if tensors[source].is_floating_point() and not tensors[source].isfinite().all():
                raise RequestError(f"{path} cannot be used: {source[:80]} has values that are not finite")
            target[name].copy_(tensors[source])
    for name, player in recipe.players.items():
        if f"H_{name}" in modules:      # Historical averages, which began with other weights.
            history: Any = modules[f"H_{name}"]
            parameters = [p for module in player.modules for p in modules[module].parameters()]
            for mean, p in zip(history.means(), parameters, strict=True):
                mean.copy_(p)
