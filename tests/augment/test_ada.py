"""ADA: each transform against its definition, its probability, and the adaptation of p."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from i2i.augment import ada, warp
from i2i.augment.ada import ADA
from i2i.errors import RequestError
from i2i.losses.penalties import lazy_penalty
from i2i.registry import Spec, build
from tests.augment.test_augment import pictures

ONE = torch.ones(())


class Given:
    """torch.rand, randn and randint that return these values in turn, for every image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **values: list[float]) -> None:
        for name, queue in values.items():
            monkeypatch.setattr(torch, name, partial(self._next, name == "randint", queue))

    def _next(self, whole: bool, queue: list[float], *sizes: object, device: object = None) -> torch.Tensor:
        n = sizes[1][0] if whole else sizes[0]
        return torch.full((n,), queue.pop(0))


def blitted(monkeypatch: pytest.MonkeyPatch, x: torch.Tensor, mirror: int = 0, quarters: int = 0, right: float = 0, down: float = 0) -> torch.Tensor:
    with monkeypatch.context() as patch:
        Given(patch, randint=[mirror, quarters], rand=[0.0, 0.0, 0.0, right * 4 + 0.5, down * 4 + 0.5])
        return ada.blit(len(x), x.device, p=ONE)(x)


def test_whole_pixels_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(size=(16, 16))
    assert torch.equal(blitted(monkeypatch, x), x)
    assert torch.equal(blitted(monkeypatch, x, mirror=1), x.flip(-1))
    for quarters in range(4):
        assert torch.equal(blitted(monkeypatch, x, quarters=quarters), torch.rot90(x, -quarters, (2, 3))), quarters
    moved = blitted(monkeypatch, x, right=0.125, down=-0.0625)
    assert torch.equal(moved[:, :, :-1, 2:], x[:, :, 1:, :-2])
    assert torch.equal(moved[:, :, :-1, :2], x[:, :, 1:, 1:3].flip(-1)), "outside is a reflection"


def test_blitting_has_the_eight_symmetries_of_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(size=(9, 9))
    assert torch.equal(blitted(monkeypatch, blitted(monkeypatch, x, mirror=1), mirror=1), x)
    four = x
    for _ in range(4):
        four = blitted(monkeypatch, four, quarters=1)
    assert torch.equal(four, x)
    assert torch.equal(blitted(monkeypatch, blitted(monkeypatch, x, mirror=1), quarters=1), blitted(monkeypatch, x, mirror=1, quarters=1))
    oblong = pictures(size=(6, 9))
    for quarters, half in ((0, False), (1, False), (2, True), (3, True)):
        assert torch.equal(blitted(monkeypatch, oblong, quarters=quarters), oblong.flip(-1, -2) if half else oblong), "only half turns fit"


def test_wavelet_analysis_inverts_the_synthesis() -> None:
    """The wavelet is orthogonal; a constant image stays constant."""
    x = pictures(size=(11, 14), dtype=torch.float64)
    fine = warp.wavelet_upsample(x)
    assert fine.shape == (4, 3, 22, 28)
    torch.testing.assert_close(warp.wavelet_upsample(torch.ones_like(x)), torch.ones_like(fine), atol=1e-9, rtol=0)
    edge = torch.zeros(4, 3, 32, 38, dtype=torch.float64)
    edge[:, :, 5:-5, 5:-5] = fine
    torch.testing.assert_close(warp.wavelet_downsample(edge)[:, :, 3:-3, 3:-3], x[:, :, 3:-3, 3:-3], atol=1e-9, rtol=0)


def test_bilinear_equals_grid_sample() -> None:
    x = pictures(2, size=(7, 9), dtype=torch.float64)
    rows, columns = (torch.rand(2, 5, 6, dtype=torch.float64) * (size - 1) for size in (7, 9))
    grid = torch.stack([columns / 8 * 2 - 1, rows / 6 * 2 - 1], -1)
    torch.testing.assert_close(warp.bilinear(x, rows, columns), F.grid_sample(x, grid, align_corners=True))
    corners = warp.bilinear(x, torch.tensor([[[0.0, 6.0]]]).expand(2, -1, -1), torch.tensor([[[8.0, 8.0]]]).expand(2, -1, -1))
    assert torch.equal(corners[:, :, 0], x[:, :, [0, 6], [8, 8]])
    assert warp.reflect_index(torch.tensor([-1.5, 0, 4, 5, 9, -8.25]), 5).tolist() == [1.5, 0, 4, 3, 1, 0.25]


def test_both_implementations_of_gather_pixels_have_the_same_gradient() -> None:
    """One is for CPUs, the other for all other devices."""
    x, index = pictures(2, size=(3, 4), dtype=torch.float64).requires_grad_(), torch.randint(12, (2, 5, 6))
    here = warp.gather_pixels(x, index)
    there = x.flatten(2).transpose(1, 2)[torch.arange(2)[:, None], index.flatten(1)].transpose(1, 2).unflatten(2, (5, 6))
    assert torch.equal(here, there)
    w = torch.randn_like(here)
    torch.testing.assert_close(torch.autograd.grad((here * w).sum(), x)[0], torch.autograd.grad((there * w).sum(), x)[0])


