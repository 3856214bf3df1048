"""The training loops that everyone clones, written plainly, for comparison: pix2pix and CycleGAN as in
pytorch-CycleGAN-and-pix2pix, DCGAN as in PyTorch's examples; StyleGAN2 is in plain_stylegan2.py.

Nested networks, per-tensor Adam, `requires_grad` toggled, sums of losses read after each step.  `step` takes
a batch and returns the losses; weights can be copied from ours, so that losses can be compared."""

from __future__ import annotations

import itertools
import random

import torch
from torch import nn

ADAM = {"foreach": False, "fused": False}


def toggle(networks, on):
    """Freeze or thaw."""
    for network in networks:
        for p in network.parameters():
            p.requires_grad = on


# ---------------------------------------------------------------------------------------------- pix2pix

class Level(nn.Module):
    """One level of a nested U-Net."""

    def __init__(self, outer, inner, *, inside=None, channels=None, dropout=False):
        super().__init__()
        self.outermost = channels is not None
        down = nn.Conv2d(channels or outer, inner, 4, 2, 1, bias=False)
        if self.outermost:
            layers = [down, inside, nn.ReLU(True), nn.ConvTranspose2d(2 * inner, channels, 4, 2, 1),
                      nn.Tanh()]
        elif inside is None:
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True),
                      nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
        else:
            layers = [nn.LeakyReLU(0.2, True), down, nn.BatchNorm2d(inner), inside, nn.ReLU(True),
                      nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """Through this level and all inside."""
        return self.layers(x) if self.outermost else torch.cat([x, self.layers(x)], 1)


def patch(channels, width, norm):
    """PatchGAN of three layers."""
    bias = norm is nn.InstanceNorm2d
    layers, c = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)], width
    for out, stride in ((2 * width, 2), (4 * width, 2), (8 * width, 1)):
        layers += [nn.Conv2d(c, out, 4, stride, 1, bias=bias), norm(out), nn.LeakyReLU(0.2, True)]
        c = out
    return nn.Sequential(*layers, nn.Conv2d(c, 1, 4, 1, 1))


class Pix2Pix:
    """Its plain loop."""

    def __init__(self, size, width=64):
        depth = size.bit_length() - 1
        widths = [width * min(2**i, 8) for i in range(depth)]
        level = None
        for i in reversed(range(1, depth)):
            level = Level(widths[i - 1], widths[i], inside=level,
                          dropout=level is not None and depth - i <= max(2, depth - 4))
        self.networks = {"G": Level(None, width, inside=level, channels=3),
                         "D": patch(6, width, nn.BatchNorm2d)}
        self.G, self.D = self.networks.values()
        self.opt_G, self.opt_D = (torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999), **ADAM)
                                  for network in (self.G, self.D))
        self.gan, self.l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def step(self, batch):
        """One iteration."""
        a, b = batch["a"], batch["b"]
        fake = self.G(a)
        toggle([self.D], True)
        self.opt_D.zero_grad()
        out = self.D(torch.cat([a, fake], 1).detach())
        loss_fake = self.gan(out, torch.zeros_like(out))
        out = self.D(torch.cat([a, b], 1))
        d = (loss_fake + self.gan(out, torch.ones_like(out))) / 2
        d.backward()
        self.opt_D.step()
        toggle([self.D], False)
        self.opt_G.zero_grad()
        out = self.D(torch.cat([a, fake], 1))
        gan, l1 = self.gan(out, torch.ones_like(out)), self.l1(fake, b)
        (gan + 100 * l1).backward()
        self.opt_G.step()
        return {"d": d.item(), "gan": gan.item(), "l1": l1.item()}


# ---------------------------------------------------------------------------------------------- CycleGAN

class Block(nn.Module):
    """A residual block."""

    def __init__(self, c):
        super().__init__()
        self.layers = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c),
                                    nn.ReLU(True),
                                    nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c))

    def forward(self, x):
        """Around the skip."""
        return x + self.layers(x)


