"""`i2i audit`: what is planted in a translator is found and what is not is not, bad input is said in one line, and the page in a browser."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import i2i as package
from i2i.evaluation.audit import audit, fails
from i2i.evaluation.audit_answers import (
    GREEN,
    NOT_TESTED,
    RED,
    YELLOW,
    Answer,
    answer,
    ratio_with_interval,
    worst_light,
)
from i2i.evaluation.audit_content import judge_colors, judge_edges, judge_inversion, judge_layout
from i2i.evaluation.audit_hidden import faint, find_hidden
from i2i.evaluation.audit_images import Audited, Side, Sides, open_sides, translate_sides
from i2i.evaluation.audit_inputs import judge_inputs
from i2i.evaluation.audit_stability import judge_batch, judge_noise, judge_shift, shift
from i2i.evaluation.request import EvaluationRequest, choose_features
from i2i.images.format import DecodedImage, ImageFormat
from i2i.inference.model import Model
from i2i.recipes.cyclegan import CycleGAN
from i2i.report import write_audit
from tests.conftest import CYCLE, Run, two_styles
from tests.metrics.test_copies import scenes

N = 12


class Apply(nn.Module):
    """A planted generator: any function of a batch."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def same(x: Tensor) -> Tensor:
    return x


def levels(x: Tensor) -> Tensor:
    return ((x + 1) * 127.5).round().clamp(0, 255)


def lowest_bits(x: Tensor) -> Tensor:
    """A gray image, whose lowest three bits are the highest of the source."""
    return (128 + (levels(x) // 32)) / 127.5 - 1


def from_lowest_bits(y: Tensor) -> Tensor:
    return (levels(y) % 8 * 32 + 16) / 127.5 - 1


CHECKERS = (-1.0) ** (torch.arange(64)[:, None] + torch.arange(64))


def checkers(x: Tensor) -> Tensor:
    """The mean color of a source, with a checkerboard of up to 3 levels as strong as the source is bright."""
    return (0.5 * x.mean((2, 3), keepdim=True) + CHECKERS * (x + 1) / 2 * 3 / 127.5).clamp(-1, 1)


def from_checkers(y: Tensor) -> Tensor:
    blurred = nn.functional.avg_pool2d(nn.functional.pad(y, (1, 1, 1, 1), mode="reflect"), 2, 1)[..., :64, :64]
    return ((y - blurred) * CHECKERS / 3 * 127.5 * 2 - 1).clamp(-1, 1)


def make_model(forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] = same) -> Model:
    header: dict[str, Any] = {"recipe": {"name": "cyclegan"}, "formats": dict.fromkeys("ab", asdict(ImageFormat())), "info": {"size": [64, 64]}}
    return Model(CycleGAN(), nn.ModuleDict({"G_ab": Apply(forward), "G_ba": Apply(backward)}), header, torch.device("cpu"))


def side(images: np.ndarray) -> Side:
    return Side(ImageFormat(), [f"{i}.png" for i in range(len(images))], lambda i: DecodedImage(images[i]))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.asarray(scenes(N))


def translated(pictures: np.ndarray, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] = same, *, targets: np.ndarray | None = None,
               paired: bool = False) -> Audited:
    sides = Sides(side(pictures), None if targets is None else side(targets), paired, "test")
    return translate_sides(make_model(forward, backward), sides, N, "ab", lambda done, total: None)


def hidden(audited: Audited) -> Answer:
    return find_hidden(audited, 0, lambda done, total: None)


# ------------------------------------------------------------------------------------------- hidden information

@pytest.mark.parametrize(("forward", "backward"), [(lowest_bits, from_lowest_bits), (checkers, from_checkers)])
def test_a_generator_that_encodes_its_input_is_found(pictures: np.ndarray, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]) -> None:
    found = hidden(translated(pictures, forward, backward, targets=pictures))
    assert found.light == RED
    assert found.low is not None
    assert found.low > 0.3
    assert "nobody sees" in found.finding
    none, *changed = found.table
    assert none["lost"] == 0
    assert any(row["translation changed, levels"] < 4 and row["error of reconstruction, levels"] > 3 * none["error of reconstruction, levels"] for row in changed)