def blob(n: int = 1, size: int = 64, x: float = 0, y: float = 0, width: float = 4.0) -> torch.Tensor:
    """A smooth spot at an offset in pixels from the center, right and down."""
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / (2 * width**2)).expand(n, 1, -1, -1)


def test_geometric_transforms_move_a_spot_as_the_papers_matrices_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ada, "_with_probability", lambda chance, values, neutral: values)
    spot = blob(x=8, y=0)

    def sent(**how: float) -> torch.Tensor:
        with monkeypatch.context() as patch:
            how = {"scale": 1, "first": 0, "stretch": 1, "second": 0, "right": 0, "down": 0} | how
            Given(patch, rand=[how["first"] / math.pi / 2 + 0.5, how["second"] / math.pi / 2 + 0.5, 0.0],
                  randn=[math.log2(how["scale"]) / ada.SCALE, math.log2(how["stretch"]) / ada.SCALE, how["right"] / 8, how["down"] / 8])
            return ada.geom(1, spot.device, p=ONE)(spot)

    assert torch.equal(sent(), spot)
    turn = math.pi / 3
    expected = {
        "right": ({"right": 5.5}, blob(x=13.5)), "down": ({"down": 3.25}, blob(x=8, y=3.25)),
        "scale": ({"scale": 1.5}, blob(x=12, width=6)), "shrunk": ({"scale": 0.8}, blob(x=6.4, width=3.2)),
        "turned": ({"first": turn}, blob(x=8 * math.cos(turn), y=8 * math.sin(turn))),
        "turned at last": ({"second": turn}, blob(x=8 * math.cos(turn), y=8 * math.sin(turn))),
        "turned, moved": ({"first": turn, "right": 2.0}, blob(x=8 * math.cos(turn) + 2, y=8 * math.sin(turn)))}
    for name, (how, where) in expected.items():
        assert (sent(**how) - where).abs().max() < 0.02, name
    stretched = sent(first=math.pi / 2, stretch=2.0)      # Down first, then half as high and twice as wide: the order of the paper.
    at = torch.arange(64, dtype=torch.float64) - 31.5
    wanted = torch.exp(-(at[None] / 8).square() / 2 - ((at[:, None] - 4) / 2).square() / 2)
    assert (stretched[0, 0] - wanted)[18:46].abs().max() < 0.03       # Further up and down there are reflections of it.


def papers_color(x: torch.Tensor, brightness: float, contrast: float, flip: int, hue: float, saturation: float) -> torch.Tensor:
    """Karras et al. 2020a, appendix B, as products of matrices."""
    v = torch.ones(3, dtype=x.dtype) / 3**0.5
    axis, eye = torch.outer(v, v), torch.eye(3, dtype=x.dtype)
    cross = torch.tensor([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]], dtype=x.dtype)
    turn = math.cos(hue) * eye + (1 - math.cos(hue)) * axis + math.sin(hue) * cross
    matrix = (axis + (eye - axis) * saturation) @ turn @ (eye - 2 * axis * flip)
    return torch.einsum("ij,njhw->nihw", matrix, contrast * (x + brightness))


