import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from i2i.images.convert import convert_channels, convert_to, make_grid, to_array, to_tensor
from i2i.images.format import DecodedImage, ImageFormat
from i2i.images.pil import from_pil


@pytest.mark.parametrize(("dtype", "levels"), [("uint8", 256), ("uint16", 65536)])
def test_every_level_survives_the_round_trip(dtype: str, levels: int) -> None:
    ramp = np.arange(levels, dtype=dtype).reshape(1, -1)
    tensor = to_tensor(ramp)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert np.array_equal(to_array(tensor, ImageFormat(1, dtype)), ramp)


def test_values_are_rounded_to_nearest_and_clamped() -> None:
    gray = torch.tensor([-3.0, -1.0, 99.4 / 127.5 - 1, 99.6 / 127.5 - 1, 1.0, 7.0]).reshape(1, 1, -1)
    assert to_array(gray, ImageFormat(1)).tolist() == [[0, 0, 99, 100, 255, 255]]


def test_the_scale_is_that_of_the_reference_implementation() -> None:
    u8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert torch.equal(to_tensor(u8)[0], (torch.from_numpy(u8).float() / 255 - 0.5) / 0.5)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_color_images_come_back_unchanged(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(to_array(to_tensor(image), ImageFormat(3)), image)


def opened(image: Image.Image, format: str = "png", **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return Image.open(buffer)


def gray_ramp() -> Image.Image:
    return Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))


MODES = {       # What Pillow opens -> shape, type, alpha.
    "L": (gray_ramp(), (4, 4), "uint8", False), "1": (gray_ramp().convert("1"), (4, 4), "uint8", False),
    "P": (opened(gray_ramp().convert("RGB").quantize(4)), (4, 4, 3), "uint8", False), "CMYK": (gray_ramp().convert("CMYK"), (4, 4, 3), "uint8", False),
    "YCbCr": (gray_ramp().convert("YCbCr"), (4, 4, 3), "uint8", False), "LA": (gray_ramp().convert("LA"), (4, 4, 2), "uint8", True),
    "RGBA": (gray_ramp().convert("RGBA"), (4, 4, 4), "uint8", True), "PA": (gray_ramp().convert("PA"), (4, 4, 4), "uint8", True),
    "P with a transparent color": (opened(gray_ramp().convert("RGB").quantize(4), transparency=1), (4, 4, 4), "uint8", True),
    "L with a transparent level": (opened(gray_ramp(), transparency=1), (4, 4, 2), "uint8", True),
    "I;16": (Image.fromarray(np.full((4, 4), 40_000, np.uint16)), (4, 4), "uint16", False),
    "F": (Image.fromarray(np.full((4, 4), -1.5, np.float32)), (4, 4), "float32", False)}


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode: str) -> None:
    image, shape, dtype, alpha = MODES[mode]
    decoded = from_pil(image)
    assert (decoded.array.shape, decoded.array.dtype.name, decoded.alpha) == (shape, dtype, alpha)
    assert np.array_equal(np.asarray(Image.fromarray(decoded.array)), decoded.array)
    if mode == "1":
        assert set(decoded.array.ravel()) <= {0, 255}
    if mode == "L with a transparent level":
        assert decoded.array[0, :3].tolist() == [[0, 255], [1, 0], [2, 255]]


def test_32_bit_integers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mode I .32-bit integers. is not supported; accepted: unsigned 8 or 16 bits"):
        from_pil(Image.fromarray(np.full((4, 4), 40_000, np.int32)))


RGBA = np.array([[[200, 0, 0, 0], [200, 0, 0, 128], [200, 0, 0, 255]]], np.uint8)