@pytest.mark.parametrize(("forward", "backward"), [(same, same), (torch.neg, torch.neg), (lambda x: 0.5 * x, lambda y: (2 * y).clamp(-1, 1))])
def test_one_that_shows_what_it_knows_is_not(pictures: np.ndarray, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]) -> None:
    found = hidden(translated(pictures, forward, backward, targets=pictures))
    assert found.light == GREEN
    assert found.high is not None
    assert found.high < 0.02
    assert all(row["lost by real images"] < 0.1 for row in found.table)


def test_hiding_is_not_tested_without_a_way_to_read_it(pictures: np.ndarray) -> None:
    forgets = hidden(translated(pictures, torch.zeros_like, same))
    assert (forgets.light, forgets.value) == (NOT_TESTED, None)
    assert "reconstructs the sources hardly better" in forgets.finding


def test_hidden_detail_is_shown_and_small(pictures: np.ndarray) -> None:
    audited = translated(pictures, lowest_bits, from_lowest_bits)
    assert max(float(faint(image).abs().max()) for image in audited.written) <= 4 / 127.5 + 1e-6
    picture = hidden(audited).picture
    assert picture is not None
    assert picture.shape == (4 * 66 + 2, 6 * 66 + 2, 3)
    honest = hidden(translated(pictures, same)).picture
    assert honest is not None
    heat = slice(2 + 5 * 66, 66 + 5 * 66)
    assert picture[:, heat].std() > 5 * honest[2:66, heat].std()


def test_images_of_several_sizes_and_of_one_channel_are_audited() -> None:
    images = [np.asarray(image)[:64 - 8 * (i % 3), :48 + 4 * (i % 2), 0] for i, image in enumerate(scenes(N))]
    gray = Side(ImageFormat(1), [str(i) for i in range(N)], lambda i: DecodedImage(images[i]))
    model = make_model(same)
    model.formats = dict.fromkeys("ab", ImageFormat(1))
    color = Side(gray.format, gray.names, lambda i: DecodedImage(np.stack([images[i]] * 3, 2)))
    found = audit(model, Sides(color, gray, True, "test"), choose_features("random", None, "clean"), EvaluationRequest((), False), n=N)
    assert found.warnings == ("in color, converted to gray: 12 of the sources, such as 0",)
    assert {each.name: each.light for each in found.answers} == {
        "hidden": GREEN, "color": GREEN, "inverted": GREEN, "edges": GREEN, "layout": GREEN, "inputs": NOT_TESTED, "shift": GREEN, "noise": GREEN, "batch": GREEN}


# ------------------------------------------------------------------------------------------- the other questions

def test_colors_that_drift_are_found(pictures: np.ndarray) -> None:
    assert judge_colors(translated(pictures, same, targets=pictures, paired=True)).light == GREEN
    warmer = judge_colors(translated(pictures, lambda x: x + torch.tensor([0.3, 0.0, -0.3])[:, None, None], targets=pictures, paired=True))
    assert warmer.light == RED
    assert "yellower by" in warmer.finding
    gray = judge_colors(translated(pictures, lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1), targets=pictures, paired=True))
    assert gray.light == RED
    assert "less colorful by" in gray.finding
    few = judge_colors(translated(pictures, lambda x: x + 0.08, targets=np.asarray(scenes(2 * N))[N:]))
    assert few.light == YELLOW
    assert f"Undecided with {N} images" in few.advice
    assert judge_colors(translated(pictures, same)).light == NOT_TESTED


def test_negatives_are_found_and_only_pairs_tell_that_they_are_wrong(pictures: np.ndarray) -> None:
    unpaired = judge_inversion(translated(pictures, torch.neg))
    assert (unpaired.light, unpaired.value) == (YELLOW, 1)
    assert judge_inversion(translated(np.asarray(scenes(40)), same)).value == 0
    audited = translated(pictures, torch.neg, targets=pictures, paired=True)
    as_pairs = _with_pairs(audited)
    assert judge_inversion(as_pairs).light == RED
    wanted = _with_pairs(translated(pictures, torch.neg, targets=255 - pictures, paired=True))
    assert judge_inversion(wanted).value == 0


