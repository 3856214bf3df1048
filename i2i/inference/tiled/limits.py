"""How much memory a translation may take, and whether an image is computed in parts."""

import re
from dataclasses import dataclass

from i2i.errors import RequestError, require
from i2i.images.memory import available_host_memory
from i2i.inference.memory import LARGE_IMAGE
from i2i.inference.model import Model
from i2i.inference.translator import Chain, Translator

UNITS = {"K": 1, "M": 2, "G": 3, "T": 4}
SHARE = 0.75            # Of the memory that is free, as results are decoded and encoded, too.
SIZE = "auto, or a size such as 500MB or 2GB"


@dataclass(frozen=True)
class Limits:
    """A limit of working memory and the rows of an image that are computed at once.

    Attributes:
        memory: bytes beyond the model and the decoded image; 0: by what is free.
        tile: rows; 0: as many as fit, and images that fit are not computed in parts.
    """

    memory: int = 0
    tile: int = 0

    @staticmethod
    def parse(memory: str | int = "auto", tile: str | int = "auto", flag: str = "") -> "Limits":
        """The limits from "auto", "2GB" or bytes, and "auto" or rows.  RequestError for anything else."""
        text = str(memory).strip()
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B", text, re.IGNORECASE)
        size = 0
        if found:
            size = int(float(found[1]) * (1024 if found[3] else 1000) ** UNITS[found[2].upper()])
        elif isinstance(memory, int):
            size = memory
        require(text == "auto" or (size > 0 and (found is not None or isinstance(memory, int))),
                f"{flag}memory", memory, SIZE)
        rows = str(tile).strip()
        require(rows == "auto" or (rows.isdecimal() and int(rows) > 0), f"{flag}tile", tile,
                "auto, or rows, 1 or more")
        return Limits(size, 0 if rows == "auto" else int(rows))

    def bytes(self, model: Translator) -> int:
        """The limit for a model: what was given, or most of what is free."""
        free = int(SHARE * min(model.available_memory(), available_host_memory()))
        return min(self.memory, free) if self.memory else free

    def in_parts(self, model: Translator, height: int, width: int, direction: str = "ab") -> bool:
        """Whether an image of this size is computed in parts.

        RequestError if it would have to be, and the model cannot compute it so.
        """
        given = self.memory or self.tile
        if not given and height * width <= LARGE_IMAGE:
            return False
        if not self.tile and model.memory(height, width, direction) <= (self.bytes(model) if self.memory
                                                                        else model.available_memory()):
            return False
        if reason := _only_whole(model):
            if not given:
                model.check_memory(height, width, direction)
            raise RequestError(reason)
        return True


def _only_whole(model: Translator) -> str:
    """Why a model cannot compute an image in parts; "" if it can."""
    if isinstance(model, Chain):
        return next(filter(None, (_only_whole(stage) for stage, _ in model.stages)), "")
    if isinstance(model, Model) and model.recipe.family.steps == 1:
        return ""
    name = model.header["recipe"]["name"] if isinstance(model, Model) else type(model).__name__
    return (f"a {name} model calls its network many times to make an image, or takes images of one size, and "
            "cannot compute them in parts; accepted: smaller images, without --memory and --tile")
