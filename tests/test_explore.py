"""Ways between images, mixed styles, walks: what is in them, and the files they become."""

import errno
import math
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from i2i import Model, files, load
from i2i.errors import JobError, RequestError
from i2i.images.convert import to_array
from i2i.images.format import ImageFormat
from i2i.inference import animation, explore, latent_space
from i2i.seeding import noise_for
from tests.conftest import Run

Noisy = dict[str, Path]


@pytest.fixture
def styles(noisy: Noisy) -> Model:
    return load(noisy["styles"], device="cpu")


@pytest.fixture
def classes(noisy: Noisy) -> Model:
    return load(noisy["classes"], device="cpu")


def assert_near(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------------------------------- the ways

def test_slerp_goes_along_the_arc() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    for t in (0.0, 0.25, 0.5, 1.0):
        assert_near(latent_space.slerp(a, b, t), 2 * torch.tensor([[math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)]]))
    assert_near(latent_space.slerp(a, a, 0.3), a)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_slerp_keeps_the_length_of_noise(seed: int, t: float) -> None:
    """Between points of equal length all points have that length; a straight line would cut the corner (Karras et al. 2019, 4.1; White 2016)."""
    a, b = (torch.nn.functional.normalize(noise_for(seed, i, 16)[None], dim=1) for i in range(2))
    assert_near(latent_space.slerp(a, b, t).norm(), torch.tensor(1.0))


def test_an_interpolation_goes_from_the_first_image_to_the_second(classes: Model, styles: Model) -> None:
    for model in (classes, styles):
        rows = explore.interpolate(model, 4, seed=3)
        assert [len(row) for row in rows] == [4, 4, 4]
        for label, row in enumerate(rows):
            first, second = model.generate(2, labels=label, seed=3)
            assert_near(row[0], first)
            assert_near(row[3], second)


def test_seeds_are_the_first_images_of_each(noisy: Noisy, classes: Model, styles: Model) -> None:
    for model, label in ((classes, 2), (styles, 2), (load(noisy["plain"], device="cpu"), None)):
        ends = [model.generate(1, labels=label, seed=seed)[0] for seed in (3, 7, 5)]
        rows = explore.interpolate(model, 2, seeds=(3, 7, 5))
        assert len(rows) == 2 * (len(model.classes) or 1)       # From each to the next, the last class last.
        for row, (first, second) in zip(rows[-2:], pairwise(ends), strict=True):
            assert_near(row[0], first)
            assert_near(row[1], second)
        plane = explore.interpolate(model, 2, 2, seeds=(3, 7, 5, 3), classes=None if label is None else "2")
        assert_near(plane[0][1], ends[1])
        assert_near(plane[1][0], ends[2])
        frames = list(explore.walk(model, 6, seeds=(3, 7, 5)))
        for stop, image in enumerate(ends):
            assert_near(frames[2 * stop][-1], image)


def test_halfway_is_halfway_in_noise_or_style(classes: Model, styles: Model) -> None:
    eps = torch.stack([noise_for(0, i, 8) for i in range(2)])
    c = torch.tensor([1])
    middle = latent_space.slerp(eps[:1], eps[1:], 0.5)
    with torch.no_grad():
        assert_near(explore.interpolate(classes, 3, classes="train")[0][1], classes.modules["G"](middle, c)[0])
        G = styles.modules["G"]
        w = G.mapping(eps, torch.tensor([1, 1])).mean(0)
        assert_near(explore.interpolate(styles, 3, classes="train")[0][1], G.synthesize(w.expand(1, G.num_ws, -1))[0])


def test_a_plane_has_an_image_in_each_corner(noisy: Noisy, styles: Model) -> None:
    for model, arguments in ((load(noisy["plain"], device="cpu"), {}), (styles, {"classes": "red"})):
        plane = explore.interpolate(model, 3, 4, **arguments)
        corners = model.generate(4, labels=0 if arguments else None)
        for corner, image in zip(corners, (plane[0][0], plane[0][2], plane[3][0], plane[3][2]), strict=True):
            assert_near(image, corner)