def _with_pairs(audited: Audited) -> Audited:
    """As a recipe trained on pairs makes them."""
    class Pix2pixLike(CycleGAN):
        dataset = "paired"
    model = make_model(same)
    model.recipe = Pix2pixLike()
    return replace(audited, model=model)


def test_lost_structure_is_found(pictures: np.ndarray) -> None:
    kept, lost = translated(pictures, same), translated(pictures, lambda x: x.roll(1, 0) if len(x) > 1 else x.rot90(1, (2, 3)))
    for judge in (judge_edges, lambda audited: judge_layout(audited, "random")):
        good, bad = judge(kept), judge(lost)
        assert (good.light, good.value) == (GREEN, pytest.approx(0, abs=1e-6))
        assert bad.light in (YELLOW, RED)
        assert bad.value is not None
        assert bad.value > 0.5


def test_targets_say_which_edges_should_be_kept(pictures: np.ndarray) -> None:
    def half(images: np.ndarray) -> np.ndarray:
        out = images.copy()
        out[:, :, 32:] = 128
        return out

    def forward(x: Tensor) -> Tensor:
        return torch.cat([x[..., :32], torch.zeros_like(x[..., 32:])], -1)

    audited = _with_pairs(translated(pictures, forward, targets=half(pictures), paired=True))
    assert judge_edges(audited).value == pytest.approx(0, abs=0.05)
    alone = judge_edges(translated(pictures, forward))
    assert alone.value is not None
    assert alone.value > 0.3


def test_inputs_of_another_kind_are_found(pictures: np.ndarray) -> None:
    judge, = choose_features("random", None, "clean")
    train, tell = side(np.asarray(scenes(60))), lambda done, total: None
    usual = judge_inputs(translated(np.asarray(scenes(100))[60:], same), train, judge, tell)
    assert usual.value is not None
    assert usual.value < 0.2
    noise = np.random.default_rng(0).integers(0, 256, (N, 64, 64, 3), np.uint8)
    strange = judge_inputs(translated(noise, same), train, judge, tell)
    assert (strange.light, strange.value) == (RED, 1)
    assert "such as" in strange.finding
    assert judge_inputs(translated(pictures, same), None, judge, tell).light == NOT_TESTED
    assert "there are 12" in judge_inputs(translated(pictures, same), side(pictures), judge, tell).finding


