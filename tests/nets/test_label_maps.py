"""One-hot label maps and the edges of instances."""

import numpy as np
import torch

from i2i.nets.label_maps import OneHot, SourceEncoder, instance_edges
from tests.conftest import REFERENCE

COLORS = ((-1.0, -1.0, -1.0), (1.0, -1.0, -1.0), (0.5, 0.5, 1.0))


def test_edges_of_instances_are_pix2pixhds() -> None:
    data = np.load(REFERENCE / "pix2pixhd" / "edges.npz")
    assert torch.equal(instance_edges(torch.from_numpy(data["instance"])), torch.from_numpy(data["edge"]).bool())


def test_an_edge_marks_both_pixels_and_nothing_across_the_border() -> None:
    instances = torch.tensor([[1, 1, 2, 1], [1, 1, 1, 1], [1, 1, 1, 3]])[None, None]
    assert instance_edges(instances)[0, 0].int().tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert not instance_edges(torch.ones(1, 1, 1, 1)).any()


def test_a_color_is_one_channel_and_another_is_that_of_the_nearest() -> None:
    classes = torch.randint(0, 3, (2, 5, 7))
    image = torch.tensor(COLORS)[classes].permute(0, 3, 1, 2)
    encode = OneHot(COLORS)
    expected = torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()
    assert torch.equal(encode(image), expected)
    assert torch.equal(encode(image + 0.2 * torch.rand_like(image)), expected)
    assert list(encode.state_dict()) == ["colors"]
    assert not list(encode.parameters())


def test_neighboring_values_of_sixteen_bits_are_told_apart() -> None:
    levels = torch.arange(30000, 30256).float() / 65535 * 2 - 1
    assert torch.equal(OneHot(levels[:, None].tolist())(levels[None, None, None])[0, :, 0], torch.eye(256))


def test_what_g_and_d_see_of_a_source() -> None:
    image = torch.tensor(COLORS)[torch.randint(0, 3, (2, 4, 4))].permute(0, 3, 1, 2)
    instances = torch.randint(0, 2, (2, 1, 4, 4)).float()
    both = torch.cat([image, instances], 1)
    for encoder, x, parts in ((SourceEncoder(3), image, [image]), (SourceEncoder(3, COLORS), image, [OneHot(COLORS)(image)]),
                              (SourceEncoder(4, instances=True), both, [image, instance_edges(instances).float()]),
                              (SourceEncoder(4, COLORS, instances=True), both, [OneHot(COLORS)(image), instance_edges(instances).float()])):
        assert torch.equal(encoder(x), torch.cat(parts, 1))
        assert encoder(x).shape[1] == encoder.out_channels
    assert not SourceEncoder(3).state_dict()
    with torch.device("meta"):
        assert SourceEncoder(4, COLORS, instances=True)(torch.empty(1, 4, 8, 8)).shape == (1, 4, 8, 8)
