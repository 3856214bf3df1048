"""Imported by the process that the others are forked from: trains for a moment, so that none has to import and look up what torch needs."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import i2i
import i2i.cli.catalog
import i2i.evaluation.request
import i2i.inference.translate
from tests import forked  # noqa: F401 - its children find it imported.
from tests.conftest import SMALL, drawing

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    for split in ("train", "val"):
        (Path(folder) / "data" / split).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.asarray(drawing(i))).save(Path(folder) / "data" / split / f"{i}.png")
    i2i.train("pix2pix", *SMALL, "train.images=4", data=Path(folder) / "data", out=Path(folder) / "run", device="cpu")