def test_sensitivity_to_a_shift_is_found(pictures: np.ndarray) -> None:
    assert judge_shift(translated(pictures, same)).value == pytest.approx(0, abs=1e-6)

    def every_second(x: Tensor) -> Tensor:
        return x[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert judge_shift(translated(pictures, every_second)).light == RED


def test_a_shift_moves_an_image_and_repeats_its_border() -> None:
    assert shift(torch.arange(4.0).reshape(1, 1, 4), -1).tolist() == [[[0, 0, 1, 2]]]


def test_sensitivity_to_noise_is_found(pictures: np.ndarray) -> None:
    found = judge_noise(translated(pictures, same), 0)
    assert (found.light, found.value) == (GREEN, pytest.approx(1))
    assert judge_noise(translated(pictures, lambda x: torch.sin(40 * x)), 0).light == RED


def test_dependence_on_the_batch_is_found(pictures: np.ndarray) -> None:
    assert judge_batch(translated(pictures, same)).value == 0
    assert judge_batch(translated(pictures, lambda x: x - 0.1 * x.mean(0, keepdim=True))).light == RED


# ------------------------------------------------------------------------------------------- lights and numbers

def test_a_light_is_green_below_its_limit_red_above_and_yellow_where_the_interval_holds_it() -> None:
    def light(value: float, low: float | None = None, high: float | None = None) -> Answer:
        return answer("x", "X?", (value, low, high), 1.0, 10, finding="F.", red="Train longer.")
    assert [light(0.5).light, light(1.0).light, light(1.1).light] == [GREEN, GREEN, RED]
    assert [light(0.5, 0.2, 0.9).light, light(2, 1.5, 2.5).light] == [GREEN, RED]
    unsure = light(1.2, 0.6, 1.8)
    assert unsure.light == YELLOW
    assert unsure.advice == "Undecided with 10 images; about 91 would decide.  If it is so: train longer."
    assert unsure.number() == "120 (60 … 180) %, limit 100"
    assert worst_light([light(0.5), unsure]) == YELLOW
    assert worst_light([]) == NOT_TESTED


def test_the_interval_of_a_ratio_holds_the_ratio_in_most_samples() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        x = rng.uniform(1, 3, 30)
        _, low, high = ratio_with_interval(0.5 * x + rng.normal(0, 0.2, 30), x)
        assert low is not None
        assert high is not None
        inside += low <= 0.5 <= high
    assert 0.92 <= inside / 300 <= 0.98


@pytest.mark.parametrize(("light", "on", "code"), [(RED, "red", True), (RED, "yellow", True), (YELLOW, "red", False), (YELLOW, "yellow", True), (GREEN, "yellow", False),
                                                   (NOT_TESTED, "yellow", False)])
def test_what_fails_a_check(light: str, on: str, code: bool) -> None:
    assert fails(light, on) == code


# ------------------------------------------------------------------------------------------- the command and its page

@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny CycleGAN, with 10 test images on each side."""
    base = tmp_path_factory.mktemp("audit")
    two_styles(base / "data")
    for name in "AB":
        for i in range(3, 10):
            (base / f"data/test{name}/{i}.png").write_bytes((base / f"data/test{name}/{i % 3}.png").read_bytes())
    return package.train("cyclegan", *CYCLE, "train.images=8", data=base / "data", out=base / "run", device="cpu")


def test_an_audit_is_printed_and_written(i2i: Run, cycle: Path) -> None:
    words = ("audit", cycle, "--features", "random", "--device", "cpu")
    found = i2i(*words, "--json", "audit.json", "--html", "audit.html", "--direction", "ba", "--fail-on", "yellow")
    outcome = json.loads(Path("audit.json").read_text())
    assert found.code == (outcome["light"] != GREEN), found.err
    assert [each["name"] for each in outcome["answers"]] == ["hidden", "color", "inverted", "edges", "layout", "inputs", "shift", "noise", "batch"]
    assert (outcome["n"], outcome["direction"], outcome["split"]) == (10, "ba", "test")
    assert outcome["light"] in (GREEN, YELLOW, RED)
    page = Path("audit.html").read_text()
    for each in outcome["answers"]:
        assert f"{each['light'].upper():<10}  {each['question']}" in found.out
        assert f'id="{each["name"]}"' in page
    assert "picture" not in outcome["answers"][0]


def test_a_folder_of_sources_is_enough(i2i: Run, cycle: Path, trained: Path) -> None:
    sources = cycle.parent / "data/testA"
    found = i2i("audit", cycle, "--data", sources, "--features", "random", "--json", "audit.json")
    assert found.code == 0, found.err
    lights = {each["name"]: each["light"] for each in json.loads(Path("audit.json").read_text())["answers"]}
    assert lights["color"] == NOT_TESTED
    one_way = i2i("audit", trained, "--data", sources, "--features", "random")
    assert "NOT TESTED  Does it hide its input in its output?  Not tested: the model has no backward generator" in one_way.out


def wide_files(folder: Path, count: int = 9, size: tuple[int, int] = (64, 32)) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (20 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


def test_a_folder_of_images_twice_as_wide_as_high_is_one_of_sources_and_in_a_split_one_of_strips(tmp_path: Path) -> None:
    model, root = make_model(same), tmp_path / "panoramas"
    photos, divided = wide_files(root), wide_files(tmp_path / "divided/test").parent
    narrow = wide_files(tmp_path / "narrow/test", 3, (32, 32)).parent
    wide_files(narrow / "train", 5, (32, 32))
    mixed = wide_files(tmp_path / "mixed/test")
    Image.new("RGB", (40, 32)).save(mixed / "5.png")
    sources = f"{root}: its images are taken for sources; --split train takes them for A|B strips"
    strips = f"{divided}: its images are taken for A|B strips; --data {divided}/test takes them for sources"
    for where, words, expected in (
            (photos, {}, (64, 9, False, "all images", (sources,))), (photos, {"split": "train"}, (32, 9, True, "train", ())),
            (photos, {"training": True}, (32, 9, True, "train", ...)), (photos, {"own": True}, (32, 9, True, "train", ...)),
            (divided, {}, (32, 9, True, "test", (strips,))), (divided, {"split": "test"}, (32, 9, True, "test", ())),
            (divided / "test", {}, (64, 9, False, "all images", ...)),
            (mixed.parent, {}, (64, 9, False, "test", ())),
            (narrow, {}, (32, 3, False, "test", ())), (narrow, {"split": "train"}, (32, 5, False, "train", ()))):
        found = open_sides(model, str(where), **words)
        width, count, both, split, notes = expected
        assert (found.sources.tensor(0).shape[-1], len(found.sources), found.targets is not None, found.split) == (width, count, both, split), where
        assert notes in (..., found.notes)


def test_wrong_requests_are_one_line(i2i: Run, cycle: Path, trained: Path, noisy: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, expected in (
            ((noisy["plain"],), "makes images from noise, and an audit is of models that translate images"),
            ((trained,), "6 images are too few for a statement; 8 are needed"),
            ((trained, "--direction", "ba"), "direction ba is none"),
            ((cycle, "--direction", "up"), "direction up is none"),
            ((cycle, "--n", 3), "3 images are too few"),
            ((cycle, "--split", "val"), "has no val split"),
            ((cycle, "--data", "nowhere"), "nowhere"),
            ((cycle, "--data", "empty"), "empty"),
            ((cycle, "--train", "empty"), "empty"),
            ((cycle, "--fail-on", "green"), "--fail-on green is not known; accepted: yellow or red"),
            ((cycle, "--html", "page.txt"), "--html page.txt must end in .html"),
            ((cycle, "--features", "nothing"), "--features nothing is not known"),
            (("nowhere",), "nowhere")):
        found = i2i("audit", *words)
        assert found.code == 2, words
        assert expected in found.line


def test_an_image_that_cannot_be_read_is_named(i2i: Run, cycle: Path, tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"set/{i}.png").parent.mkdir(exist_ok=True)
        (tmp_path / f"set/{i}.png").write_bytes((cycle.parent / "data/testA/0.png").read_bytes()[:None if i != 4 else -40])
    found = i2i("audit", cycle, "--data", "set", "--features", "random")
    assert found.code == 1
    assert "4.png" in found.line
    (tmp_path / "set/0.png").write_text("no image")
    found = i2i("audit", cycle, "--data", "set", "--features", "random")
    assert found.code == 1
    assert "0.png" in found.line


ANSWERS = [
    {"name": "hidden", "question": "Hides <b>it</b>?", "light": "red", "finding": "80 % is lost.", "advice": "Train.", "value": 0.8, "low": 0.7, "high": 0.9,
     "limit": 0.05, "number": "80 (70 … 90) %, limit 5", "table": [{"change": "noise", "lost": 0.81234}, {"change": "none", "lost": None}], "caption": "Sources."},
    {"name": "inputs", "question": "Known?", "light": "not tested", "finding": "Not tested.", "value": None, "limit": None, "table": []}]


def test_the_page_shows_lights_numbers_and_pictures(tmp_path: Path, browser: Any) -> None:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (400, 200), "blue").save(buffer, "png")
    write_audit(tmp_path / "audit.html", "run <1>", ["cyclegan"], ANSWERS, {"hidden": (buffer.getvalue(), 400, 200)}, ["few & small"])
    troubles: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.on("console", lambda message: troubles.append(message.text))
    page.goto((tmp_path / "audit.html").resolve().as_uri())
    assert page.locator(".lights a span").all_inner_texts() == ["Hides <b>it</b>?", "Known?"]
    assert page.locator(".lights .light").first.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(200, 40, 30)"
    assert page.locator("#hidden td").all_inner_texts() == ["noise", "0.812", "none", "–"]
    meter = page.locator("#hidden .meter").bounding_box()
    limit, value = (page.locator(f"#hidden .meter .{name}").bounding_box() for name in ("ok", "at"))
    assert limit["width"] == pytest.approx(meter["width"] * 0.05 / 0.9, abs=1)
    assert value["x"] + 1 - meter["x"] == pytest.approx(meter["width"] * 0.8 / 0.9, abs=1.5)
    assert page.locator("#hidden img").evaluate("e => e.complete && e.naturalWidth") == 400
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert troubles == []
