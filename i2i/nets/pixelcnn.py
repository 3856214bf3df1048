"""PixelCNN++ and the gated PixelCNN: networks whose output at a pixel depends on the pixels before it alone.

A pixel is before another if it is in a row above, or to the left in the same row.
"""

from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.blocks import MAX_LAYERS, init_weights, max_halvings
from i2i.nets.class_conditioning import ClassEmbedding, require_labels
from i2i.nets.options import Dropout
from i2i.registry import register

MAX_AUTO_HALVINGS, MIN_AUTO_SIDE = 2, 7     # Of halvings=-1, and the side that it leaves.

Features = dict[tuple[int, str, int], Tensor]       # Outputs of the blocks of the stack of rows.


class Scan:
    """The place of sampling, and what layers keep of earlier places, so that each is computed once.

    A stack of rows then sees one row at a time, (N, C, 1, W), the other stack one pixel, (N, C, 1, 1).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.row, self.column = size, 0, 0
        self.memory: dict[nn.Module, Tensor] = {}

    def halved(self) -> "Scan":
        """The same place at half the resolution, with the same memory."""
        scan = Scan((self.size[0] // 2, self.size[1] // 2))
        scan.row, scan.column, scan.memory = self.row // 2, self.column // 2, self.memory
        return scan


class CausalConv2d(nn.Conv2d):
    """Convolution that sees the rows above and, of its own row, all columns or those up to its own.

    Args:
        rows: whether it sees all columns of its own row.
        shift: it does not see its own row, or, without `rows`, its own column.  Of a scan it is then given
            the row or the pixel before.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], *, rows: bool,
                 shift: bool = False, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride)
        self.rows, (height, width) = rows, kernel
        self.top, self.left, self.right = height - 1, *((width // 2,) * 2 if rows else (width - 1, 0))
        down, aside = shift and rows, shift and not rows
        self.pad = self.left + aside, self.right - aside, self.top + down, -int(down)

    def forward(self, x: Tensor, scan: Scan | None = None) -> Tensor:       # type: ignore[override]
        if scan is None:
            return super().forward(F.pad(x, self.pad))
        (height, width), row, column = self.kernel_size, scan.row, 0 if self.rows else scan.column
        if self not in scan.memory:
            scan.memory[self] = x.new_zeros(*x.shape[:2], scan.size[0] + self.top,
                                            scan.size[1] + self.left + self.right)
        seen, end = scan.memory[self], column + x.shape[3]
        seen[:, :, row + self.top, column + self.left:end + self.left] = x[:, :, 0]
        window = seen[:, :, row:row + height, column:end + width - 1]
        if window.shape[3] > width:
            return super().forward(window)
        return F.linear(window.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and -x, twice the channels."""
    return F.elu(torch.cat([x, -x], 1))


class GatedResnet(nn.Module):
    """Salimans et al. 2017, section 2.3: x + a sigmoid(b), where two convolutions make a and b."""

    def __init__(self, width: int, rows: bool, sides: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        kernel = (2, 3) if rows else (2, 2)
        self.first = CausalConv2d(2 * width, width, kernel, rows=rows)
        self.side = nn.Conv2d(2 * sides * width, width, 1) if sides else None
        self.dropout = nn.Dropout(dropout)
        self.last = CausalConv2d(2 * width, 2 * width, kernel, rows=rows)
        self.label = ClassEmbedding(num_classes, 2 * width, 0.0) if num_classes else None

    def forward(self, x: Tensor, sides: list[Tensor], c: Tensor | None, scan: Scan | None) -> Tensor:
        h = self.first(concat_elu(x), scan)
        if self.side:
            h = h + self.side(concat_elu(torch.cat(sides, 1)))
        h = self.last(self.dropout(concat_elu(h)), scan)
        a, b = _add_label(h, self.label, c).chunk(2, 1)
        return x + a * b.sigmoid()


class GatedConv(nn.Module):
    """Van den Oord et al. 2016, equations 2 and 4, with a residual in both stacks: masked convolutions, as
    those that have no weights where the mask is 0."""

    def __init__(self, width: int, rows: bool, sides: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.first = CausalConv2d(width, 2 * width, (2, 3) if rows else (1, 2), rows=rows)
        self.side = nn.Conv2d(sides * width, 2 * width, 1) if sides else None
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(width, width, 1)
        self.label = ClassEmbedding(num_classes, 2 * width, 0.0) if num_classes else None

    def forward(self, x: Tensor, sides: list[Tensor], c: Tensor | None, scan: Scan | None) -> Tensor:
        h = self.first(x, scan)
        if self.side:
            h = h + self.side(torch.cat(sides, 1))
        a, b = _add_label(h, self.label, c).chunk(2, 1)
        return x + self.last(self.dropout(a.tanh() * b.sigmoid()))


def _add_label(h: Tensor, label: ClassEmbedding | None, c: Tensor | None) -> Tensor:
    return h if label is None else h + label(require_labels(c)).to(h.dtype)[:, :, None, None]


class Stack(nn.Module):
    """Blocks at each resolution, the highest first, and again on the way back, which also see those."""

    def __init__(self, block: type[GatedResnet | GatedConv], width: int, blocks: int, halvings: int, *,
                 rows: bool, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.rows, self.halvings = rows, halvings

        def level(sides: int) -> nn.ModuleList:
            return nn.ModuleList(block(width, rows, sides + (not rows), num_classes, dropout)
                                 for _ in range(blocks))

        self.down = nn.ModuleList(level(0) for _ in range(halvings + 1))
        self.up = nn.ModuleList(level(1) for _ in range(halvings + 1))
        self.shrink = nn.ModuleList(
            CausalConv2d(width, width, (2, 3) if rows else (2, 2), rows=rows, stride=2)
            for _ in range(halvings))
        self.grow = nn.ModuleList(nn.Conv2d(width, 4 * width, 1) for _ in range(halvings))

    def forward(self, x: Tensor, features: Features, c: Tensor | None, scan: Scan | None,
                level: int = 0) -> Tensor:
        """(N, C, H, W) -> the same shape.  The stack of rows fills `features`, the other reads them."""
        before = list[Tensor]()
        for name in ("down", "up"):
            if name == "up" and level < self.halvings:
                x = x + self._from_below(x, features, c, scan, level)
            for i, block in enumerate(cast(nn.ModuleList, getattr(self, name)[level])):
                sides = [before.pop()] if name == "up" else []
                if not self.rows:
                    side = features[level, name, i]
                    sides.append(side if scan is None else side[..., scan.column:scan.column + 1])
                x = block(x, sides, c, scan)
                if self.rows:
                    features[level, name, i] = x
                if name == "down":
                    before.append(x)
        return x

    def _from_below(self, x: Tensor, features: Features, c: Tensor | None, scan: Scan | None,
                    level: int) -> Tensor:
        grow, small = self.grow[level], self.shrink[level](x, scan)
        if scan is None:
            return F.pixel_shuffle(grow(self(small, features, c, None, level + 1)), 2)
        if grow not in scan.memory:
            scan.memory[grow] = x.new_zeros(*x.shape[:2], 2, scan.size[1])
        column, kept = 0 if self.rows else scan.column, scan.memory[grow]
        if scan.row % 2 == column % 2 == 0:
            made = F.pixel_shuffle(grow(self(small, features, c, scan.halved(), level + 1)), 2)
            kept[..., column:column + made.shape[3]] = made
        return kept[:, :, scan.row % 2, None, column:column + x.shape[3]]


@register("autoregressive_network", "pixelcnn")
class PixelCNN(nn.Module):
    """PixelCNN++ (Salimans et al. 2017), or with block=gated the gated PixelCNN (van den Oord et al. 2016).

    One stack sees the rows above, the other also the pixels to the left.  Without weight norm.
    """

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], num_classes: int = 0, *,
                 width: Annotated[int, Doc("Channels of all layers")] = 32,
                 block: Annotated[Literal["resnet", "gated"], Doc(
                     "Two convolutions as in PixelCNN++, or one masked convolution and a gate")] = "resnet",
                 blocks: Annotated[int, Doc(
                     "Blocks of each stack at each resolution, on the way down and again up, 1 to 1000")] = 2,
                 halvings: Annotated[int, Doc(
                     "How often the sides are halved; -1: up to twice, down to 7 pixels")] = -1,
                 dropout: Dropout = 0.0) -> None:
        super().__init__()
        most = max_halvings(size)
        auto = max(i for i in range(MAX_AUTO_HALVINGS + 1) if not i or min(size) >> i >= MIN_AUTO_SIDE)
        halvings = min(auto, most) if halvings == -1 else halvings
        require(0 <= halvings <= most, "network.halvings", halvings,
                f"0 to {most} for images of {size[0]}x{size[1]}; -1: as many as fit, at most "
                f"{MAX_AUTO_HALVINGS}")
        require(width >= 1, "network.width", width, "1 or more")
        require(1 <= blocks <= MAX_LAYERS, "network.blocks", blocks, f"1 to {MAX_LAYERS}")
        require(0 <= dropout < 1, "network.dropout", dropout, "0 or more and less than 1")
        self.size, gated = size, block == "gated"
        above, left = ((3, 7), (1, 3)) if gated else ((2, 3), (2, 1))
        self.above = CausalConv2d(in_channels + 1, width, above, rows=True, shift=True)
        self.left = CausalConv2d(in_channels + 1, width, left, rows=False, shift=True)
        self.link = nn.Conv2d(width, width, 1)
        self.stacks = nn.ModuleList(
            Stack(GatedConv if gated else GatedResnet, width, blocks, halvings, rows=rows,
                  num_classes=num_classes, dropout=dropout) for rows in (True, False))
        self.out = nn.Conv2d(width, out_channels, 1)
        init_weights(self, nn.init.xavier_uniform_)
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) labels -> (N, C', H, W), each pixel by those before it"""
        x = with_ones(x)
        features: Features = {}
        return self.pixels(x, self.rows(x, features, c), features, c)

    def rows(self, x: Tensor, features: Features, c: Tensor | None, scan: Scan | None = None) -> Tensor:
        """What is known from the rows above, here and in `features`; of a scan `x` is the row above."""
        above = self.above(x, scan)
        self.stacks[0](above, features, c, scan)
        return self.link(above)

    def pixels(self, x: Tensor, linked: Tensor, features: Features, c: Tensor | None,
               scan: Scan | None = None) -> Tensor:
        """The output, from what `rows` found; of a scan `x` is the pixel to the left."""
        linked = linked if scan is None else linked[..., scan.column:scan.column + 1]
        return self.out(F.elu(self.stacks[1](self.left(x, scan) + linked, features, c, scan)))


def with_ones(x: Tensor) -> Tensor:
    """Images with a channel of ones, by which the network sees where they end."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)
