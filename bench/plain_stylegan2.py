"""StyleGAN2's training loop as in its port to PyTorch's own operators, written plainly; see plain.py."""

from __future__ import annotations

import itertools
import math
import random

import torch
from plain import ADAM, toggle
from torch import autograd, nn
from torch.nn import functional as F


def resampled(x, *, up=1, down=1, pad=(0, 0), gain=1.0):
    """Zeros inserted, padded, filtered, every `down`th pixel kept; channels as images of a batch."""
    n, c, h, w = x.shape
    x = x.reshape(n * c, 1, h, 1, w, 1)
    x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1]).view(n * c, 1, h * up, w * up)
    x = F.pad(x, [pad[0], pad[1], pad[0], pad[1]])
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device)
    kernel = torch.outer(taps, taps)
    out = F.conv2d(x, (kernel / kernel.sum() * gain)[None, None])[:, :, ::down, ::down]
    return out.reshape(n, c, *out.shape[2:])


def activated(x, bias):
    """Bias, leaky ReLU, gain."""
    return F.leaky_relu(x + bias.view(1, -1, *[1] * (x.dim() - 2)), 0.2) * math.sqrt(2)


class Linear(nn.Module):
    """Equalized."""

    def __init__(self, i, o, *, bias=0.0, lr=1.0, active=False):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(o, i) / lr), nn.Parameter(torch.full((o,),
                                                                                               bias / lr))
        self.scale, self.lr, self.active = lr / math.sqrt(i), lr, active

    def forward(self, x):
        """N(in) -> N(out)"""
        if self.active:
            return activated(F.linear(x, self.weight * self.scale), self.bias * self.lr)
        return F.linear(x, self.weight * self.scale, self.bias * self.lr)


class Conv(nn.Module):
    """Equalized, after the filter where it halves."""

    def __init__(self, i, o, k, *, down=False, active=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, k, k))
        self.bias = nn.Parameter(torch.zeros(o)) if active else None
        self.scale, self.down = 1 / math.sqrt(i * k * k), down

    def forward(self, x):
        """NCHW -> NC'hw"""
        k = self.weight.shape[2]
        if self.down:
            p = 2 + (k - 1)
            x = resampled(x, pad=((p + 1) // 2, p // 2))
        x = F.conv2d(x, self.weight * self.scale, stride=2 if self.down else 1,
                     padding=0 if self.down else k // 2)
        return x if self.bias is None else activated(x, self.bias)


class Noise(nn.Module):
    """Added to all channels."""

    def __init__(self):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1, 1, 1))

    def forward(self, x):
        """NCHW -> NCHW"""
        return x + self.strength * x.new_empty(len(x), 1, *x.shape[2:]).normal_()


class Modulated(nn.Module):
    """A kernel for each image, all in one grouped convolution."""

    def __init__(self, i, o, k, w_dim, *, up=False, styled=True):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(o, i, k, k)), nn.Parameter(torch.zeros(o))
        self.affine, self.up, self.styled = Linear(w_dim, i, bias=1.0), up, styled
        self.noise = Noise() if styled else None
        self.scale = 1 / math.sqrt(i * k * k)

    def forward(self, x, w):
        """NCHW, N x w_dim -> NC'hw"""
        n, c, h, wide = x.shape
        o, i, k, _ = self.weight.shape
        weight = self.scale * self.weight[None] * self.affine(w).view(n, 1, i, 1, 1)
        if self.styled:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(n, o, 1, 1, 1)
        x = x.reshape(1, n * c, h, wide)
        if self.up:
            weight = weight.transpose(1, 2).reshape(n * i, o, k, k)
            x = F.conv_transpose2d(x, weight, stride=2, groups=n)
            x = resampled(x.view(n, o, *x.shape[2:]), pad=(1, 1), gain=4)
        else:
            x = F.conv2d(x, weight.view(n * o, i, k, k), padding=k // 2, groups=n).view(n, o, h, wide)
        return activated(self.noise(x), self.bias) if self.styled else x + self.bias.view(1, -1, 1, 1)


class StyleG(nn.Module):
    """Mapping and synthesis."""

    def __init__(self, size, width, most, w_dim=512):
        super().__init__()
        count = int(math.log2(size)) - 2
        c = [min(width * 2**i, most) for i in range(count + 1)][::-1]
        self.count = 2 * count + 2
        self.mapping = nn.Module()
        self.mapping.layers = nn.ModuleList(Linear(w_dim, w_dim, lr=0.01, active=True) for _ in range(8))
        self.constant = nn.Parameter(torch.randn(c[0], 4, 4))
        self.first = Modulated(c[0], c[0], 3, w_dim)
        self.up = nn.ModuleList(Modulated(i, o, 3, w_dim, up=True) for i, o in itertools.pairwise(c))
        self.layers = nn.ModuleList(Modulated(o, o, 3, w_dim) for o in c[1:])
        self.rgb = nn.ModuleList(Modulated(o, 3, 1, w_dim, styled=False) for o in c)

    def style(self, z):
        """N x z_dim -> N x w_dim"""
        z = z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-8)
        for layer in self.mapping.layers:
            z = layer(z)
        return z

    def forward(self, zs, *, with_styles=False):
        """One or two z -> image"""
        ws = [self.style(z) for z in zs]
        if len(ws) < 2:
            w = ws[0][:, None].repeat(1, self.count, 1)
        else:
            first = random.randint(1, self.count - 1)
            w = torch.cat([ws[0][:, None].repeat(1, first, 1),
                           ws[1][:, None].repeat(1, self.count - first, 1)], 1)
        x = self.first(self.constant[None].repeat(len(w), 1, 1, 1), w[:, 0])
        image = self.rgb[0](x, w[:, 1])
        for i, (up, layer, rgb) in enumerate(zip(self.up, self.layers, self.rgb[1:], strict=True)):
            x = layer(up(x, w[:, 2 * i + 1]), w[:, 2 * i + 2])
            image = resampled(image, up=2, pad=(2, 1), gain=4) + rgb(x, w[:, 2 * i + 3])
        return (image, w) if with_styles else image


