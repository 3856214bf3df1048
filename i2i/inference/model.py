"""Trained models: `load(path).translate(images)`, `load(path).generate(n)`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from i2i.config import from_dict
from i2i.errors import RequestError, require
from i2i.images.convert import make_grid, tensor_to_rgb
from i2i.images.encode import encode
from i2i.images.format import ImageFormat
from i2i.inference.device import best_device
from i2i.inference.memory import available_memory, bytes_per_pixel
from i2i.inference.model_file import find_model, read_networks
from i2i.inference.translator import Translator
from i2i.nets.norms import BatchNorm
from i2i.nets.padding import pad_to_multiple
from i2i.recipes.base import DataInfo, Recipe
from i2i.registry import suggest
from i2i.seeding import noise_for, stable_seed

STATISTICS = ("running", "image")
BATCH_PIXELS = 8 * 256 * 256    # In a batch, unless the user sets its size.
Labels = int | str | Sequence[int | str] | Tensor | None


class Model(Translator):
    """A trained model, which translates images or generates them from noise.  Load one with `i2i.load`.

    Attributes:
        recipe: the algorithm it was trained with, and its settings.
        modules: the generating networks, in eval mode, by name.
        header: metadata of the model file.
        path: the model file, or None if it was made in another way.
        directions: the directions it translates in ("ab", "ba"); empty for generators from noise.
        formats: dtype, channels and range of the images of sides "a" and "b"; generators make those of "b".
    """

    def __init__(self, recipe: Recipe, modules: nn.ModuleDict, header: Mapping[str, Any],
                 device: torch.device, path: Path | None = None) -> None:
        self.recipe, self.header, self.device, self.path = recipe, header, device, path
        self.modules = modules.to(device).eval().requires_grad_(False)
        self.formats = {side: ImageFormat.of(kind) for side, kind in header["formats"].items()}
        # Direction -> key of its result in what the recipe generates.
        self.directions = {source + recipe.targets[key]: key for key, source in recipe.sources.items()}
        self.statistics = "running"
        self._bytes_per_pixel: dict[str, float] = {}        # By source.
        translators = list(modules.values()) if recipe.sources else []
        self.multiple = max((getattr(network, "multiple", 1) for network in translators), default=1)
        self.min_size = max((getattr(network, "smallest", 1) for network in translators), default=1)

    def __repr__(self) -> str:
        name, (height, width) = self.header["recipe"]["name"], self.header["info"]["size"]
        if self.directions:
            images = f"{self.formats['a']} -> {self.formats['b']}, {' and '.join(self.directions)}"
        else:
            images = f"noise -> {self.formats['b']}"
            images += f", {len(self.classes)} classes" if self.classes else ""
        seen = self.header.get("images")        # 0 in converted models.
        trained = f"{width}x{height}" + (f", {seen:,} images seen" if seen else "")
        return f"Model({name}: {images}, {trained}, on {self.device})"

    def _repr_png_(self) -> bytes | None:
        """A sheet for notebooks: what a generator makes, or the sample grid that a translator's run has."""
        if self.directions:
            return self._sample_grid()
        columns = min(len(self.classes) or 6, 12)
        labels = list(range(columns)) * 3 if self.classes else None
        rgb = [tensor_to_rgb(image, self.formats["b"])
               for image in self.generate(3 * columns, labels=labels)]
        sheet = make_grid([rgb[i:i + columns] for i in range(0, len(rgb), columns)])
        return encode(".png", sheet, ImageFormat())

    def _sample_grid(self) -> bytes | None:
        """The newest sample grid of the run that is not newer than the model; None outside a run folder."""
        seen = self.header.get("images")
        if self.path is None or not isinstance(seen, int):
            return None
        grids = (self.path.parent / "samples").glob("*.png")
        made = [grid for grid in grids if grid.stem.isdecimal() and int(grid.stem) <= seen]
        try:
            return max(made, key=lambda grid: int(grid.stem)).read_bytes() if made else None
        except OSError:
            return None

    @property
    def statistics(self) -> str:
        """What batch norms normalize with: the "running" statistics of training, or those of each "image"."""
        return self._statistics

    @statistics.setter
    def statistics(self, value: str) -> None:
        if value not in STATISTICS:
            raise RequestError(f"statistics={value} is not known; accepted: {' or '.join(STATISTICS)}")
        self._statistics = value
        for module in self.modules.modules():
            if isinstance(module, BatchNorm):
                module.per_image = value == "image"

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """Translate a batch of any height and width, padding by reflection to what the network needs.

        Args:
            images: (N, C, H, W) in [-1, 1]; the result is (N, C', H, W) float32, on the device of the model.
            seed: samples dropout and noise with this seed; without one the result is deterministic.
            direction: "ab", or "ba" in models that learned both.

        Raises:
            RequestError: if the direction was not learned, or the model makes images from noise.
        """
        self.sides(direction)
        self._start_sampling(seed)
        return self._forward(images.to(self.device), direction)

    def _start_sampling(self, seed: int | None) -> None:
        """Have the next `_forward` sample with a seed, or be deterministic."""
        for module in self.modules.modules():
            if isinstance(module, nn.Dropout):
                module.train(seed is not None)
        if self.samples_in_steps:
            cast(Any, self.modules["S"]).seed = seed or 0
        if seed is not None:
            check_seed(seed)
            torch.manual_seed(stable_seed(seed))

    def _forward(self, images: Tensor, direction: str) -> Tensor:
        """What `__call__` computes: pad, translate, crop."""
        height, width = images.shape[-2:]
        padded, top, left = pad_to_multiple(images, self.multiple, self.min_size)
        result = self.recipe.generate(self.modules, {direction[0]: padded})[self.directions[direction]]
        return result[..., top:top + height, left:left + width].float()

    def sides(self, direction: str) -> tuple[str, str]:
        name = self.header["recipe"]["name"]
        if not self.directions:
            raise RequestError(f"this {name} model makes images from noise; use generate")
        if direction not in self.directions:
            raise RequestError(f"direction {direction} is none that this {name} model has learned; "
                               f"accepted: {' or '.join(self.directions)}")
        return direction[0], direction[1]

    def memory(self, height: int, width: int, direction: str = "ab") -> int:
        source, _ = self.sides(direction)
        if source not in self._bytes_per_pixel:
            info = from_dict(DataInfo, self.header["info"])
            self._bytes_per_pixel[source] = bytes_per_pixel(self.recipe, info, source, self.multiple)
        height, width = (-(-max(side, self.min_size) // self.multiple) * self.multiple
                         for side in (height, width))
        return int(height * width * self._bytes_per_pixel[source])

    def available_memory(self) -> int:
        return available_memory(self.device)

    @property
    def feature_networks(self) -> Mapping[str, str]:
        networks: Mapping[str, str] = self.header.get("feature_networks", {})
        return networks

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes it generates; empty for models trained without labels."""
        return tuple(self.header.get("classes", ()))

    def generate(self, n: int, *, labels: Labels = None, seed: int = 0, truncation: float = 1.0,
                 steps: int | None = None, guidance: float | None = None, batch_size: int = 64) -> Tensor:
        """Generate the first `n` images of a seed: (n, C, H, W) in [-1, 1], on the CPU.

        Image i depends only on (seed, i), its label and the truncation, up to rounding, which changes with
        the size of a batch.

        Args:
            labels: a class, by number or name, for each image, or one for all; by default in turn.
            truncation: below 1 moves styles towards their mean (Karras et al. 2019, appendix B); -2 to 2.
            steps, guidance: see `set_sampling`.
            batch_size: images per pass through the network.

        Raises:
            RequestError: if the model makes images from images, has no such class, no style space to
                truncate, or no steps, or the numbers of images and labels do not fit.
        """
        for key, value in (("n", n), ("batch_size", batch_size)):
            require(hasattr(value, "__index__") and value >= 1, key, value, "an integer, 1 or more")
        turn = torch.tensor(self.learned_classes)
        numbers = turn[torch.arange(n) % len(turn)] if self.classes else None
        if labels is not None:
            labels = labels.tolist() if isinstance(labels, Tensor) else labels
            labels = [labels] if isinstance(labels, int | str) else labels
            chosen = [self.class_number(label) for label in labels]
            if len(chosen) not in (1, n):
                raise RequestError(f"{len(chosen)} labels for {n} images; accepted: one for each or for all")
            numbers = torch.tensor(chosen).expand(n)
        batches = [slice(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]
        return torch.cat([self.render(range(n)[batch], None if numbers is None else numbers[batch], seed=seed,
                                      truncation=truncation, steps=steps, guidance=guidance)
                          for batch in batches])

    @torch.inference_mode()
    def render(self, indices: Sequence[int], labels: Tensor | None, *, seed: int,
               truncation: float = 1.0, steps: int | None = None, guidance: float | None = None) -> Tensor:
        """Generate images of a seed by indices and (N,) class numbers as one batch, as `generate` does."""
        self.set_truncation(truncation)
        self.set_sampling(steps, guidance)
        return self.generate_from(self.noise(seed, indices), labels)

    def noise(self, seed: int, indices: Sequence[int]) -> Tensor:
        """The standard normal noise behind images of a seed, (N, D), on the CPU."""
        check_seed(seed)
        size = cast(int, self.modules["Z"].noise_dim)
        return torch.stack([noise_for(seed, index, size) for index in indices])

    @torch.inference_mode()
    def generate_from(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Generate images from standard normal noise.  (N, D) and (N,) -> (N, C, H, W) on the CPU"""
        batch = {"eps": noise.to(self.device)} | ({} if labels is None else {"c": labels.to(self.device)})
        return next(iter(self.recipe.generate(self.modules, batch).values())).float().cpu()

    def set_truncation(self, truncation: float) -> None:
        """Set how far styles may be from their mean, -2 to 2: 1 as trained, 0 the mean itself.

        RequestError for another value, or if this model makes images from images.
        """
        if self.recipe.sources:
            raise RequestError(f"this {self.header['recipe']['name']} model makes images from images; use "
                               "translate")
        truncated: list[Any] = [module for module in self.modules.values() if hasattr(module, "truncation")]
        require(bool(truncated) or truncation == 1, "truncation", truncation,
                "1, in a model without a style space or temperature")
        require(-2 <= truncation <= 2, "truncation", truncation, "-2 to 2")
        for module in truncated:
            module.truncation = truncation

    def set_sampling(self, steps: int | None = None, guidance: float | None = None) -> None:
        """Set the number of steps and the weight of labels; None: as trained.  RequestError if not known."""
        if self.samples_in_steps:
            cast(Any, self.modules["S"]).set(steps, guidance)
            return
        for key, value in {"steps": steps, "guidance": guidance}.items():
            require(value is None, key, value, f"none in this {self.header['recipe']['name']} model, whose "
                    "sampling has no such setting")

    @property
    def samples_in_steps(self) -> bool:
        """Whether images are made in several steps, whose number can be set."""
        return "S" in self.modules

    def batch_size(self) -> int:
        """Default number of images generated at once: fewer for larger images."""
        return default_batch_size(*self.header["info"]["size"])

    @property
    def learned_classes(self) -> tuple[int, ...]:
        """The numbers of the classes that had training images."""
        empty = self.header.get("empty_classes", [])
        return tuple(number for number in range(len(self.classes)) if number not in empty)

    def class_number(self, label: int | str) -> int:
        """The number of a class given by name or number.  RequestError if there is no such class."""
        if not self.classes:
            raise RequestError("this model was trained without labels; it has no classes to choose from")
        if isinstance(label, str):
            if label not in self.classes:
                raise RequestError(f"no class is called {label!r}; {suggest(label, self.classes)}")
            return self.classes.index(label)
        require(hasattr(label, "__index__") and 0 <= label < len(self.classes), "label", label,
                f"0 to {len(self.classes) - 1}, or a name")
        return int(label)


def check_seed(seed: int) -> None:
    """RequestError unless this can be a seed."""
    require(hasattr(seed, "__index__") and seed >= 0, "seed", seed, "an integer, 0 or more")


def default_batch_size(height: int, width: int) -> int:
    """Images of this size that go through a network at once unless the user says otherwise."""
    return max(1, min(32, BATCH_PIXELS // (height * width)))


def load(path: str | Path, device: str = "auto") -> Model:
    """Load a trained model.

    Args:
        path: a `.safetensors` file, a run folder, hf:USER/NAME of the Hub, or the name of a bundled model.
        device: "cpu", "cuda", "mps", or "auto" for a GPU if there is one.

    Raises:
        RequestError: if there is no model at the path, its file is damaged, or the device is not available.
        JobError: if the Hub cannot be reached and the model has not been downloaded before.
    """
    file = find_model(path)
    return Model(*read_networks(file), best_device(device), file)
