"""Images as noise: inversion by every family that can, reconstructions, ways between images, denoising, what is refused."""

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
from i2i.inference.denoise import Denoiser
from i2i.inference.explore import interpolate, reconstruct
from i2i.inference.latents import invert, read_images
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
            "dcgan": ("dcgan", "generator.width=4", "generator.z_dim=4", "discriminator.width=4")}
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


def test_reconstructions_and_ways_between_images(base: Path, i2i: Run) -> None:
    model, files = load(base / "flow", device="cpu"), [base / "data" / "a" / "0.png", base / "data" / "b" / "1.png"]
    originals = read_images(model, files, 2)
    np.testing.assert_array_equal(((originals[1].permute(1, 2, 0) + 1) * 127.5).round().numpy(), picture(1))
    assert torch.equal(read_images(model, [base / "data"], 3), torch.stack([read_images(model, [base / "data" / name], 1)[0] for name in ("a/0.png", "a/2.png", "b/1.png")]))
    (row,) = interpolate(model, 3, classes="b", images=files)
    torch.testing.assert_close(torch.stack([row[0], row[2]]), originals, rtol=0, atol=1e-3)
    assert (row[1] - row[0]).abs().max() > 0.1
    plane = interpolate(model, 2, 2, classes="a", images=[*files, *files[::-1]])
    torch.testing.assert_close(plane[1][0], originals[1], rtol=0, atol=1e-3)
    rows, psnr = reconstruct(model, [base / "data"], 3, classes="a")
    assert [len(each) for each in rows] == [3, 3]
    assert psnr > 50
    assert reconstruct(load(base / "vae", device="cpu"), [base / "data"], 3)[1] < 40
    result = i2i("explore", "reconstruct", base / "vae", base / "data", "--n", 3, "--out", "sheet.png", "--device", "cpu")
    assert (result.code, "dB" in result.out) == (0, True), result.err
    assert Image.open("sheet.png").size == (3 * 18 + 2, 2 * 18 + 2)
    result = i2i("explore", "interpolate", base / "vae", "--image", files[0], "--image", files[1], "--grid", 5, "--out", "way.png", "--device", "cpu")
    assert (result.code, Image.open("way.png").size) == (0, (5 * 18 + 2, 20)), result.err


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
    reconstructed = i2i("explore", "reconstruct", base / "vae", "in", "--out", "sheet.png", "--device", "cpu")
    between = i2i("explore", "interpolate", base / "vae", "--image", "in/L.tif", "--image", "in/RGB.tif", "--out", "way.png", "--device", "cpu")
    assert (reconstructed.err, between.err) == ("".join(f"note: {line}\n" for line in found), f"note: {gray}: 1 of the images, such as L.tif\n")
    for words in (("translate", base / "vae", "in", "--task", "denoise", "--out", "out"), ("score", base / "vae", "in")):
        result = i2i(*words, "--device", "cpu")
        assert (result.code, all(f"note: {note}" in result.err for note in (gray, cmyk, clear))) == (0, True), result.err


def test_what_cannot_be_inverted_is_refused(base: Path, trained: Path, i2i: Run, tmp_path: Path) -> None:
    image = base / "data" / "a" / "0.png"
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    for words, expected in (
            (("reconstruct", base / "dcgan", image), "does not go back from an image to noise"), (("reconstruct", trained, image), "makes images from images"),
            (("reconstruct", base / "flow", image), "accepted: --classes NAME with one"), (("reconstruct", base / "vae", "absent"), "absent"),
            (("reconstruct", base / "vae", "broken.png"), "broken.png"), (("reconstruct", base / "vae", "empty"), "empty"),
            (("interpolate", base / "vae", "--image", image), "1 images to go between; accepted: 2 with --grid 8"),
            (("interpolate", base / "vae", "--image", image, "--image", image, "--grid", "3x3"), "accepted: 4 with --grid 3x3"),
            (("interpolate", base / "dcgan", "--image", image, "--image", image), "does not go back")):
        result = i2i("explore", *words, "--out", "sheet.png", "--device", "cpu")
        assert (result.code, expected in result.line) == (2, True), result.line
        assert not Path("sheet.png").exists()


def test_denoising_is_reconstructing(base: Path, i2i: Run, tmp_path: Path) -> None:
    model = load(base / "vae", device="cpu")
    (tmp_path / "wide").mkdir()
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save("wide/wide.png")
    Image.fromarray(picture(0)).save("wide/right.png")
    assert i2i("translate", base / "vae", base / "data", "--out", "out", "--task", "denoise", "--device", "cpu").code == 0
    with torch.no_grad():
        expected = model.recipe.reconstruct(model.modules, {"b": read_images(model, [base / "data" / "a" / "0.png"], 1)})     # type: ignore[attr-defined]
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
    with pytest.raises(RequestError, match="does not go back"):
        invert(load(base / "dcgan", device="cpu"), torch.zeros(1, 3, 16, 16))


def test_a_chain_can_start_by_denoising(base: Path, trained: Path, i2i: Run) -> None:
    assert i2i("translate", base / "vae", base / "data" / "a", "--out", "out", "--task", "denoise", "--chain", trained, "--device", "cpu").code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.png", "2.png"]
