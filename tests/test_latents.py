"""Images as noise: inversion by every family that can, reconstructions, ways between images, denoising, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import i2i as package
from i2i import load, registry
from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.images.convert import make_grid
from i2i.inference.denoise import Denoiser
from i2i.inference.explore import interpolate
from i2i.inference.inversion import Search, invert_images
from i2i.inference.latent_space import latent_space
from i2i.inference.latents import Latents, read_images
from i2i.recipes.base import DataInfo, Inverts
from tests.conftest import Run, drawing

FEW = ("train.batch_size=4", "train.images=16", "train.ema_half_life=0", "data.size=16")
TINY = {"generator.width": 4, "generator.z_dim": 4, "encoder.width": 4, "network.width": 4, "network.couplings": 1, "denoiser.width": 4, "steps": 400}
INVERTING = [name for name in registry.names("recipe") if isinstance(registry.lookup("recipe", name)(), Inverts) and not registry.lookup("recipe", name).sources]


def picture(index: int) -> np.ndarray:
    return np.ascontiguousarray(drawing(index)[::2, 32::2])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("latents")
    for i in range(4):
        (base / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i)).save(base / "data" / "ab"[i % 2] / f"{i}.png")
    vae = ("vae", "generator.width=4", "generator.z_dim=4", "encoder.width=4")
    runs = {"vae": vae, "labeled": (*vae, "conditional=true"), "flow": ("flow", "network.width=4", "network.couplings=1", "conditional=true"),
            "pixels": ("autoregressive", "network.width=4", "network.blocks=1"), "dcgan": ("dcgan", "generator.width=4", "generator.z_dim=4", "discriminator.width=4")}
    for name, (recipe, *words) in runs.items():
        package.train(recipe, *words, *FEW, data=base / "data", out=base / name, device="cpu")
    return base


def test_the_families_that_invert_are_known() -> None:
    assert set(INVERTING) >= {"vae", "flow", "diffusion", "rectified-flow"}


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", INVERTING)
def test_noise_that_is_found_makes_the_image_again(name: str, conditional: bool) -> None:
    """As well as its family says: exactly, or nearly where the steps are small; a VAE's is that of its reconstruction."""
    torch.manual_seed(0)
    recipe: Any = registry.lookup("recipe", name)(conditional=conditional)
    for key, value in TINY.items():
        try:
            recipe = override(recipe, parse_assignments([f"{key}={value}"]))
        except RequestError:
            continue        # It has no such setting.
    m = recipe.modules(DataInfo((16, 16), num_classes=2)).eval()
    with torch.no_grad():
        for p in m.parameters():
            p.add_(0.02 * torch.randn_like(p))
        batch = {"b": ((torch.rand(2, 3, 16, 16) * 255).round() / 127.5 - 1) * 0.9, "c": torch.tensor([0, 1])}
        noise = recipe.invert(m, batch)
        assert noise.shape == (2, m["Z"].noise_dim)
        made = recipe.generate(m, {"eps": noise, "c": batch["c"]})["fake_b"]
        if name == "vae":
            torch.testing.assert_close(made, recipe.reconstruct(m, batch))
        else:
            assert float((made - batch["b"]).abs().mean()) < (1e-2 if recipe.family.inversion == "approximate" else 4e-3)     # Half a level.
        if conditional:
            assert not torch.equal(recipe.invert(m, batch | {"c": 1 - batch["c"]}), noise)


def test_images_are_inverted_by_models_that_go_back(base: Path, i2i: Run, tmp_path: Path) -> None:
    model, files = load(base / "flow", device="cpu"), [base / "data" / "a" / "0.png", base / "data" / "b" / "1.png"]
    names, originals = read_images(model, files)
    assert names == ["0.png", "1.png"]
    np.testing.assert_array_equal(((originals[1].permute(1, 2, 0) + 1) * 127.5).round().numpy(), picture(1))
    assert torch.equal(read_images(model, [base / "data"], 3)[1], torch.stack([read_images(model, [base / "data" / name])[1][0] for name in ("a/0.png", "a/2.png", "b/1.png")]))
    found = invert_images(model, files, tmp_path, classes="b")
    assert min(found.psnr) > 50
    (row,) = interpolate(model, 3, latents=found)       # Of their own class.
    torch.testing.assert_close(torch.stack([row[0], row[2]]), originals, rtol=0, atol=1e-3)
    assert (row[1] - row[0]).abs().max() > 0.1
    assert min(invert_images(load(base / "vae", device="cpu"), [base / "data"], tmp_path, n=3).psnr) < 40
    result = i2i("explore", "invert", base / "vae", base / "data", base / "data" / "b", "--n", 5, "--out", "found", "--device", "cpu")
    assert (result.code, "5 images -> found  (PSNR " in result.out) == (0, True), result.err
    assert sorted(path.name for path in Path("found").iterdir()) == ["0000-0.png", "0001-2.png", "0002-1.png", "0003-3.png", "0004-1.png", "latents.npz"]
    assert Image.open("found/0000-0.png").size == (2 * 18 + 2, 18 + 2)
    result = i2i("explore", "interpolate", base / "vae", "--latents", "found/latents.npz", "--grid", 5, "--out", "way.png", "--device", "cpu")
    assert (result.code, Image.open("way.png").size) == (0, (5 * 18 + 2, 4 * 18 + 2)), result.err
    assert i2i("explore", "walk", base / "vae", "--latents", "found/latents.npz", "--frames", 5, "--out", "way.png", "--device", "cpu").code == 0
    assert Image.open("way.png").size == (5 * 16, 16)