def test_color_transforms_equal_the_papers_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(dtype=torch.float64)
    values = {"brightness": 0.3, "contrast": 1.7, "flip": 1, "hue": 1.1, "saturation": 0.4}
    for used in (*([name] for name in values), list(values)):
        now = {"brightness": 0, "contrast": 1, "flip": 0, "hue": 0, "saturation": 1} | {name: values[name] for name in used}
        with monkeypatch.context() as patch:
            patch.setattr(ada, "_with_probability", lambda chance, values, neutral: values)
            Given(patch, randint=[now["flip"]], rand=[now["hue"] / math.pi / 2 + 0.5],
                  randn=[now["brightness"] / ada.BRIGHTNESS, math.log2(now["contrast"]) / ada.CONTRAST, math.log2(now["saturation"]) / ada.SATURATION])
            change = ada.color(4, x.device, p=ONE)
        torch.testing.assert_close(change(x), papers_color(x, **now), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(change(x[:, :1]), now["contrast"] * (x[:, :1] + now["brightness"]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("policy", [("blit",), ("geom",), ("color",), ("blit", "geom", "color")])
def test_with_p_0_it_is_the_identity(policy: tuple[str, ...]) -> None:
    x = pictures(32)
    assert torch.equal(ADA(policy=policy)(x)[0], x)


@pytest.mark.parametrize(("make", "mean"), [
    # One minus the product of all chances to change nothing; of the mirror, the turn and the luma flip some results are no change.
    (ada.blit, lambda p: 1 - (1 - p / 2) * (1 - 3 * p / 4) * (1 - p)),
    (ada.geom, lambda p: 1 - (1 - p) ** 3 * (1 - p)),
    (ada.color, lambda p: 1 - (1 - p) ** 4 * (1 - p / 2))])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_each_transform_changes_a_share_p_of_the_images(make: object, mean: object, p: float) -> None:
    n = 4000
    torch.manual_seed(0)
    x = pictures(1, size=(8, 8)).expand(n, -1, -1, -1)
    changed = (make(n, x.device, p=torch.tensor(p))(x) != x).flatten(1).any(1).float().mean().item()
    # Of the shifts by whole pixels of 8 those by less than half of one, a quarter of the images, are none.
    expected = mean(p) if make is not ada.blit else 1 - (1 - p / 2) * (1 - 3 * p / 4) * (1 - 3 * p / 4)
    assert changed == pytest.approx(expected, abs=4 * (0.25 / n) ** 0.5)


def test_p_rises_while_d_is_confident_and_falls_otherwise() -> None:
    T = ADA(target=0.6, interval=4, speed=1000)
    seen = []
    for _ in range(13):
        T.observe(torch.full((10, 1), 3.0))
        seen.append(T.p.item())
    assert seen == pytest.approx([0] * 4 + [0.04] * 4 + [0.08] * 4 + [0.12])       # 40 images of 1000 for every four steps.
    for _ in range(8):
        T.observe(torch.cat([torch.ones(7), -torch.ones(3)])[:, None])              # r_t = 0.4; 0.55 with the thirteenth step.
    assert T.p.item() == pytest.approx(0.12 - 2 * 0.04)
    for _ in range(40):
        T.observe(-torch.ones(10, 1))
    assert T.p.item() == 0
    T.speed = 20
    for _ in range(16):
        T.observe(torch.ones(10, 1))
    assert T.p.item() == 1


def test_r_t_is_the_mean_sign_of_all_logits_patches_included() -> None:
    T = ADA(target=0.5, interval=1, speed=100)
    logits = torch.tensor([9.0, 0.1, 0.1, -50.0]).view(1, 1, 2, 2).expand(2, -1, -1, -1)
    T.observe(logits)
    assert (T.sign_sum.item(), T.count.item()) == (1.0, 2.0)
    T.observe(logits, 8)
    assert T.p.item() == 0      # r_t is at the target: sign(0).
    T.observe(torch.ones(2, 1), 8)
    T.observe(torch.ones(2, 1), 8)      # Shown in all processes, of which this one had 2.
    assert T.p.item() == pytest.approx(0.08)


def test_p_is_the_same_in_all_processes() -> None:
    """With `synced_buffers` averaged as by the engine, though each process sees other logits."""
    torch.manual_seed(0)
    ranks = [ADA(interval=2, speed=200) for _ in range(2)]
    for _ in range(20):
        for rank, T in enumerate(ranks):
            T.observe(torch.randn(4, 1) + (3 if rank else 0.5), 8)
        for name in ADA.synced_buffers:
            mean = torch.stack([getattr(T, name) for T in ranks]).mean(0)
            for T in ranks:
                getattr(T, name).copy_(mean)
        assert ranks[0].p == ranks[1].p
    assert ranks[0].p > 0


def test_its_state_is_saved() -> None:
    T = ADA(interval=3, speed=100)
    for _ in range(5):
        T.observe(torch.ones(4, 1))
    other = ADA(interval=3, speed=100)
    other.load_state_dict(T.state_dict())
    for _ in range(7):
        T.observe(torch.ones(4, 1))
        other.observe(torch.ones(4, 1))
    assert T.p.item() == pytest.approx(0.36)
    assert all(torch.equal(a, b) for a, b in zip(T.state_dict().values(), other.state_dict().values(), strict=True))


def test_with_speed_0_p_is_constant() -> None:
    T = ADA(p=0.3, speed=0)
    assert not T.adaptive
    for _ in range(20):
        T.observe(torch.ones(4, 1))
    assert T.p.item() == pytest.approx(0.3)


@pytest.mark.parametrize("options", [{"p": 1.1}, {"p": -0.1}, {"target": 0.0}, {"target": 1.0}, {"interval": 0}, {"speed": 0}, {"speed": -1, "p": 0.5}])
def test_invalid_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=rf"augment\.{next(iter(options))}"):
        ADA(**options)


@pytest.mark.parametrize("penalty", ["r1", "wgan-gp"])
@pytest.mark.parametrize("name", ["ada", "diffaugment"])
def test_gradients_of_a_penalty_through_it_match_finite_differences(penalty: str, name: str) -> None:
    """With respect to the weights of D; the warp is differentiated twice."""
    T = build("augment", Spec(name, {"p": 0.8} if name == "ada" else {}))
    D = nn.Conv2d(3, 1, 3).double()
    x = pictures(2, size=(6, 6), dtype=torch.float64)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(4)
        return lazy_penalty(build("penalty", Spec(penalty)), 0, lambda image: F.conv2d(T(image)[0], weight).tanh(), x, -x)

    assert loss(D.weight) > 0
    assert torch.autograd.gradcheck(loss, (D.weight,))
