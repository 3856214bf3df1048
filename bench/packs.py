"""How soon D alone separates packs of points of the grid from uniformly distributed points, by its loss: 2
log 2 = 1.386 while it sees no difference.

    python bench/packs.py [STEPS]

Networks and learning rate are those of `i2i bench modes grid`, without G; printed are means over the 200
steps before each checkpoint.
"""

import sys

import torch
from torch.nn import functional as F

from i2i.benchmarks.mixtures import grid
from i2i.registry import Spec, build

torch.set_num_threads(1)
STEPS = int((sys.argv[1:] or ["2500"])[0])
HALF_SIDE = 5.0     # Of the square of uniform points.
CHECKPOINTS = [500, 1000, 1500, 2000, 2500, 5000, 10000]

for pack, packs in ((1, 128), (2, 64), (2, 128), (4, 32), (4, 128)):
    torch.manual_seed(0)
    D = build("discriminator", Spec("mlp", {"width": 64, "layers": 3, "activation": "leaky"}), 2 * pack,
              (1, 1), 0)
    optimizer = torch.optim.Adam(D.parameters(), 4e-3, betas=(0.5, 0.99))
    points, losses = grid().batches(1, packs * pack), []
    for _ in range(STEPS):
        real, uniform = next(points)["b"], (torch.rand(packs * pack, 2) * 2 - 1) * HALF_SIDE
        real_logits, fake_logits = (D(x.reshape(packs, -1, 1, 1)) for x in (real, uniform))
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    means = "  ".join(f"{sum(losses[step - 200:step]) / 200:.2f} at {step:,}" for step in CHECKPOINTS
                      if step <= STEPS)
    print(f"{packs:3} packs of {pack}:  {means}", flush=True)
