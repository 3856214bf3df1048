"""GANs from noise: the objective written naively, which player each update changes and when; InfoGAN's bound; the priors."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.losses.mutual_information import mutual_information_bound
from i2i.nets.priors import InfoGANPrior, LatentPrior, UniformPrior
from i2i.recipes.base import DataInfo
from i2i.recipes.gan import GAN
from i2i.recipes.infogan import InfoGAN
from i2i.seeding import Progress
from i2i.training.distributed import Runtime
from i2i.training.player_optimizers import PlayerOptimizers

INFO = DataInfo((32, 32), num_classes=3)
CLOCK = Progress(0, 4, 1000)
TINY = ("generator.width=4", "discriminator.width=4")


def small(*words: str, recipe: type = GAN) -> GAN:
    return override(recipe(), parse_assignments([*TINY, *words]))


def batch(n: int = 4, seed: int = 5) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {"b": torch.rand(n, 3, 32, 32, generator=g) * 2 - 1, "c": torch.arange(n) % 3}


def losses(recipe: GAN, m: nn.ModuleDict, x: dict[str, Tensor], progress: Progress = CLOCK, seed: int = 1) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    torch.manual_seed(seed)
    recipe.step(m, x, progress, lambda player, loss, /, **logs: seen.update({player: loss}))
    return seen


def test_the_objective_is_the_papers() -> None:
    """Goodfellow et al. 2014, algorithm 1 with the non-saturating loss of section 3; with labels, Mirza and Osindero 2014, equation 2."""
    recipe = small("conditional=true", "generator.norm=none", "discriminator.norm=none")
    m, x = recipe.modules(INFO), batch()
    seen = losses(recipe, m, x)
    torch.manual_seed(1)
    fake = m["G"](torch.randn(4, 100), x["c"])
    real_p, fake_p = m["D"](x["b"], x["c"]).sigmoid(), m["D"](fake, x["c"]).sigmoid()
    assert seen["D"].item() == pytest.approx((-real_p.log().mean() - (1 - fake_p).log().mean()).item(), rel=1e-5)
    assert seen["G"].item() == pytest.approx(-fake_p.log().mean().item(), rel=1e-5)


def test_labels_are_used_only_where_asked_for() -> None:
    x = batch()
    other = {**x, "c": (x["c"] + 1) % 3}
    for words, same in ((["conditional=false"], True), (["conditional=true"], False),
                        (["conditional=true", "generator.condition=batchnorm", "discriminator.condition=projection"], False)):
        recipe = small(*words)
        m = recipe.modules(INFO)
        one, two = (losses(recipe, copy.deepcopy(m), each)["G"] for each in (x, other))
        assert torch.equal(one, two) == same, words
    assert GAN().required_keys == ("b",)
    assert GAN(conditional=True).required_keys == ("b", "c")


WAYS = [[], ["conditional=true"], ["adversarial=rpgan", "penalty=r1r2", "discriminator.norm=none"], ["penalty=clip", "adversarial=wasserstein"],
        ["d_weight_norm=spectral"], ["augment=ada"], ["penalty=r1", "penalty.every=2", "discriminator.norm=none"],
        ["generator=stylegan2", "discriminator=stylegan2", "generator.width=8", "discriminator.width=8", "g_penalty=path-length"]]


@pytest.mark.parametrize("words", WAYS, ids=lambda words: " ".join(words) or "plain")
@pytest.mark.parametrize("player", ["D", "G"])
def test_each_update_moves_only_its_player(words: list[str], player: str) -> None:
    recipe, torch_state = small(*words), batch()
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    learner.begin(CLOCK)
    before = copy.deepcopy(dict(m.named_parameters()))
    recipe.step(m, torch_state, CLOCK, lambda who, loss, /, **logs: learner(who, loss, **logs) if who == player else None)
    moved = {name.split(".")[0] for name, value in m.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {player}


def test_the_generator_is_updated_every_d_steps() -> None:
    """Arjovsky et al. 2017, algorithm 1: n critic steps, each with images and noise of its own, for one of the generator."""
    recipe = small("d_steps=3")
    m = recipe.modules(INFO)
    turns = ["G" in losses(recipe, m, batch(), Progress(step, 4, 1000)) for step in range(6)]
    assert turns == [True, False, False, True, False, False]


def test_a_clipped_critic_learns_within_the_limit() -> None:
    recipe = small("penalty=clip", "penalty.limit=0.5")
    m = recipe.modules(INFO)
    optimizers = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    before = copy.deepcopy(list(m["D"].parameters()))
    optimizers.begin(CLOCK)
    recipe.step(m, batch(), CLOCK, optimizers)
    moved = [p for p, old in zip(m["D"].parameters(), before, strict=True) if not torch.equal(p, old.clamp(-0.5, 0.5))]
    assert moved
    assert all(p.abs().max() <= 0.5 for p in m["D"].parameters())


def test_the_path_length_interval_counts_updates_of_the_generator() -> None:
    recipe = small("generator=stylegan2", "discriminator=stylegan2", "generator.width=8", "discriminator.width=8", "g_penalty=path-length",
                   "g_penalty.every=2", "d_steps=2")
    m, calls = recipe.modules(INFO), []
    m["P"].register_forward_hook(lambda *call: calls.append(1))
    counts = []
    for step in range(8):
        losses(recipe, m, batch(), Progress(step, 4, 1000))
        counts.append(len(calls))
    assert counts == [1, 1, 1, 1, 2, 2, 2, 2]


def test_invalid_combinations_are_refused() -> None:
    for words, message in ((["d_steps=0"], "d_steps=0"), (["g_penalty=path-length"], "style space"), (["penalty=r1"], "batch norm"),
                        (["latent=codes", "latent.categorical=99", "latent.continuous=2"], "codes")):
        with pytest.raises(RequestError, match=message):
            small(*words).modules(INFO)


# ---------------------------------------------------------------------------------------------- priors

def test_priors_have_the_distributions_they_are_named_after() -> None:
    eps = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LatentPrior(1)(eps), eps)
    u = UniformPrior(1)(eps)
    assert u.min() >= -1
    assert u.max() <= 1
    histogram = torch.histc(u, 10, -1, 1) / len(u)
    torch.testing.assert_close(histogram, torch.full((10,), 0.1), atol=0.003, rtol=0)


def test_codes_are_equally_likely_and_can_be_read_back() -> None:
    Z = InfoGANPrior(20, categorical=(5, 3), continuous=2)
    assert Z.noise_dim == 20 - 8 - 2 + 4
    eps = torch.randn(60_000, Z.noise_dim, generator=torch.Generator().manual_seed(0))
    z = Z(eps)
    (five, three), numbers = Z.codes(z)
    assert z.shape == (60_000, 20)
    torch.testing.assert_close(torch.bincount(five) / 6e4, torch.full((5,), 0.2), atol=0.01, rtol=0)
    torch.testing.assert_close(torch.bincount(three) / 6e4, torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    assert numbers.abs().max() <= 1
    assert numbers.std().item() == pytest.approx(3 ** -0.5, abs=0.01)
    assert torch.equal(z[:, 10:15], F.one_hot(five, 5).float())


# ---------------------------------------------------------------------------------------------- InfoGAN

def test_a_perfect_q_attains_the_full_mutual_information() -> None:
    """I(c; x) = H(c) where c can be read: log K nats of a category; a number known to a standard deviation s tells log 2 - log(s (2 pi e)^0.5)."""
    index = torch.tensor([0, 3, 1, 2])
    numbers = torch.tensor([[0.1], [-0.5], [0.9], [0.0]])
    s = 0.01
    sure = (F.one_hot(index, 4).float() * 1e4,), numbers + s * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]), torch.full((4, 1), 2 * math.log(s))
    gained, logs = mutual_information_bound(sure, [index], numbers)
    assert logs["information_categorical"].item() == pytest.approx(math.log(4))
    assert logs["information_continuous"].item() == pytest.approx(math.log(2) - math.log(s * math.sqrt(2 * math.pi * math.e)), rel=1e-4)
    assert gained.item() == pytest.approx(sum(value.item() for value in logs.values()))
    ignorant = (torch.zeros(4, 4),), torch.zeros(4, 1), torch.full((4, 1), math.log(1 / 3))
    assert mutual_information_bound(ignorant, [index], numbers)[1]["information_categorical"].item() == pytest.approx(0, abs=1e-6)


def test_infogan_adds_the_bound_to_the_generators_loss() -> None:
    recipe = small("latent.categorical=4", "latent.continuous=1", "lambda_info=0.7", "generator.norm=none", "discriminator.norm=none", recipe=InfoGAN)
    m, x = recipe.modules(INFO), batch()
    seen = losses(recipe, m, x)
    torch.manual_seed(1)
    z = m["Z"](torch.randn(4, m["Z"].noise_dim))
    fake = m["G"](z)
    q = m["Q"](m["D"].trunk(fake))
    (index,), numbers = m["Z"].codes(z)
    category = F.cross_entropy(q.logits[0], index)
    number = torch.distributions.Normal(q.mean, (q.log_variance / 2).exp()).log_prob(numbers).sum(1).mean()
    bound = math.log(4) - category + number + math.log(2)
    assert seen["G"].item() == pytest.approx((F.softplus(-m["D"](fake)).mean() - 0.7 * bound).item(), rel=1e-4)


@pytest.mark.parametrize("words", [
    ["augment=diffaugment"], ["conditional=true"], ["conditional=true", "generator.condition=batchnorm", "discriminator.condition=projection"],
    ["d_weight_norm=spectral", "g_weight_norm=weight", "discriminator.norm=none", "adversarial=hinge"], ["generator=progressive"],
    ["adversarial=rpgan", "penalty=r1r2", "penalty.every=2", "discriminator.norm=none", "d_steps=2"], ["discriminator=sagan", "generator=sagan"],
    ["generator=stylegan2", "generator.width=8", "g_penalty=path-length"]], ids=" ".join)
def test_infogan_accepts_the_settings_of_a_gan(words: list[str]) -> None:
    """And each update changes its own player, Q with G, with every one of these settings."""
    recipe = small("latent.categorical=4", *words, recipe=InfoGAN)
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    learner.begin(CLOCK)
    before, moved, logged = copy.deepcopy(dict(m.named_parameters())), {}, {}

    def update(who: str, loss: Tensor, /, **logs: Tensor) -> None:
        learner(who, loss, **logs)
        moved[who] = {name.split(".")[0] for name, value in m.named_parameters() if not torch.equal(value, before[name])}
        before.update(copy.deepcopy(dict(m.named_parameters())))
        logged.update(logs)

    recipe.step(m, batch(), CLOCK, update)
    assert moved == {"D": {"D"}, "G": {"G", "Q"}}
    assert {"information_categorical", "information_continuous"} <= logged.keys()


def test_infogan_reads_codes_from_the_image_that_d_sees() -> None:
    """Q shares D's trunk, so it shares D's view of an image too."""
    recipe = small("latent.categorical=4", "augment=diffaugment", recipe=InfoGAN)
    m, shown = recipe.modules(INFO), []
    m["T"].register_forward_hook(lambda module, inputs, out: shown.append(out[0].detach()))
    seen: list[Tensor] = []
    m["Q"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    losses(recipe, m, batch())
    assert torch.equal(seen[0], m["D"].trunk(shown[2]))     # After those of D's own turn.


def test_growing_networks_receive_the_progress_of_the_run() -> None:
    for recipe in (small("generator=progressive", "discriminator=progressive"), small("generator=progressive", recipe=InfoGAN)):
        m, levels = recipe.modules(INFO), []
        for step in (0, 100, 200, 300, 400):
            losses(recipe, m, batch(), Progress(step, 4, 2000))
            levels.append(m["G"].growth.level.item())
        assert levels == sorted(levels), levels
        assert levels[0] == 0 < levels[-1], levels


def test_infogan_learns_to_recover_its_codes() -> None:
    """A few dozen steps on noise are enough for Q and G to agree on a code."""
    recipe = small("latent.categorical=2", "latent.continuous=0", "generator.z_dim=4", recipe=InfoGAN)
    torch.manual_seed(0)
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    seen = []
    for step in range(60):
        progress = Progress(step, 16, 10**6)
        learner.begin(progress)
        recipe.step(m, batch(16, step), progress, lambda player, loss, /, **logs: (
            seen.append(logs["information_categorical"].item()) if player == "G" else None, learner(player, loss, **logs)))
    assert sum(seen[-5:]) / 5 > 0.6, seen[-5:]      # Of log 2 = 0.693.