def resnet(width, blocks):
    """c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3."""
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True)]
    for c in (width, 2 * width):
        layers += [nn.Conv2d(c, 2 * c, 3, 2, 1), nn.InstanceNorm2d(2 * c), nn.ReLU(True)]
    layers += [Block(4 * width) for _ in range(blocks)]
    for c in (4 * width, 2 * width):
        layers += [nn.ConvTranspose2d(c, c // 2, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(c // 2),
                   nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())


class Pool:
    """A list of generated images."""

    def __init__(self, size=50):
        self.size, self.images = size, []

    def query(self, images):
        """Each, or one of the past."""
        out = []
        for image in images.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(image)
                out.append(image)
            elif random.random() > 0.5:
                place = random.randrange(self.size)
                out.append(self.images[place].clone())
                self.images[place] = image
            else:
                out.append(image)
        return torch.cat(out)


class CycleGAN:
    """Its plain loop."""

    def __init__(self, size, width=64):
        blocks = 9 if size >= 256 else 6
        self.networks = {"G_ab": resnet(width, blocks), "G_ba": resnet(width, blocks),
                         "D_a": patch(3, width, nn.InstanceNorm2d), "D_b": patch(3, width, nn.InstanceNorm2d)}
        self.G_ab, self.G_ba, self.D_a, self.D_b = self.networks.values()
        self.opt_G = torch.optim.Adam(itertools.chain(self.G_ab.parameters(), self.G_ba.parameters()), 2e-4,
                                      (0.5, 0.999), **ADAM)
        self.opt_D = torch.optim.Adam(itertools.chain(self.D_a.parameters(), self.D_b.parameters()), 2e-4,
                                      (0.5, 0.999), **ADAM)
        self.gan, self.l1, self.pool_a, self.pool_b = nn.MSELoss(), nn.L1Loss(), Pool(), Pool()

    def judge(self, D, real, fake):
        """Backward of one discriminator's loss."""
        out_real, out_fake = D(real), D(fake)
        loss = (self.gan(out_real, torch.ones_like(out_real))
                + self.gan(out_fake, torch.zeros_like(out_fake))) * 0.5
        loss.backward()
        return loss.item()

    def step(self, batch):
        """One iteration."""
        a, b = batch["a"], batch["b"]
        fake_b = self.G_ab(a)
        rec_a = self.G_ba(fake_b)
        fake_a = self.G_ba(b)
        rec_b = self.G_ab(fake_a)
        toggle([self.D_a, self.D_b], False)
        self.opt_G.zero_grad()
        identity_b, identity_a = self.l1(self.G_ab(b), b), self.l1(self.G_ba(a), a)
        out_b, out_a = self.D_b(fake_b), self.D_a(fake_a)
        gan_b, gan_a = self.gan(out_b, torch.ones_like(out_b)), self.gan(out_a, torch.ones_like(out_a))
        cycle_a, cycle_b = self.l1(rec_a, a), self.l1(rec_b, b)
        (gan_a + gan_b + 10 * (cycle_a + cycle_b) + 5 * (identity_a + identity_b)).backward()
        self.opt_G.step()
        toggle([self.D_a, self.D_b], True)
        self.opt_D.zero_grad()
        d_a, d_b = self.judge(self.D_a, a, self.pool_a.query(fake_a)), self.judge(self.D_b, b,
                                                                                  self.pool_b.query(fake_b))
        self.opt_D.step()
        return {"gan_a": gan_a.item(), "gan_b": gan_b.item(), "cycle_a": cycle_a.item(),
                "cycle_b": cycle_b.item(), "d_a": d_a, "d_b": d_b}


# ---------------------------------------------------------------------------------------------- DCGAN

class DCGAN:
    """Its plain loop."""

    def __init__(self, size, width=64):
        assert size == 64
        w = width
        layers = [nn.ConvTranspose2d(100, 8 * w, 4, 1, 0, bias=False), nn.BatchNorm2d(8 * w), nn.ReLU(True)]
        for i, o in ((8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w)):
            layers += [nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(True)]
        G = nn.Sequential(*layers, nn.ConvTranspose2d(w, 3, 4, 2, 1), nn.Tanh())
        layers = [nn.Conv2d(3, w, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for i, o in ((w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)):
            layers += [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2, True)]
        D = nn.Sequential(*layers, nn.Conv2d(8 * w, 1, 4), nn.Sigmoid())
        self.networks, self.G, self.D, self.loss = {"G": G, "D": D}, G, D, nn.BCELoss()
        self.opt_G, self.opt_D = (torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999), **ADAM)
                                  for network in (G, D))

    def step(self, batch):
        """One iteration: D's gradients of the generator's loss are computed too, and thrown away."""
        real = batch["b"]
        noise = torch.randn(len(real), 100, device=real.device)[:, :, None, None]
        ones = torch.ones(len(real), device=real.device)
        self.D.zero_grad()
        d_real = self.loss(self.D(real).view(-1), ones)
        d_real.backward()
        fake = self.G(noise)
        d_fake = self.loss(self.D(fake.detach()).view(-1), ones * 0)
        d_fake.backward()
        self.opt_D.step()
        self.G.zero_grad()
        gan = self.loss(self.D(fake).view(-1), ones)
        gan.backward()
        self.opt_G.step()
        return {"d": d_real.item() + d_fake.item(), "gan": gan.item()}