def test_a_sum_begins_at_a_and_ends_at_a_minus_b_plus_c(noisy: Noisy, styles: Model) -> None:
    for model, label in ((load(noisy["plain"], device="cpu"), None), (styles, 2)):
        space = latent_space.latent_space(model)
        a, b, c = (space.points(seed, [0], label) for seed in (3, 5, 7))
        end = a - b + c if model is styles else (a - b + c) * a.norm() / (a - b + c).norm()
        row = explore.arithmetic(model, 4, seeds=(3, 5, 7))[-1]
        assert len(row) == 3 + 4
        assert_near(row[3], row[0])
        assert_near(torch.stack([*row[:3], row[-1]]), space.images(torch.cat([a, b, c, end]), label))
        assert not torch.allclose(row[-1], row[0], atol=1e-3)
    with pytest.raises(RequestError, match="2 images to calculate with; accepted: 3"):
        explore.arithmetic(styles, 4, seeds=(3, 5))


def test_mixing_takes_the_columns_styles_in_some_layers(styles: Model) -> None:
    """Karras et al. 2019, figure 3, written out."""
    sheet = explore.mix(styles, 3, 2, layers="4-5", classes="red")
    pure = styles.generate(5, labels=0)
    assert_near(torch.stack(sheet[0][1:]), pure[2:])
    assert_near(torch.stack([row[0] for row in sheet[1:]]), pure[:2])
    assert torch.equal(sheet[0][0], torch.ones(3, 32, 32))
    G = styles.modules["G"]
    w = G.mapping(torch.stack([noise_for(0, i, 8) for i in range(5)]), torch.zeros(5, dtype=torch.long))
    for i in range(2):
        for j in range(3):
            ws = w[i].repeat(1, G.num_ws, 1)
            ws[:, 4:6] = w[2 + j]
            assert_near(sheet[1 + i][1 + j], G.synthesize(ws)[0])


def test_mixing_all_layers_gives_the_column_and_half_of_them_neither(styles: Model) -> None:
    count = styles.modules["G"].num_ws
    whole = explore.mix(styles, 2, 2, layers=f"0-{count - 1}")
    assert_near(whole[1][1], whole[0][1])
    assert_near(whole[2][2], whole[0][2])
    half, same = explore.mix(styles, 2, 2), explore.mix(styles, 2, 2, layers=f"{count // 2}-{count - 1}")
    assert all(torch.equal(a, b) for one, other in zip(half, same, strict=True) for a, b in zip(one, other, strict=True))
    assert (half[1][1] - half[0][1]).abs().max() > 1e-2
    assert (half[1][1] - half[1][0]).abs().max() > 1e-2


def test_a_walk_is_closed_and_passes_its_stops(classes: Model, styles: Model) -> None:
    for model in (classes, styles):
        frames = list(explore.walk(model, 9, stops=3, seed=1))
        assert len(frames) == 9
        for label in range(3):
            for stop, image in enumerate(model.generate(3, labels=label, seed=1)):
                assert_near(frames[3 * stop][label], image)
    space = latent_space.NoiseSpace(classes)
    points = space.points(0, range(3), None)
    way = list(latent_space.closed_path(space, points, 30))
    steps = [a @ b.T / a.norm() / b.norm() for a, b in zip(way, [*way[1:], way[0]], strict=True)]
    assert min(steps) > 0.9        # No jump, also not from the last to the first.


def test_truncation_acts_on_interpolations_mixes_and_walks(styles: Model) -> None:
    for images in (explore.interpolate(styles, 3, truncation=0)[0], explore.mix(styles, 1, 1, truncation=0)[1], next(explore.walk(styles, 4, truncation=0))):
        assert_near(images[0], images[1])
    first, *_, last = explore.interpolate(styles, 3)[0]
    assert (first - last).abs().max() > 1e-2        # Without it they differ.


# ---------------------------------------------------------------------------------------------- the files

def size(path: Path) -> tuple[int, int]:
    return Image.open(path).size


