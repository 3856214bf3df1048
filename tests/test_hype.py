"""`i2i hype`: the page in a real browser with a simulated observer and a simulated display; merged results; the figures of a published study."""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2i.cli import app
from i2i.errors import RequestError
from i2i.evaluation.hype_results import choose_sessions, merge_sessions, read_session
from i2i.evaluation.hype_study import make_settings, scramble
from i2i.metrics.hype import difference, holm, modal_exposure, resampled_mean
from tests.conftest import REFERENCE, Run

HYPE = REFERENCE / "hype"
EXPECTED = json.loads((HYPE / "expected.json").read_text())
REAL, FAKE = (200, 40, 40), (40, 40, 200)
# A display without waiting: frames come one after the other, `steps` milliseconds apart in turns.  What is drawn is noted with the time of its frame.
DISPLAY = """(() => {
  const queue = [], channel = new MessageChannel(), draws = [];
  let now = 1000, frame = 0;
  channel.port1.onmessage = () => { now += STEPS[frame++ % STEPS.length]; for (const call of queue.splice(0)) call(now); if (queue.length) channel.port2.postMessage(0); };
  window.requestAnimationFrame = call => { queue.push(call); if (queue.length === 1) channel.port2.postMessage(0); };
  performance.now = () => now;
  window.shownFor = null;
  const proto = CanvasRenderingContext2D.prototype, drawImage = proto.drawImage, fillText = proto.fillText;
  let counted = false, since = null, masks = 0;
  proto.fillText = function (text, ...rest) { fillText.call(this, text, ...rest); counted = text == 1; };
  proto.drawImage = function (...all) {
    drawImage.apply(this, all);
    if (since !== null) { window.shownFor = now - since; since = null; }
    if (masks) { masks--; return; }
    window.stimulus = this.getImageData(this.canvas.width / 2, this.canvas.height / 2, 1, 1).data[0] > 128 ? "real" : "fake";
    if (counted) { since = now; masks = 4; }
    counted = false;
  };
})();"""
# An observer that is right with a probability that grows with the exposure and is 0.75 at THRESHOLD, and always where there is no limit.
OBSERVER = """() => {
  const random = randomNumbers(7), scale = THRESHOLD / Math.sqrt(Math.LN2), choices = document.getElementById("choices");
  const other = {real: "fake", fake: "real"};
  window.exposures = [];
  new MutationObserver(() => {
    if (choices.dataset.open !== "yes") return;
    const t = window.shownFor, right = t === null || random() < 1 - 0.5 * Math.exp(-((t / scale) ** 2));
    window.exposures.push(t);
    window.shownFor = null;
    document.getElementById(right ? window.stimulus : other[window.stimulus]).click();
  }).observe(choices, {attributes: true});
  new MutationObserver(() => { if (!document.getElementById("message").hidden) queueMicrotask(() => document.getElementById("go-on").click()); })
    .observe(document.getElementById("message"), {attributes: true});
  document.getElementById("start").click();
}"""
Open = Callable[..., Any]


def colored(folder: Path, color: tuple[int, int, int], count: int, size: tuple[int, int] = (8, 8)) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (color[0], i, color[2])).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("hype")
    colored(base / "real", REAL, 232)
    colored(base / "dcgan", FAKE, 232)
    colored(base / "wgan", FAKE, 40)
    return base


@pytest.fixture(scope="module")
def pages(sets: Path) -> dict[str, Path]:
    """Pages: all of HYPE time; one block of 20 after practice and qualification; the same without a time limit and with two models."""
    words = {"time": ["--qualification", 0, "--practice", 0], "short": ["--images", 20, "--qualification", 8, "--practice", 4],
             "infinity": ["--images", 20, "--qualification", 8, "--practice", 4, "--fake", sets / "wgan"]}
    for name, more in words.items():
        protocol = "infinity" if name == "infinity" else "time"
        line = ["hype", "build", "--real", sets / "real", "--fake", sets / "dcgan", "--out", sets / f"{name}.html", "--protocol", protocol, *more]
        assert app.run([str(word) for word in line]) == 0
    return {name: sets / f"{name}.html" for name in words}


