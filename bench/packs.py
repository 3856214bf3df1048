"""How soon D alone tells packs of points of the grid from points spread evenly, by its loss: 2 log 2 = 1.386
where it sees nothing.

    python bench/packs.py [STEPS]

The networks and the rate of `i2i bench modes grid`, without G; means over the last 200 steps before each that
is printed.
"""

import sys

import torch
from torch.nn import functional as F

from i2i.benchmarks.mixtures import grid
from i2i.registry import Spec, build

torch.set_num_threads(1)
STEPS = int((sys.argv[1:] or ["2500"])[0])
SPREAD = 5.0        # Half the side of the square.
TOLD = [500, 1000, 1500, 2000, 2500, 5000, 10000]

for pack, packs in ((1, 128), (2, 64), (2, 128), (4, 32), (4, 128)):
    torch.manual_seed(0)
    D = build("discriminator", Spec("mlp", {"width": 64, "layers": 3, "activation": "leaky"}), 2 * pack,
              (1, 1), 0)
    optimizer = torch.optim.Adam(D.parameters(), 4e-3, betas=(0.5, 0.99))
    points, losses = grid().batches(1, packs * pack), []
    for _ in range(STEPS):
        real, spread = next(points)["b"], (torch.rand(packs * pack, 2) * 2 - 1) * SPREAD
        loss = F.softplus(-D(real.reshape(packs, -1, 1, 1))).mean() + F.softplus(D(spread.reshape(packs, -1,
                                                                                                  1,
                                                                                                  1))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    told = "  ".join(f"{sum(losses[step - 200:step]) / 200:.2f} at {step:,}" for step in TOLD
                     if step <= STEPS)
    print(f"{packs:3} packs of {pack}:  {told}", flush=True)