class Down(nn.Module):
    """A residual block to half the size."""

    def __init__(self, i, o):
        super().__init__()
        self.conv0, self.conv1, self.skip = Conv(i, i, 3), Conv(i, o, 3, down=True), Conv(i, o, 1, down=True,
                                                                                          active=False)

    def forward(self, x):
        """NCHW -> NC'(H/2)(W/2)"""
        return (self.conv1(self.conv0(x)) + self.skip(x)) / math.sqrt(2)


class StyleD(nn.Module):
    """Residual, with the minibatch standard deviation."""

    def __init__(self, size, width, most):
        super().__init__()
        c = [min(width * 2**i, most) for i in range(int(math.log2(size)) - 1)]
        self.rgb = Conv(3, c[0], 1)
        self.blocks = nn.ModuleList(Down(i, o) for i, o in itertools.pairwise(c))
        self.conv, self.dense, self.out = Conv(c[-1] + 1, c[-1], 3), Linear(c[-1] * 16, c[-1],
                                                                            active=True), Linear(c[-1], 1)

    def forward(self, x):
        """NCHW -> N1"""
        x = self.rgb(x)
        for block in self.blocks:
            x = block(x)
        n, c, h, w = x.shape
        group = min(n, 4)
        std = x.view(group, -1, 1, c, h, w)
        std = torch.sqrt(std.var(0, unbiased=False) + 1e-8).mean([2, 3, 4], keepdim=True).squeeze(2)
        x = self.conv(torch.cat([x, std.repeat(group, 1, h, w)], 1))
        return self.out(self.dense(x.view(n, -1)))


class StyleGAN2:
    """Its plain loop: images are made anew for each player, regularizers have steps of their own."""

    def __init__(self, size, width=32, most=512, mixing=0.9):
        self.networks = {"G": StyleG(size, width, most), "D": StyleD(size, width, most)}
        self.G, self.D = self.networks.values()
        self.ema, self.mixing, self.mean, self.count = StyleG(size, width, most), mixing, 0, 0
        self.opt_G, self.opt_D = (torch.optim.Adam(network.parameters(), 2e-3, (0.0, 0.99), **ADAM)
                                  for network in (self.G, self.D))

    def noise(self, n, device):
        """One z for each image, or two."""
        one = torch.randn(n, 512, device=device)
        return [one, torch.randn(n, 512, device=device)] if random.random() < self.mixing else [one]

    def step(self, batch):
        """One iteration."""
        real, logs = batch["b"], {}
        toggle([self.G], False)
        toggle([self.D], True)
        out_fake, out_real = self.D(self.G(self.noise(len(real), real.device))), self.D(real)
        d = F.softplus(-out_real).mean() + F.softplus(out_fake).mean()
        self.D.zero_grad()
        d.backward()
        self.opt_D.step()
        if self.count % 16 == 0:
            real = real.clone().requires_grad_()
            out = self.D(real)
            grad, = autograd.grad(out.sum(), real, create_graph=True)
            self.D.zero_grad()
            (0.5 * grad.pow(2).reshape(len(real), -1).sum(1).mean() * 16 + 0 * out[0, 0]).backward()
            self.opt_D.step()
        toggle([self.G], True)
        toggle([self.D], False)
        gan = F.softplus(-self.D(self.G(self.noise(len(real), real.device)))).mean()
        self.G.zero_grad()
        gan.backward()
        self.opt_G.step()
        if self.count % 4 == 0:
            fake, w = self.G(self.noise(max(1, len(real) // 2), real.device), with_styles=True)
            noise = torch.randn_like(fake) / math.sqrt(fake.shape[2] * fake.shape[3])
            grad, = autograd.grad((fake * noise).sum(), w, create_graph=True)
            lengths = torch.sqrt(grad.pow(2).sum(2).mean(1))
            self.mean = self.mean + 0.01 * (lengths.mean().item() - self.mean)
            self.G.zero_grad()
            (8 * (lengths - self.mean).pow(2).mean() + 0 * fake[0, 0, 0, 0]).backward()
            self.opt_G.step()
        for (_, kept), (_, new) in zip(self.ema.named_parameters(), self.G.named_parameters(), strict=True):
            kept.data.mul_(0.998).add_(new.data, alpha=0.002)
        self.count += 1
        return {"d": d.item(), "gan": gan.item(), **logs}