@pytest.fixture
def visit(pages: dict[str, Path], browser: Any) -> Iterator[Open]:
    """Opens a page, on a simulated display if there are steps; afterwards checks that there were no errors and no network requests."""
    troubles: list[str] = []
    context = browser.new_context(viewport={"width": 390, "height": 800}, accept_downloads=True)

    def go(name: str, steps: list[float] | None = None, words: str = "seed=1") -> Any:
        page = context.new_page()
        page.on("console", lambda message: None if "willReadFrequently" in message.text else troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file://", "data:", "blob:")) else troubles.append(request.url))
        if steps:
            page.add_init_script(DISPLAY.replace("STEPS", json.dumps(steps)))
        page.goto(f"{pages[name].as_uri()}#{words}")
        return page

    yield go
    context.close()
    assert troubles == []


def observe(page: Any, threshold: float = 400) -> dict[str, Any]:
    """The result of an observer who judges everything."""
    page.evaluate(OBSERVER.replace("THRESHOLD", str(threshold)))
    page.wait_for_selector("#done:visible", timeout=120_000)
    return json.loads(page.input_value("#text"))


def judged(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial for trial in result["trials"] if trial["phase"] == "test"]


# ------------------------------------------------------------------------------------------ in a browser


@pytest.mark.slow
def test_an_observer_of_known_threshold_converges_to_three_right_answers_in_four(visit: Open, tmp_path: Path) -> None:
    """All of HYPE time, 450 images, on a display of 60 Hz: what the page draws decides how often the observer is right."""
    result = observe(visit("time", [1000 / 60]), threshold=400)
    assert result["ended"] == "complete"
    assert [sum(trial["block"] == block for trial in judged(result)) for block in range(3)] == [150] * 3
    settled = [trial for block in range(3) for trial in [trial for trial in judged(result) if trial["block"] == block][50:]]
    assert np.mean([trial["answer"] == trial["kind"] for trial in settled]) == pytest.approx(0.75, abs=0.02)
    assert np.mean([trial["level"] for trial in settled]) == pytest.approx(400, rel=0.1)
    (tmp_path / "result.json").write_text(json.dumps(result))
    session = read_session(tmp_path / "result.json")
    assert session.score() == pytest.approx(400, rel=0.2)
    assert len({trial["image"] for trial in judged(result) if trial["kind"] == "real"}) == 225
    assert sum(trial["kind"] == "real" for trial in judged(result)) == 225


def test_the_staircase_settles_at_75_percent_with_our_steps_and_not_with_those_printed_in_the_paper(visit: Open) -> None:
    many = """([up, down]) => { settings.up = up; settings.down = down; const random = randomNumbers(3); let right = 0, count = 0, sum = 0;
      for (let run = 0; run < 300; run++) { const staircase = new Staircase();
        for (let i = 0; i < 150; i++) { const yes = random() < 1 - 0.5 * Math.exp(-((staircase.level / 480.5) ** 2)); if (i >= 50) { right += yes; count++; sum += staircase.level; } staircase.answer(yes); } }
      return [right / count, sum / count]; }"""
    page = visit("short")
    assert page.evaluate("displayProblem({period: 20, late: 0.04})") == ""     # 50 Hz.
    right, level = page.evaluate(many, [30, 10])
    assert right == pytest.approx(0.75, abs=0.01)
    assert level == pytest.approx(400, rel=0.05)       # 480.5 * sqrt(ln 2).
    right, level = page.evaluate(many, [10, 30])
    assert right < 0.6
    assert level < 130                                  # It runs into the shortest exposure.


@pytest.mark.parametrize("rate", [60, 144])
def test_exposures_are_within_a_frame_of_what_the_staircase_asks_for(visit: Open, rate: int) -> None:
    period = 1000 / rate
    page = visit("short", [period])
    result = observe(page)
    assert result["display"]["period"] == pytest.approx(period, abs=0.001)
    assert result["display"]["late"] == 0
    trials, drawn = judged(result), page.evaluate("window.exposures")[12:]       # After practice and qualification.
    assert [trial["level"] for trial in trials[:1]] == [500]
    for trial, seen in zip(trials, drawn, strict=True):
        assert trial["shown"] == pytest.approx(seen, abs=0.06)
        assert abs(seen - trial["level"]) <= period / 2 + 0.01
        assert trial["valid"]


def test_images_that_a_late_display_showed_too_long_do_not_count(visit: Open) -> None:
    """Late frames are 2 in 100, of 120 ms: about one trial in seven is spoilt."""
    result = observe(visit("short", [1000 / 60] * 398 + [120, 120]))
    trials = [trial for trial in result["trials"] if "level" in trial]
    lost = [trial for trial in trials if not trial["valid"]]
    assert lost
    assert all((trial["answer"] is None) == (abs(trial["shown"] - trial["level"]) > 1000 / 60) for trial in trials)
    for before, after in pairwise([trial for trial in judged(result) if trial["block"] == 0]):
        moved = 0 if before["answer"] is None else -10 if before["answer"] == before["kind"] else 30
        assert after["level"] == before["level"] + moved


def test_a_display_that_is_late_too_often_ends_the_test(visit: Open) -> None:
    result = observe(visit("short", [1000 / 60] * 130 + ([1000 / 60] * 58 + [120, 120]) * 50))
    assert result["ended"] == "display"
    assert 0 < len(judged(result)) < 60


@pytest.mark.parametrize(("steps", "said"), [
    ([1000 / 30], "shows a new frame every 33 ms. The test needs one at least every 20 ms (50 Hz)"), ([16.7] * 9 + [33.4], "% of the frames came late"),
    ([0, 0, 0, 100], "hides its clock")])
def test_a_display_that_cannot_hold_the_exposures_is_refused(visit: Open, steps: list[float], said: str) -> None:
    page = visit("short", steps)
    page.click("#start")
    page.wait_for_selector("#refused:visible")
    assert said in page.inner_text("#problem")


def test_without_a_time_limit_any_display_will_do(visit: Open) -> None:
    result = observe(visit("infinity", [1000 / 30, 70, 1000 / 30]))
    assert result["ended"] == "complete"
    assert [trial["phase"] for trial in result["trials"]] == ["practice"] * 4 + ["qualification"] * 8 + ["test"] * 20
    assert all(trial["answer"] == trial["kind"] for trial in result["trials"])
    images = [(trial["kind"], trial["image"]) for trial in judged(result)]
    assert len(set(images)) == 20
    assert sum(kind == "real" for kind, _ in images) == 10


def test_each_person_judges_one_model_and_the_link_decides_which_if_it_has_a_seed(visit: Open) -> None:
    page = visit("infinity", [1000 / 60], "seed=1&person=Ann%20B")
    models = page.evaluate("Array.from({length: 200}, (_, seed) => study.fakes[Math.floor(randomNumbers(seed)() * study.fakes.length)].name)")
    assert 70 < models.count("dcgan") < 130
    first, again = observe(page), observe(visit("infinity", [1000 / 60], "seed=1"))
    assert (first["model"], first["person"], first["trials"][0]["image"]) == (models[1], "Ann B", again["trials"][0]["image"])
    assert first["session"] != again["session"]


def test_keys_alone_lead_through_the_page_and_the_saved_file_is_scored(visit: Open, i2i: Run) -> None:
    """Tab, Enter, F, R and the arrows; names and states for screen readers."""
    page = visit("infinity", [1000 / 60], "seed=5&person=Zoe%2F1")
    assert page.evaluate("document.activeElement.tagName") == "BODY"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "person"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for part, count in (("Practice", 4), ("First part", 8), ("Test", 20)):
        page.wait_for_selector("#message:visible")
        assert page.evaluate("document.activeElement.id") == "message-title"
        assert page.inner_text("#message-title") == part
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        for i in range(count):
            page.wait_for_selector(f'#trial:has(#count:text-is("Image {i + 1} of {count}")) #choices[data-open="yes"]')
            kind = "real" if page.evaluate("stage.getContext('2d').getImageData(stage.width / 2, stage.height / 2, 1, 1).data[0]") > 128 else "fake"
            if part == "Practice":
                tree = page.locator("main").aria_snapshot()
                assert 'button "Fake' in tree
                assert 'img "The image to judge"' in tree
                assert "Real or fake?" in tree
            wrong = part == "Test" and i < 5
            page.keyboard.press({"real": ["r", "ArrowRight"], "fake": ["F", "ArrowLeft"]}[{"real": "fake", "fake": "real"}[kind] if wrong else kind][i % 2])
    page.wait_for_selector("#done:visible")
    assert "You took 5 of 20 for what they were not." in page.inner_text("#ending")
    with page.expect_download() as started:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    assert started.value.suggested_filename == "hype-Zoe-1.json"
    started.value.save_as("back/one.json")
    found = i2i("hype", "score", "back", "--json", "scores.json")
    assert found.code == 0
    assert "25.0 %" in found.out
    assert "judged by 1 person, too few for a good interval" in found.err
    (result,) = json.loads(Path("scores.json").read_text())["results"]
    assert result["score"] == {"value": 0.25, "low": None, "high": None}
    assert result["error_fake"]["value"] + result["error_real"]["value"] == 0.5
    assert sum(row["wrong"] for row in result["images"]) == 5


def test_stopping_keeps_what_there_is_and_guessing_does_not_qualify(visit: Open, tmp_path: Path) -> None:
    page = visit("infinity")        # On the real clock.
    page.click("#start")
    page.wait_for_selector("#message:visible")
    page.click("#go-on")
    page.wait_for_selector('#choices[data-open="yes"]')
    page.click("#real")
    page.wait_for_selector('#count:text-is("Image 2 of 4")')
    page.click("#stop")
    page.wait_for_selector("#done:visible")
    stopped = json.loads(page.input_value("#text"))
    assert (stopped["ended"], len(stopped["trials"])) == ("stopped", 1)
    page = visit("infinity", [1000 / 60])
    page.evaluate("""() => { const choices = document.getElementById("choices");
        new MutationObserver(() => { if (choices.dataset.open === "yes") document.getElementById("real").click(); }).observe(choices, {attributes: true}); }""")
    page.click("#start")
    go_on = """() => { const shown = id => document.getElementById(id).offsetParent !== null;
        if (shown("message")) document.getElementById("go-on").click();
        return shown("done"); }"""      # In the page: trials may be over before a selector sees them.
    for _ in range(600):
        if page.evaluate(go_on):
            break
        page.wait_for_timeout(50)
    result = json.loads(page.input_value("#text"))
    assert result["ended"] == "not qualified"
    for i, each in enumerate((stopped, result)):
        (tmp_path / f"{i}.json").write_text(json.dumps(each))
    kept, notes = choose_sessions(map(read_session, sorted(tmp_path.glob("*.json"))))
    assert kept == []
    assert [note.partition("json ")[2] for note in notes] == ["was stopped before the end", "did not qualify"]


def test_the_page_fits_a_phone_and_a_touch_is_an_answer(pages: dict[str, Path], browser: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.add_init_script(DISPLAY.replace("STEPS", "[16.7]"))
    page.goto(pages["infinity"].as_uri())
    page.tap("#start")
    page.wait_for_selector("#message:visible")
    page.tap("#go-on")
    page.wait_for_selector('#choices[data-open="yes"]')
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight")
    assert all(page.locator(f"#{name}").bounding_box()["height"] >= 44 for name in ("fake", "real"))
    page.tap("#fake")
    page.wait_for_selector('#count:text-is("Image 2 of 4")')
    context.close()


# ------------------------------------------------------------------------------------------ building


def test_images_of_different_sizes_are_shown_in_one(i2i: Run, tmp_path: Path) -> None:
    """And the reals that differ from the fakes in size only look the same."""
    colored(tmp_path / "real", REAL, 24, (40, 20))
    colored(tmp_path / "fake", REAL, 24, (16, 16))
    words = ("hype", "build", "--real", "real", "--fake", "fake", "--images", 10, "--qualification", 10, "--practice", 2)
    found = i2i(*words)
    assert found.code == 0
    assert "24 real images (24 in train), 24 of fake; 16x16 pixels\na person judges 22 images in about 1 minute\n" in found.out
    assert "warning: people qualify by fakes of the model that they judge" in found.err
    study = json.loads((tmp_path / "hype.html").read_text().split('id="study">')[1].split("</script>")[0])
    assert [data for _, data in study["real"]] == [data for _, data in study["fakes"][0]["images"]]
    assert (study["width"], study["height"], len(study["masks"])) == (16, 16, 16)
    assert i2i(*words, "--pool", 11, "--side", 16, "--seed", 3, "--out", "b.html").code == 0
    other = json.loads((tmp_path / "b.html").read_text().split('id="study">')[1].split("</script>")[0])
    assert len(other["real"]) == 11
    assert other["id"] != study["id"]


def test_of_a_model_the_page_shows_images_that_it_makes(i2i: Run, noisy: dict[str, Path], trained: Path) -> None:
    """The same as `i2i generate` makes with the same seed, under the name of the run."""
    words = ("hype", "build", "--real", noisy["plain"].parent / "data", "--images", 4, "--qualification", 0, "--practice", 0, "--pool", 6, "--seed", 5, "--device", "cpu", "--fake")
    found = i2i(*words, noisy["plain"])
    assert found.code == 0, found.err
    assert "6 of plain; 32x32 pixels" in found.out
    study = json.loads(Path("hype.html").read_text().split('id="study">')[1].split("</script>")[0])
    names, packed = zip(*study["fakes"][0]["images"], strict=True)
    assert i2i("generate", noisy["plain"], "--n", 6, "--seed", 5, "--device", "cpu", "--out", "made").code == 0
    for name, data in zip(names, packed, strict=True):
        with Image.open(f"made/{name}") as made, Image.open(io.BytesIO(base64.b64decode(data))) as shown:
            assert (np.asarray(made) == np.asarray(shown)).all()
    assert "translates images, and no sources are known; accepted: i2i translate" in i2i(*words, trained).line


def test_masks_have_the_spectrum_of_an_image_and_nothing_in_its_place() -> None:
    image = np.random.default_rng(0).integers(60, 190, (32, 32, 3)).astype(np.uint8)
    image[8:24, 8:24] //= 3
    mask = scramble(image, np.random.default_rng(1))
    assert mask.mean() == pytest.approx(image.mean(), abs=3)
    assert mask.std() == pytest.approx(image.std(), rel=0.1)
    assert abs(np.corrcoef(mask.ravel(), image.ravel())[0, 1]) < 0.4


@pytest.mark.parametrize(("words", "said"), [
    (("--fake", "few"), "--fake few has 3 images, and one person judges up to 105 of them; accepted: 105 images, or smaller --images"),
    (("--fake", "few", "--images", 7), "--images 7: half of the images are real and half are fake; accepted: an even number from 2"),
    (("--fake", "few", "--qualification", 3), "--qualification 3"), (("--fake", "few", "--protocol", "space"), "accepted: time or infinity"),
    (("--fake", "few", "--fake", "few"), "two have the same name"), (("--fake", "few", "--out", "x.txt"), "must end in .html"),
    (("--fake", "nowhere"), "nowhere"), ((), "--fake")])
def test_wrong_requests_are_one_line(i2i: Run, sets: Path, tmp_path: Path, words: tuple[object, ...], said: str) -> None:
    colored(tmp_path / "few", FAKE, 3)
    found = i2i("hype", "build", "--real", sets / "real", *words)
    assert found.code == 2
    assert said in found.line
    assert not (tmp_path / "hype.html").exists()


# ------------------------------------------------------------------------------------------ scoring


def session(name: str, *, model: str = "dcgan", fooled: int = 5, protocol: str = "infinity", person: str = "", seed: int = 0) -> dict[str, Any]:
    """A complete result: of 20 images, the first fakes are taken for real."""
    settings = make_settings(protocol, 20, 0, 0) | {"blocks": 1}
    rng, level, trials = np.random.default_rng(seed), settings["start"], []
    for i in rng.permutation(20):
        kind = "real" if i >= 10 else "fake"
        wrong = i < fooled
        trial = {"phase": "test", "image": f"{i}.png", "kind": kind, "answer": "real" if wrong else kind, "block": 0}
        if protocol == "time":
            trial |= {"level": level, "shown": level, "valid": True}
            level = min(1000, max(100, level + (30 if wrong else -10)))
        trials.append(trial)
    return {"i2i": "hype", "format": 1, "study": "s", "session": name, "person": person, "model": model, "real": "photos", "reals": "r", "settings": settings,
            "seed": seed, "started": f"2026-01-01T{seed:02}:00", "finished": "", "ended": "complete", "trials": trials, "display": {}}


def write(folder: Path, *results: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    for i, result in enumerate(results):
        (folder / f"{result['model']}-{i}.json").write_text(json.dumps(result))


def test_results_of_many_people_are_merged_and_models_compared(i2i: Run, tmp_path: Path) -> None:
    write(tmp_path / "a", *(session(f"a{i}", fooled=1 + i % 3, seed=i) for i in range(12)))
    write(tmp_path / "b", *(session(f"b{i}", model="stylegan", fooled=6 + i % 3, seed=i) for i in range(12)))
    write(tmp_path / "c", *(session(f"c{i}", model="progan", fooled=1 + i % 4, seed=i) for i in range(12)))
    found = i2i("hype", "score", "a", "b", "c", "--json", "out.json")
    assert (found.code, found.err) == (0, "")
    outcome = json.loads((tmp_path / "out.json").read_text())
    scores = {row["model"]: row for row in outcome["results"]}
    assert scores["dcgan"]["score"]["value"] == pytest.approx(0.1)
    assert scores["dcgan"]["error_fake"]["value"] == pytest.approx(0.2)
    assert scores["dcgan"]["error_real"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert scores["dcgan"]["score"]["low"] < 0.1 < scores["dcgan"]["score"]["high"] < 0.13
    assert scores["dcgan"]["images"][0] == {"image": "0.png", "kind": "fake", "judged": 12, "wrong": 12}
    assert "infinity: stylegan is taken for real more than dcgan is, by 25 points (" in found.out
    assert "infinity: no difference is seen between progan and dcgan" in found.out
    p = {(each["a"], each["b"]): each["p_corrected"] for each in outcome["comparisons"]}
    assert p["dcgan", "stylegan"] < 0.001 < 0.05 < p["dcgan", "progan"]


def test_damaged_files_are_named_in_one_line_and_the_others_count(i2i: Run, tmp_path: Path) -> None:
    good = session("x", person="Ann", seed=1)
    timed = session("t", protocol="time", seed=2)
    write(tmp_path, good)
    bad: dict[str, object] = {
        "cut.json": json.dumps(good)[:300], "other.json": {"a": 1}, "list.json": [], "short.json": good | {"trials": good["trials"][:-1]},
        "odd.json": good | {"trials": [{**good["trials"][0], "answer": "maybe"}, *good["trials"][1:]]}, "bare.json": {key: good[key] for key in good if key != "person"},
        "moved.json": timed | {"trials": [*timed["trials"][:-1], {**timed["trials"][-1], "level": 100}]},
        "unqualified.json": good | {"settings": good["settings"] | {"qualification": 4}}, "settings.json": good | {"settings": {"protocol": "time"}}}
    for name, content in bad.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (tmp_path / "again.json").write_text(json.dumps(good))
    (tmp_path / "second.json").write_text(json.dumps(session("y", person="ann", seed=3)))
    found = i2i("hype", "score", ".")
    assert found.code == 1
    said = [line for line in found.err.splitlines() if line.startswith("left out: ")]
    reasons = {"cut": "it is not JSON", "other": "is not a result of a page", "list": "is not a result of a page", "short": "it has 19 trials, not 20", "odd": "trial 1 is not one",
               "bare": "person is missing", "moved": "does not follow from the answers before", "unqualified": "its qualification was not passed", "settings": "settings are missing",
               "second": "is a second session of ann for dcgan"}
    for name, reason in reasons.items():
        assert any(name in line and reason in line for line in said), name
    assert sum("is the same session as" in line for line in said) == 1
    assert len(said) == 11
    assert found.err.splitlines()[-1] == "error: 9 of 12 files could not be used"
    assert "25.0 %" in found.out


@pytest.mark.parametrize("protocol", ["time", "infinity"])
def test_no_value_in_a_file_breaks_scoring(protocol: str, tmp_path: Path) -> None:
    """Every value of a result, replaced or left out: it is damaged in one line, or it counts."""
    good, path, damaged = session("x", protocol=protocol), tmp_path / "x.json", list[str]()
    places = [(good, key) for key in good] + [(good["settings"], key) for key in good["settings"]] + [(good["trials"][3], key) for key in good["trials"][3]]
    for where, key in places:
        kept = where.pop(key)
        for odd in (None, "", "x", [], {}, -1, 0, 1e300, float("inf"), float("nan"), "\udcff", [1], {"a": 1}, True, ...):
            if odd is not ...:
                where[key] = odd
            path.write_text(json.dumps(good))
            where.pop(key, None)
            try:
                kept_sessions, _ = choose_sessions([read_session(path)])
            except RequestError as error:
                damaged.append(str(error))
                continue
            json.dumps(merge_sessions(kept_sessions))
        where[key] = kept
    assert len(damaged) > 150
    assert all(len(line.splitlines()) == 1 for line in damaged)


def test_a_file_without_any_result_is_a_wrong_request(i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    found = i2i("hype", "score", "x.json", "nowhere.json")
    assert found.code == 2
    assert "nowhere.json cannot be read" in found.err
    assert found.err.splitlines()[-1].startswith("error: x.json, nowhere.json: no complete result among 2 files")


def test_results_of_different_settings_are_merged_with_a_warning() -> None:
    from i2i.evaluation.hype_results import Session
    longer = session("b", seed=2) | {"reals": "others"}
    longer["settings"] = longer["settings"] | {"pass": 0.5}
    outcome = merge_sessions([Session("a", session("a", seed=1)), Session("b", longer)])
    assert [line for line in outcome["warnings"] if "merged" in line] == [
        f"infinity: results of different {what} are merged, and scores may differ for that reason" for what in ("settings", "real images")]


# ------------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize("data", ["cifar10", "ffhq256"])
def test_scores_and_intervals_of_a_published_study_agree(data: str) -> None:
    with open(HYPE / f"{data}.csv") as file:
        rows = list(csv.DictReader(file))
    for model, expected in EXPECTED[data]["models"].items():
        of = [row for row in rows if row["model"] == model]
        values = [float(row["err_rt"]) for row in of]
        assert len(values) == expected["n"]
        mean, low, high = resampled_mean(values, rounds=1000)
        assert mean == pytest.approx(expected["mean"], rel=1e-12)
        assert (low, high) == pytest.approx(expected["bootstrap95_mean"], rel=1e-12)
        assert resampled_mean([float(row["f_err_rt"]) for row in of])[0] == pytest.approx(expected["fake_mean"], rel=1e-12)
        assert resampled_mean([float(row["r_err_rt"]) for row in of])[0] == pytest.approx(expected["real_mean"], rel=1e-12)


def test_errors_over_images_and_over_people_are_the_same() -> None:
    """Of the pictures of the FFHQ study: wrong answers per kind, as `score` counts them."""
    arrays = np.load(HYPE / "per_image_ffhq256.npz")
    for i, model in enumerate(arrays["models"]):
        expected = EXPECTED["ffhq256"]["per_image"][str(model)]
        of = arrays["model"] == i
        errors = {}
        for kind, generated in (("fake", 1), ("real", 0)):
            chosen = of & (arrays["generated"] == generated)
            guesses, as_generated = arrays["guesses"][chosen].sum(), arrays["guessed_generated"][chosen].sum()
            errors[kind] = (guesses - as_generated if generated else as_generated) / guesses
        assert errors["fake"] == pytest.approx(expected["fake_error"])
        assert errors["real"] == pytest.approx(expected["real_error"])
        assert EXPECTED["ffhq256"]["models"][str(model)]["mean"] == pytest.approx(expected["error"], abs=0.003)


def test_a_difference_of_the_published_study_is_found_and_groups_that_are_alike_are_not_told_apart() -> None:
    with open(HYPE / "cifar10.csv") as file:
        rows = list(csv.DictReader(file))
    errors = {model: [float(row["err_rt"]) for row in rows if row["model"] == model] for model in ("PFGMPP", "LSGM-ODE", "ACGAN")}
    found, low, high, p = difference(errors["PFGMPP"], errors["ACGAN"], rounds=2000)
    assert found == pytest.approx(0.4358 - 0.1482)
    assert low < found < high
    assert p == pytest.approx(1 / 2001)
    assert difference(errors["PFGMPP"], errors["LSGM-ODE"], rounds=2000)[3] > 0.5


def test_intervals_hold_and_the_test_errs_as_often_as_it_says() -> None:
    rng, covered, alarms = np.random.default_rng(0), 0, 0
    for i in range(200):
        a, b = rng.beta(8, 12, (2, 30))
        _, low, high = resampled_mean(a, rounds=500, seed=i)
        covered += low < 0.4 < high
        alarms += difference(a, b, rounds=300, seed=i)[3] < 0.05
    assert 0.88 <= covered / 200 <= 0.98
    assert alarms / 200 <= 0.09


def test_modes_and_corrected_p_values() -> None:
    assert modal_exposure([500, 490, 490, 480]) == 490
    assert modal_exposure([500, 490, 490, 500, 300]) == 495
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert resampled_mean([0.3]) == (0.3, None, None)
