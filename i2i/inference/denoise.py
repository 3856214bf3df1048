"""Denoise images by a model that reconstructs them: what it cannot express is lost, noise first."""

from collections.abc import Mapping

import torch
from torch import Tensor

from i2i.errors import RequestError
from i2i.images.format import DecodedImage
from i2i.inference.model import Model
from i2i.inference.translator import Translator
from i2i.recipes.base import Reconstructs


class Denoiser(Translator):
    """A generator's reconstruction as a translation, of images of the model's size.

    RequestError for a model that reconstructs nothing, or that would need an image's class.
    """

    multiple = 1

    def __init__(self, model: Model) -> None:
        name = model.header["recipe"]["name"]
        if not isinstance(model.recipe, Reconstructs):
            raise RequestError(f"--task denoise is for models that reconstruct images, and {name} does not; "
                               "accepted: a model of vae")
        if model.classes:
            raise RequestError("--task denoise is for models without classes: the class of an image is not "
                               "known; accepted: a model trained with conditional=false")
        self.model, self.recipe = model, model.recipe
        self.formats = dict.fromkeys("ab", model.formats["b"])

    @property
    def feature_networks(self) -> Mapping[str, str]:
        return self.model.feature_networks

    def sides(self, direction: str = "ab") -> tuple[str, str]:
        if direction != "ab":
            raise RequestError(f"direction {direction}: denoising has one direction; accepted: ab")
        return "a", "b"

    def memory(self, height: int, width: int, direction: str = "ab") -> int:
        return 4 * height * width * self.formats["a"].channels      # Of the image: networks see small ones.

    def available_memory(self) -> int:
        return self.model.available_memory()

    def prepare(self, image: DecodedImage, direction: str = "ab") -> Tensor:
        height, width = self.model.header["info"]["size"]
        if image.array.shape[:2] != (height, width):
            raise RequestError(f"it has {image.array.shape[1]}x{image.array.shape[0]} pixels; accepted: "
                               f"{width}x{height}, the size that the model was trained on")
        return super().prepare(image, direction)

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """Reconstruct a batch; nothing is drawn.  RequestError for another size than the model's."""
        self.sides(direction)
        size = tuple(self.model.header["info"]["size"])
        if tuple(images.shape[-2:]) != size:
            raise RequestError(f"images of {images.shape[-1]}x{images.shape[-2]} pixels; accepted: "
                               f"{size[1]}x{size[0]}, the size that the model was trained on")
        return self.recipe.reconstruct(self.model.modules, {"b": images.to(self.model.device)}).float()