def test_what_is_converted_is_said(base: Path, i2i: Run) -> None:
    for i, mode in enumerate(("L", "CMYK", "RGBA", "RGB")):
        image = Image.fromarray(picture(i)).convert(mode)
        if mode == "RGBA":
            image.putalpha(image.getchannel("R"))
        Path("in").mkdir(exist_ok=True)
        image.save(Path("in") / f"{mode}.tif")
    gray, cmyk, clear = ("gray, converted to color", "CMYK, read as RGB without a profile", "transparent, composited over the background")
    found = list[str]()
    read_images(load(base / "vae", device="cpu"), ["in"], 4, warn=found.append)
    assert found == [f"{cmyk}: 1 of the images, such as CMYK.tif", f"{gray}: 1 of the images, such as L.tif", f"{clear}: 1 of the images, such as RGBA.tif"]
    inverted = i2i("explore", "invert", base / "vae", "in", "--out", "inverted", "--device", "cpu")
    assert inverted.err == "".join(f"note: {line}\n" for line in found)
    for words in (("translate", base / "vae", "in", "--task", "denoise", "--out", "out"), ("score", base / "vae", "in")):
        result = i2i(*words, "--device", "cpu")
        assert (result.code, all(f"note: {note}" in result.err for note in (gray, cmyk, clear))) == (0, True), result.err


@pytest.mark.parametrize("name", ["plain", "classes", "styles"])
def test_a_search_finds_what_a_generator_made(noisy: dict[str, Path], name: str, tmp_path: Path) -> None:
    """In z, in z of the right class, and in styles, as nearly as bytes allow."""
    model = load(noisy[name], device="cpu")
    space, label = latent_space(model), 1 if model.classes else None
    images = space.images(space.points(9, range(2), label), label)
    for i, image in enumerate(images):
        Image.fromarray(make_grid([[image]], gap=0)).save(tmp_path / f"{i}.png")
    found = invert_images(model, [tmp_path], tmp_path / "out", steps=100, starts=2, perceptual=0)
    assert min(found.psnr) > 30
    assert (found.space, found.points.shape) == ("styles" if name == "styles" else "noise", (2, 8))
    assert found.labels.tolist() == ([1, 1] if name == "classes" else [-1, -1] if name == "plain" else found.labels.tolist())
    again = Latents.read(tmp_path / "out" / "latents.npz", model)
    assert torch.equal(again.points, found.points)
    assert (again.labels.tolist(), again.names, again.space) == (found.labels.tolist(), found.names, found.space)
    (row,) = interpolate(model, 2, latents=again)
    assert float((torch.stack(row) - images).abs().mean()) < 0.05
    second = invert_images(model, [tmp_path / "1.png"], tmp_path / "out", steps=100, starts=2, perceptual=0)
    assert torch.equal(second.points[0], found.points[1])       # Whatever else is searched for.


def test_what_a_model_cannot_make_is_still_searched_within_its_noise(noisy: dict[str, Path]) -> None:
    model = load(noisy["plain"], device="cpu")
    point, _ = Search(latent_space(model), (), steps=40, starts=2, perceptual=0)((torch.rand(3, 32, 32) > 0.5) * 2.0 - 1)
    assert float(point.norm()) / 8 ** 0.5 < 1.3


def test_features_take_part_in_a_search(noisy: dict[str, Path]) -> None:
    space = latent_space(load(noisy["plain"], device="cpu"))
    image = space.images(space.points(9, [0], None), None)[0]
    z = [Search(space, (), steps=2, starts=1, perceptual=weight)(image)[0] for weight in (0.0, 1.0)]
    assert not torch.equal(*z)


def test_what_cannot_be_inverted_is_refused(base: Path, trained: Path, noisy: dict[str, Path], i2i: Run, tmp_path: Path) -> None:
    image = base / "data" / "a" / "0.png"
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for words, expected in (
            ((trained, image), "makes images from images"), ((base / "pixels", image), "autoregressive model cannot be inverted; accepted: a model that makes an image in one step"),
            ((base / "flow", image), "accepted: --classes NAME with one"), ((base / "vae", "absent"), "absent"),
            ((base / "vae", "broken.png"), "broken.png"), ((base / "vae", "empty"), "empty"), ((base / "vae", image, "--steps", 3), "accepted: no --steps"),
            ((base / "dcgan", image, "--steps", 0), "--steps=0"), ((base / "dcgan", image, "--starts", 1000), "1 to 256"), ((base / "dcgan", image, "--perceptual", -1), "--perceptual=-1"),
            ((base / "dcgan", image, "--perceptual", "nan"), "--perceptual=nan"), ((base / "dcgan", image, "--out", "file"), "--out file cannot be written"),
            ((noisy["classes"], image, "--classes", "rde"), "did you mean 'red'")):
        result = i2i("explore", "invert", *words[:2], *(words[2:] if "--out" in words else ("--out", "out", *words[2:])), "--device", "cpu")
        assert (result.code, expected in result.line) == (2, True), result.line
        assert not Path("out/latents.npz").exists()


