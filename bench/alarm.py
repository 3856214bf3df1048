"""How often the alarm rings, and how soon: generators that hand out real pictures, moved and with noise, and then fewer and fewer of them.

python bench/alarm.py [SEEDS] [SEEDS WITH FEATURES]

Each run is 30 looks: ten in which pictures come out of the grey, ten healthy ones, ten after the collapse.  `modes`: so many pictures are left;
`share`: of the pictures made, the others stay healthy; `inter`: one picture for all classes, `intra`: one for each class, of a generator that is told
classes.  A share of 0 is a healthy run, in which every ring is a false alarm.  Features take 6 s for a look, so few runs have them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from i2i import jobs, training
from i2i.data.files import conformed
from i2i.data.transforms import fit
from i2i.engine.runtime import Runtime
from i2i.images import to_tensor
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.watch.look import PIXELS, Look, best_look, thumbnails

LOOKS, GREY, AT = 30, 10, 20
SIZE = 32           # Pixels a side.
SETTINGS = [("healthy", 0, 0.0), *(("modes", modes, 1.0) for modes in (1, 8, 32, 64, 128, 256)),
            *(("modes", 8, share) for share in (0.9, 0.8, 0.7, 0.5)),
            ("inter", 1, 1.0), ("inter", 1, 0.8), ("intra", 1, 1.0), ("intra", 1, 0.8)]


class Played(nn.Module):
    """z, class -> a picture of the data set."""

    def __init__(self, bank: Tensor, labels: np.ndarray, kind: str, modes: int, share: float, seed: int) -> None:
        super().__init__()
        self.bank, self.kind, self.share, self.look = bank, kind, share, 0
        self.draw = np.random.default_rng(seed)
        self.left = self.draw.choice(len(bank), modes or 1, replace=False)
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.chosen = [int(self.draw.choice(rows)) for rows in self.members]

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """N×100[, N] -> N3HW"""
        out = []
        for i in range(len(z)):
            rows = np.arange(len(self.bank)) if c is None else self.members[int(c[i])]
            row = int(self.draw.choice(rows))
            if self.look >= AT and self.draw.random() < self.share:
                own = self.chosen[int(c[i]) if c is not None else 0]
                row = {"modes": int(self.draw.choice(self.left)), "inter": int(self.left[0]), "intra": own}[self.kind]
            picture = torch.roll(self.bank[row], tuple(self.draw.integers(-1, 2, 2)), (1, 2))
            out.append(picture)
        made = torch.stack(out)
        return (made + 0.02 * torch.randn(made.shape)) * min(1.0, self.look / GREY)


def runs(kind: str, modes: int, share: float, seeds: int, look: Look) -> tuple[list[int | None], list[str], float]:
    """When each run rang, in looks after the collapse, as what kind; and seconds for a look."""
    job = jobs.prepare("cgan" if kind in ("inter", "intra") else "dcgan", (f"data.size={SIZE}", "train.images=1000"))
    split, rang, kinds, seconds = job.splits["train"], [], [], 0.0
    bank = torch.stack([to_tensor(fit(conformed(split[i][0], job.kinds[1]), job.crop), job.kinds[1]) for i in range(len(split))])
    with tempfile.TemporaryDirectory() as folder:
        first = training.alarm_for(job, Runtime(device="cpu"), RunFolder(folder), lambda: look, lambda line: None)
        assert first is not None
        for seed in range(seeds):
            place = Path(folder) / str(seed)
            place.mkdir()
            torch.manual_seed(seed)
            alarm = training.alarm_for(job, Runtime(device="cpu"), RunFolder(place), lambda: look, lambda line: None)
            assert alarm is not None
            alarm.screen, alarm.probe, alarm.advise = first.screen, first.probe, lambda kind: []     # Real pictures are looked at once.
            G = Played(bank, np.asarray(split.labels), kind, modes, share, seed)
            m, began = nn.ModuleDict({"Z": nn.Identity(), "G": G}), time.perf_counter()
            for step in range(LOOKS):
                G.look = step
                alarm(m, 1000 * (step + 1))
            seconds += time.perf_counter() - began
            found = [entry["rang"] for entry in log.read(place / "alarm.jsonl") if "rang" in entry]
            rang.append(found[0]["images"] // 1000 - AT if found else None)
            kinds += [found[0]["kind"]] if found else []
    return rang, kinds, seconds / seeds / LOOKS


def main(seeds: int, with_features: int) -> None:
    """One line for each setting."""
    torch.set_num_threads(1)
    features = best_look(torch.device("cpu"), print)
    print("| collapse | share of pictures | rang, thumbnails twice | rang, with features | looks until then | kind |\n|---|---|---|---|---|---|")
    for kind, modes, share in SETTINGS:
        rang, kinds, _ = runs(kind, modes, share, seeds, thumbnails(PIXELS))
        sure, sure_kinds, _ = runs(kind, modes, share, with_features, features)
        waited = [each for each in rang + sure if each is not None]
        span = f"{min(waited)} to {max(waited)}" if waited else "–"
        words = {"modes": f"{modes} pictures left", "healthy": "none"}.get(kind, kind)
        named = ", ".join(sorted(set(sure_kinds or kinds))) or "–"
        counts = [sum(each is not None for each in found) for found in (rang, sure)]
        print(f"| {words} | {share:g} | {counts[0]} of {seeds} | {counts[1]} of {with_features} | {span} | {named} |", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], *["10", "1"][len(sys.argv) - 1:]]))