def test_alpha_is_laid_over_a_color_and_hides_the_color_below() -> None:
    decoded = from_pil(Image.fromarray(RGBA))
    got = convert_to(decoded, ImageFormat(3))
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[0, 2].tolist() == [200, 0, 0]
    assert 120 <= got[0, 1, 1] <= 134
    assert convert_to(decoded, ImageFormat(3, background=(0,)))[0, 0].tolist() == [0, 0, 0]
    assert convert_to(decoded, ImageFormat(3, background=(1, 2, 3)))[0, 0].tolist() == [1, 2, 3]
    assert convert_to(decoded, ImageFormat(1))[0, 0] == 255
    assert convert_to(DecodedImage(np.array([[[9, 0], [9, 255]]], np.uint8), True), ImageFormat(1, background=(7,))).tolist() == [[7, 9]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_alpha_over_a_color_is_the_same_for_every_type(dtype: str) -> None:
    top = {"uint8": 255, "uint16": 65535, "float32": 1.0}[dtype]
    scaled = (RGBA / 255 * top).astype(dtype)
    got = convert_to(DecodedImage(scaled, True), ImageFormat(3, dtype, background=(0, 0, 255)))
    assert got.dtype == dtype
    assert np.allclose(got / top, [[[0, 0, 1], [200 / 255 * 128 / 255, 0, 127 / 255], [200 / 255, 0, 0]]], atol=1 / 255)


def test_alpha_is_kept_as_a_channel_and_added_opaque() -> None:
    format = ImageFormat(4, alpha=True)
    assert np.array_equal(convert_to(DecodedImage(RGBA, True), format), RGBA)
    assert convert_to(DecodedImage(RGBA[..., :3]), format)[0, 1].tolist() == [200, 0, 0, 255]
    assert convert_to(DecodedImage(np.array([[9]], np.uint8)), format).tolist() == [[[9, 9, 9, 255]]]
    assert convert_to(DecodedImage(np.array([[[9, 5]]], np.uint8), True), format).tolist() == [[[9, 9, 9, 5]]]
    assert convert_to(DecodedImage(np.array([[9]], np.uint8)), ImageFormat(2, "uint16", alpha=True)).tolist() == [[[9 * 257, 65535]]]
    assert convert_to(DecodedImage(np.array([[[9, 5]]], np.uint8), True), ImageFormat(2, "uint16", alpha=True)).tolist() == [[[9 * 257, 5 * 257]]]


def test_eight_bits_become_sixteen_exactly_and_nothing_else_changes_type() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(convert_to(DecodedImage(ramp), ImageFormat(1, "uint16")) / 65535, ramp / 255)
    for array, format in ((ramp.astype(np.uint16), ImageFormat(1)), (ramp, ImageFormat(1, "float32")), (ramp.astype(np.float32), ImageFormat(1)), (ramp, ImageFormat(1, "uint16", (0, 4095)))):
        with pytest.raises(ValueError, match=f"is {array.dtype}, and the images of its side are {format.dtype}"):
            convert_to(DecodedImage(array), format)


# ---------------------------------------------------------------------------------------------- nothing is lost

FORMATS = (ImageFormat(1), ImageFormat(1, "uint16"), ImageFormat(1, "uint16", (0, 4095)), ImageFormat(1, "uint16", (0, 255)), ImageFormat(1, "uint8", (10, 20)), ImageFormat(7, "uint16"))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_every_level_of_every_integer_format_comes_back(format: ImageFormat) -> None:
    """Also those outside the range: it decides what -1 and 1 are, and cuts nothing."""
    levels = np.arange(256 if format.dtype == "uint8" else 65536, dtype=format.dtype)
    image = np.stack([np.roll(levels, 1000 * i) for i in range(format.channels)], 1).reshape(-1, 256, format.channels)
    image = image[..., 0] if format.channels == 1 else image
    assert np.array_equal(to_array(to_tensor(image, format), format), image)
    low, high = format.limits
    ends = to_tensor(np.array([[low, high]], format.dtype), ImageFormat(1, format.dtype, format.range))
    assert ends.flatten().tolist() == [-1, 1]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(0, 2**32 - 1))
def test_floats_keep_their_range(low: float, width: float, seed: int) -> None:
    format = ImageFormat(2, "float32", (low, low + width))
    image = (low + width * np.random.default_rng(seed).uniform(-0.5, 1.5, (3, 5, 2))).astype(np.float32)
    got = to_array(to_tensor(image, format), format)
    assert got.dtype == np.float32
    assert np.abs(got.astype(np.float64) - image).max() <= 2**-22 * (width + abs(low))


def test_a_header_of_before_ranges_is_read() -> None:
    assert ImageFormat.of({"channels": 1, "dtype": "uint8"}) == ImageFormat(1)
    for format in (ImageFormat(4, "uint16", (0, 1023), True, (1, 2, 3)), ImageFormat(3, "float32", (-1.5, 2.0))):
        assert ImageFormat.of(json.loads(json.dumps(vars(format)))) == format


def test_channels() -> None:
    gray = np.array([[7, 9]], np.uint8)
    assert convert_channels(gray, 3).tolist() == [[[7, 7, 7], [9, 9, 9]]]
    assert np.array_equal(convert_channels(convert_channels(gray, 3), 1), gray)
    with pytest.raises(ValueError, match="2 channels"):
        convert_channels(np.zeros((2, 2, 2), np.uint8), 3)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_channels_of_other_types(dtype: str) -> None:
    gray = np.array([[7, 60_000]], dtype)
    assert np.array_equal(convert_channels(convert_channels(gray, 3), 1), gray)
    assert convert_channels(np.array([[[1000, 0, 0], [0, 0, 1000]]], dtype), 1).tolist() == [[299, 114]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_grid_shows_the_first_three_channels_or_the_first(channels: int) -> None:
    image = torch.linspace(-1, 1, channels * 4).reshape(channels, 2, 2)
    cell = make_grid([[image]], gap=0)
    assert cell.shape == (2, 2, 3)
    first = ((image[0] + 1) * 127.5).round()
    assert np.array_equal(make_grid([[cell, image]], gap=0), np.concatenate([cell, cell], 1))     # Of what is RGB already, too.
    assert np.array_equal(cell[..., 0], first.numpy())
    assert np.array_equal(cell[..., 1], (first if channels < 3 else ((image[1] + 1) * 127.5).round()).numpy())


def test_a_grid_holds_every_image_where_it_belongs() -> None:
    black, white = -torch.ones(3, 4, 5), torch.ones(1, 4, 5)
    sheet = make_grid([[black, white], [white, black]], gap=1)
    assert sheet.shape == (11, 13, 3)
    assert sheet[1:5, 1:6].max() == 0
    assert sheet[6:10, 7:12].max() == 0
    assert sheet[1:5, 7:12].min() == 255
