"""Images as points of a model's latent space, and the file that keeps these."""

import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from i2i.data.labeled import ImageDataset
from i2i.data.sources import Source, Unreadable, image_names, open_source
from i2i.errors import RequestError
from i2i.files import write_atomically
from i2i.images.convert import ConversionLog
from i2i.inference.latent_space import latent_spaces
from i2i.inference.model import Model


@dataclass(frozen=True)
class Latents:
    """Points of a latent space, and the images they are of.

    Attributes:
        points: (N, D), on the CPU.
        labels: (N,) class numbers; -1 in models without classes.
        names: of the images.
        psnr: peak signal-to-noise ratios in dB of the images that the model makes of the points.
        space: "noise" or "styles".
    """

    points: Tensor
    labels: Tensor
    names: Sequence[str]
    psnr: Sequence[float]
    space: str

    def save(self, path: Path) -> None:
        """Write an `.npz` with an array for each attribute.  JobError if that fails."""
        arrays = {"points": self.points.numpy(), "labels": self.labels.numpy(), "names": np.array(self.names),
                  "psnr": np.array(self.psnr, np.float32), "space": np.array(self.space)}

        def write(part: Path) -> None:
            with open(part, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]

        write_atomically(path, write)

    @classmethod
    def read(cls, path: str | Path, model: Model) -> "Latents":
        """What `save` wrote.  RequestError if a file is damaged, or of a model with other latents."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in ("points", "labels", "names", "psnr", "space")}
            points = torch.from_numpy(arrays["points"].astype(np.float32))
            labels = torch.from_numpy(arrays["labels"].astype(np.int64))
            names = list(map(str, arrays["names"]))
            found = cls(points, labels, names, arrays["psnr"].tolist(), str(arrays["space"]))
            if points.dim() != 2 or labels.shape != (len(points),) or not points.isfinite().all():
                raise ValueError("its arrays do not fit each other")
        except FileNotFoundError:
            raise RequestError(f"--latents {path} does not exist") from None
        except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, MemoryError,
                zipfile.BadZipFile) as error:
            raise RequestError(f"--latents {path} is not what i2i explore invert writes ({error})") from None
        classes = len(model.classes)
        sizes = {name: space.points(0, [0], 0 if classes else None).shape[1]
                 for name, space in latent_spaces(model).items()}
        if sizes.get(found.space) != points.shape[1]:
            accepted = " or ".join(f"{name} of {size}" for name, size in sizes.items())
            raise RequestError(f"--latents {path} holds {found.space[:20]} of {points.shape[1]} numbers; "
                               f"accepted: {accepted}, as this model has")
        if not all(0 <= label < classes if classes else label == -1 for label in labels.tolist()):
            raise RequestError(f"--latents {path} holds labels that are none of the {classes} classes of "
                               "this model")
        return found


def dataset_for(model: Model, source: Source, names: Sequence[str]) -> ImageDataset:
    """Images as a generator makes them: of its size and format."""
    return ImageDataset(source, "all", names).for_evaluation(
        (model.formats["a"], model.formats["b"]), tuple(model.header["info"]["size"]))


def read_images(model: Model, paths: Sequence[str | Path], limit: int = sys.maxsize, *,
                warn: Callable[[str], None] = lambda line: None) -> tuple[list[str], Tensor]:
    """The names of the first `limit` images of files, folders and zips together, and the images, (N, C, H, W)
    of the model's size.

    Args:
        warn: called with each line on what was converted.

    Raises:
        RequestError: if one cannot be read.
    """
    found, images, converted = list[str](), list[Tensor](), ConversionLog()
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
        found += names
    for line in converted.lines():
        warn(line)
    return found, torch.stack(images)
