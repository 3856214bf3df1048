import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from i2i.images import Kind, as_channels, from_pil, grid, to_array, to_tensor


@pytest.mark.parametrize(("dtype", "levels"), [("uint8", 256), ("uint16", 65536)])
def test_every_level_survives_the_round_trip(dtype: str, levels: int) -> None:
    ramp = np.arange(levels, dtype=dtype).reshape(1, -1)
    tensor = to_tensor(ramp)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert np.array_equal(to_array(tensor, Kind(1, dtype)), ramp)


def test_values_are_rounded_to_nearest_and_clamped() -> None:
    grey = torch.tensor([-3.0, -1.0, 99.4 / 127.5 - 1, 99.6 / 127.5 - 1, 1.0, 7.0]).reshape(1, 1, -1)
    assert to_array(grey, Kind(1)).tolist() == [[0, 0, 99, 100, 255, 255]]


def test_the_scale_is_that_of_the_reference_implementation() -> None:
    u8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert torch.equal(to_tensor(u8)[0], (torch.from_numpy(u8).float() / 255 - 0.5) / 0.5)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_colour_images_come_back_unchanged(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(to_array(to_tensor(image), Kind(3)), image)


def opened(image: Image.Image, kind: str = "png", **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer)


def test_modes() -> None:
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    assert from_pil(grey).shape == (4, 4)
    assert from_pil(grey.convert("1")).shape == (4, 4)
    assert set(from_pil(grey.convert("1")).ravel()) <= {0, 255}
    assert from_pil(opened(grey.convert("RGB").quantize(4))).shape == (4, 4, 3)
    assert from_pil(grey.convert("CMYK")).shape == (4, 4, 3)
    assert from_pil(grey.convert("LA")).shape == (4, 4)


def test_alpha_is_laid_over_white_and_hides_the_colour_below() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = 0, 128, 255
    got = from_pil(Image.fromarray(rgba))
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[0, 2].tolist() == [200, 0, 0]
    assert 120 <= got[0, 1, 1] <= 134
    assert from_pil(Image.fromarray(rgba), background=0)[0, 0].tolist() == [0, 0, 0]


def test_sixteen_bits_are_refused_not_clipped() -> None:
    with pytest.raises(ValueError, match="more than 8 bits"):
        from_pil(Image.fromarray(np.full((4, 4), 40_000, np.uint16)))


def test_channels() -> None:
    grey = np.array([[7, 9]], np.uint8)
    assert as_channels(grey, 3).tolist() == [[[7, 7, 7], [9, 9, 9]]]
    assert np.array_equal(as_channels(as_channels(grey, 3), 1), grey)
    with pytest.raises(ValueError, match="2 channels"):
        as_channels(np.zeros((2, 2, 2), np.uint8), 3)


def test_a_grid_holds_every_image_where_it_belongs() -> None:
    black, white = -torch.ones(3, 4, 5), torch.ones(1, 4, 5)
    sheet = grid([[black, white], [white, black]], gap=1)
    assert sheet.shape == (11, 13, 3)
    assert sheet[1:5, 1:6].max() == 0
    assert sheet[6:10, 7:12].max() == 0
    assert sheet[1:5, 7:12].min() == 255