def test_sheets_have_the_right_size(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    for arguments, expected in ((("interpolate", noisy["styles"], "--grid", 5), (5 * 34 + 2, 3 * 34 + 2)),
                            (("interpolate", noisy["classes"], "--grid", "5x4", "--classes", "red"), (5 * 34 + 2, 4 * 34 + 2)),
                            (("interpolate", noisy["plain"], "--grid", 5), (5 * 34 + 2, 34 + 2)),
                            (("interpolate", noisy["classes"], "--classes", "blue/green,0"), (8 * 34 + 2, 2 * 34 + 2)),
                            (("mix", noisy["styles"], "--grid", "3x2"), (4 * 34 + 2, 3 * 34 + 2)),
                            (("walk", noisy["plain"], "--frames", 7), (7 * 32, 32)),
                            (("walk", noisy["classes"], "--frames", 7), (7 * 32, 3 * 32))):
        for out in ("one/x.png", "two/x.png"):
            result = i2i("explore", *arguments, "--out", out)
            assert result.code == 0, result.err
            assert result.out == f"{out}\n"
        assert size(tmp_path / "one/x.png") == expected
        assert (tmp_path / "one/x.png").read_bytes() == (tmp_path / "two/x.png").read_bytes()


def test_a_sheet_shows_the_images(noisy: Noisy, styles: Model, i2i: Run, tmp_path: Path) -> None:
    assert i2i("explore", "interpolate", noisy["styles"], "--grid", 3, "--seed", 4, "--out", "x.png").code == 0
    sheet = np.asarray(Image.open(tmp_path / "x.png")).astype(int)
    expected = to_array(styles.generate(2, labels=1, seed=4)[1], ImageFormat())
    assert np.abs(sheet[36:68, 70:102] - expected).max() <= 1


def test_a_gif_has_its_frames_and_their_time(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    assert i2i("explore", "walk", noisy["styles"], "--frames", 12, "--fps", 24, "--classes", "red", "--out", "w.gif").code == 0
    film = Image.open(tmp_path / "w.gif")
    assert (film.size, film.n_frames, film.info["loop"]) == ((32, 32), 12, 0)
    durations = []
    for frame in range(12):
        film.seek(frame)
        durations.append(film.info["duration"])
    assert sum(durations) == 500
    assert set(durations) == {40, 50}
    assert i2i("explore", "walk", noisy["styles"], "--frames", 12, "--fps", 24, "--classes", "red", "--out", "again.gif").code == 0
    assert (tmp_path / "again.gif").read_bytes() == (tmp_path / "w.gif").read_bytes()


def test_an_mp4_has_its_frames_and_rate(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    assert i2i("explore", "walk", noisy["styles"], "--frames", 9, "--fps", 10, "--stops", 3, "--out", "w.mp4").code == 0
    film = cv2.VideoCapture(str(tmp_path / "w.mp4"))
    assert (film.get(cv2.CAP_PROP_FRAME_COUNT), film.get(cv2.CAP_PROP_FPS)) == (9, 10)
    assert film.read()[1].shape == (104, 36, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["w.mp4"]


def test_odd_sizes_become_even_in_an_mp4(tmp_path: Path) -> None:
    animation.save_animation(tmp_path / "x.mp4", (np.full((33, 35, 3), (200, 120, 40 * i), np.uint8) for i in range(5)), 5, 24)
    film = cv2.VideoCapture(str(tmp_path / "x.mp4"))
    assert (film.get(cv2.CAP_PROP_FRAME_WIDTH), film.get(cv2.CAP_PROP_FRAME_HEIGHT), film.get(cv2.CAP_PROP_FRAME_COUNT)) == (36, 34, 5)
    for i in range(5):
        blue, green, red = film.read()[1].mean((0, 1))
        assert np.allclose((red, green, blue), (200, 120, 40 * i), atol=8)


@pytest.mark.parametrize("out", ["w.gif", "w.mp4", "w.png"])
def test_what_cannot_be_written_is_an_error_and_leaves_nothing(noisy: Noisy, i2i: Run, tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = cv2.VideoWriter

    class Silent:
        """As the encoder on a full disk: no frame arrives, and no word of it.  Not a subclass: OpenCV's types free those as what they are not."""

        fourcc = writer.fourcc

        def __init__(self, *args: Any) -> None:
            self.release = writer(*args).release

        def write(self, frame: object) -> None:
            """Nothing."""

    monkeypatch.setattr(files, "_sync", refuse)
    monkeypatch.setattr(cv2, "VideoWriter", Silent)
    result = i2i("explore", "walk", noisy["plain"], "--frames", 4, "--out", out)
    assert result.code == 1
    assert f"{out} could not be written" in result.line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "expected"), [
    (("interpolate", "plain", "--out", "x.gif"), "--out=x.gif"), (("walk", "plain", "--out", "x.webm"), ".gif, .mp4, .png"),
    (("walk", "plain", "--out", "x.gif", "--fps", 60), "1 to 50"), (("walk", "plain", "--out", "x.png", "--fps", 5), "is a strip"),
    (("walk", "plain", "--out", "x.mp4", "--fps", 0), "--fps=0"), (("walk", "plain", "--out", "x.gif", "--frames", 3), "--frames=3"),
    (("walk", "plain", "--out", "x.gif", "--frames", 10**9), "at most 100,000"),
    (("walk", "plain", "--out", "x.gif", "--stops", 1), "--stops=1"), (("walk", "plain", "--out", "x.png", "--frames", 9999), "at most 65,000"),
    (("mix", "plain", "--out", "x.png"), "no styles to mix"), (("mix", "classes", "--out", "x.png"), "no styles to mix"),
    (("mix", "styles", "--out", "x.png", "--grid", 4), "has no rows"), (("mix", "styles", "--out", "x.png", "--layers", "3-99"), "layers from 0 to 7"),
    (("mix", "styles", "--out", "x.png", "--layers", "fine"), "such as 4-7"), (("interpolate", "plain", "--out", "x.png", "--grid", "1"), "2 columns"),
    (("interpolate", "plain", "--out", "x.png", "--grid", "axb"), "COLUMNSxROWS"), (("interpolate", "classes", "--out", "x.png", "--grid", "4x4"), "--classes NAME"),
    (("interpolate", "plain", "--out", "x.png", "--grid", "9999x9999"), "at most 65,000"), (("interpolate", "plain", "--out", "x.png", "--truncation", 0.5), "style space"),
    (("interpolate", "classes", "--out", "x.png", "--classes", "rde"), "did you mean 'red'"), (("walk", "plain", "--out", "x.gif", "--classes", "red"), "without labels"),
    (("interpolate", "plain", "--out", "x.png", "--seeds", "3"), "1 images to go between; accepted: 2 or more"), (("walk", "plain", "--out", "x.gif", "--seeds", "3"), "--stops=1"),
    (("interpolate", "plain", "--out", "x.png", "--seeds", "3,x"), "--seeds=3,x cannot be read"), (("interpolate", "plain", "--out", "x.png", "--seeds", "3,-1"), "0 or more each"),
    (("interpolate", "plain", "--out", "x.png", "--seeds", "3,4,5", "--grid", "3x3"), "3 images to go between; accepted: 4 with --grid 3x3"),
    (("walk", "plain", "--out", "x.gif", "--seeds", "3,4", "--seed", 1), "accepted: one of them"), (("interpolate", "plain", "--out", "x.png", "--latents", "absent.npz"), "absent.npz does not exist"),
    (("interpolate", "plain", "--out", "x.png", "--latents", "file"), "is not what i2i explore invert writes"),
    (("walk", "pix2pix", "--out", "x.gif"), "makes images from images"), (("walk", "plain", "--out", "file/x.gif"), "cannot be written")])
def test_wrong_arguments_are_one_line(noisy: Noisy, trained: Path, i2i: Run, tmp_path: Path, arguments: tuple[object, ...], expected: str) -> None:
    (tmp_path / "file").touch()
    models = {**noisy, "pix2pix": trained}
    result = i2i("explore", arguments[0], models[str(arguments[1])], *arguments[2:])
    assert result.code == 2
    assert expected in result.line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_python_makes_the_same_as_the_command(styles: Model, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="seed"):
        explore.interpolate(styles, 4, seed=-1)
    assert len(list(islice(explore.walk(styles, 1000), 2))) == 2        # Made as they are asked for.
    (tmp_path / "x.png").mkdir()
    with pytest.raises(JobError):
        animation.save_sheet(tmp_path / "x.png", np.zeros((4, 4, 3), np.uint8))