def test_latents_of_others_are_refused(noisy: dict[str, Path], base: Path, tmp_path: Path) -> None:
    plain, classes = load(noisy["plain"], device="cpu"), load(noisy["classes"], device="cpu")
    good = Latents(torch.zeros(2, 8), torch.tensor([-1, -1]), ["a", "b"], [1.0, 2.0], "noise")
    for changes, model, expected in (
            ({}, classes, "none of the 3 classes"), ({"labels": torch.tensor([0, 3])}, classes, "none of the 3 classes"), ({"points": torch.zeros(2, 7)}, plain, "holds noise of 7 numbers; accepted: noise of 8"),
            ({"space": "styles"}, plain, "holds styles of 8 numbers"), ({"points": torch.full((2, 8), torch.nan)}, plain, "do not fit"), ({"labels": torch.zeros(3)}, plain, "do not fit"),
            ({"points": torch.zeros(8)}, plain, "do not fit")):
        replace(good, **changes).save(tmp_path / "x.npz")
        with pytest.raises(RequestError, match=expected):
            Latents.read(tmp_path / "x.npz", model)
    good.save(tmp_path / "x.npz")
    data = (tmp_path / "x.npz").read_bytes()
    np.savez(tmp_path / "other.npz", points=np.zeros((2, 8)))
    np.savez(tmp_path / "object.npz", points=np.array([{}], object))
    (tmp_path / "half.npz").write_bytes(data[:len(data) // 2])
    for name in ("other", "object", "half"):
        with pytest.raises(RequestError, match="is not what i2i explore invert writes"):
            Latents.read(tmp_path / f"{name}.npz", plain)
    mixed = replace(good, labels=torch.tensor([0, 1]))
    with pytest.raises(RequestError, match=r"images of 2 classes, red, train; accepted: --classes NAME"):
        interpolate(classes, 3, latents=mixed)
    assert len(interpolate(classes, 3, latents=mixed, classes="red")) == 1


def test_what_was_found_stays_when_the_rest_fails(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert_images(load(base / "vae", device="cpu"), [base / "data"], tmp_path, progress=fail)
    assert len(Latents.read(tmp_path / "latents.npz", load(base / "vae", device="cpu")).names) == 2


def test_denoising_is_reconstructing(base: Path, i2i: Run, tmp_path: Path) -> None:
    model = load(base / "vae", device="cpu")
    (tmp_path / "wide").mkdir()
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save("wide/wide.png")
    Image.fromarray(picture(0)).save("wide/right.png")
    assert i2i("translate", base / "vae", base / "data", "--out", "out", "--task", "denoise", "--device", "cpu").code == 0
    with torch.no_grad():
        expected = model.recipe.reconstruct(model.modules, {"b": read_images(model, [base / "data" / "a" / "0.png"])[1]})     # type: ignore[attr-defined]
    found = np.asarray(Image.open("out/a/0.png"))
    np.testing.assert_allclose(found, (expected[0].permute(1, 2, 0).numpy() + 1) * 127.5, atol=1)
    np.testing.assert_allclose(Denoiser(model).translate(picture(0)), found, atol=1)
    result = i2i("translate", base / "vae", "wide", "--out", "some", "--task", "denoise", "--device", "cpu")
    assert result.code == 1
    assert "wide.png: it has 20x16 pixels; accepted: 16x16" in result.err
    assert [path.name for path in Path("some").iterdir()] == ["right.png"]
    with pytest.raises(RequestError, match="20x16 pixels"):
        Denoiser(model)(torch.zeros(1, 3, 16, 20))


def test_what_cannot_denoise_is_refused(base: Path, trained: Path, i2i: Run) -> None:
    for model, words, expected in (
            ("flow", (), "flow does not"), ("labeled", (), "models without classes"), ("dcgan", (), "gan does not"), (trained, (), "pix2pix does not"),
            ("vae", ("--direction", "ba"), "denoising has one direction"), ("vae", ("--steps", 3), "steps=3"), ("vae", ("--samples", 2, "--spread", "s"), "makes the same image each time"),
            ("vae", ("--task", "clean"), "--task clean is not known; accepted: translate or denoise")):
        result = i2i("translate", base / model, base / "data", "--out", "out", "--device", "cpu", "--task", "denoise", *words)
        assert (result.code, expected in result.line) == (2, True), result.line


def test_a_chain_can_start_by_denoising(base: Path, trained: Path, i2i: Run) -> None:
    assert i2i("translate", base / "vae", base / "data" / "a", "--out", "out", "--task", "denoise", "--chain", trained, "--device", "cpu").code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.png", "2.png"]
