"""The report: its contents, escaping, damaged run folders; and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from i2i.report import write_report
from i2i.report.page import make_environment
from i2i.report.run_charts import loss_charts, reading_charts
from i2i.report.run_contents import MAX_SAMPLE_SHEETS, evenly_spaced, read_run
from i2i.report.svg_chart import (
    MAX_POINTS,
    Axis,
    Chart,
    Curve,
    Point,
    draw,
    format_number,
    running_mean,
    thin,
)

from .conftest import Run

CONFIG = {
    "i2i": "0.1.0",
    "recipe": {"name": "pix2pix", "settings": {"generator": {"name": "unet", "options": {"width": 4}}, "lambda_l1": 100.0}},
    "data": {"where": "/data/<script>alert('x')</script>&co", "settings": {"flip": True, "size": [64, 48]}},
    "train": {"images": 24000, "batch": 4}, "versions": {"torch": "2.9.9"}, "channels": [3, 1], "later": {"added": "fact"}}
NOT_ACTIVE = "<script>alert"


def lines(path: Path, entries: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def log_entry(i: int) -> dict[str, Any]:
    entry = {"images": 100 * i, "d": 0.7 / i, "gan": 0.7 + 0.1 * i, "l1": 1 / i, "grad_norm_G": 2.0 ** i, "real_logits": 0.5 * i}
    return entry | ({"skipped_G": 1.0} if i == 7 else {})


def evaluation(images: int, l1: float) -> dict[str, Any]:
    scores = {"l1": {"value": l1, "low": l1 - 1, "high": l1 + 1}, "odd_metric": {"value": 0.25, "low": None, "high": None}}
    return {"images": images, "split": "val", "n": 96, "scores": scores, "readings": {"diversity": 0.31, "diversity_real": 0.4}, "seconds": 2.1}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with everything in it."""
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "pairs").mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    lines(folder / "log.jsonl", [log_entry(i) for i in range(1, 21)])
    lines(folder / "speed.jsonl", [{"images": 100 * i, "unix": 1.8e9 + i, "images_per_second": 30 + i} for i in range(1, 21)])
    lines(folder / "metrics.jsonl", [evaluation(500, 20.5), evaluation(1000, 16.25), evaluation(1500, 17.75)])
    (folder / "verdict.json").write_text(json.dumps({
        "sentence": "worse since image 1,000: l1 <17.8>", "warnings": ["D knows the training pictures & no others"],
        "best": {"images": 1000, "metric": "l1", "value": 16.25}}))
    lines(folder / "collapse.jsonl", [{"images": 1000 * i, "fake_b": {"diversity": 1 / i}} for i in (1, 2)] + [{
        "images": 3000, "fake_b": {"diversity": 0.1}, "confirmed": {}, "detection": {
            "images": 3000, "output": "fake_b", "sentence": "collapse of <b>fake_b</b>", "image": "collapse.png",
            "advice": [{"command": "i2i train augment=ada", "reason": "D <overfits>"}]}}])
    Image.new("RGB", (8, 8), "blue").save(folder / "collapse.png")
    (folder / "pairs.json").write_text(json.dumps({
        "metric": "l1", "best": [{"name": "<b>good</b>.png", "value": 3.25, "file": "pairs/best-1.png"}],
        "worst": [{"name": "bad.png", "value": 41.5, "file": "pairs/worst-1.png"}]}))
    for name, color in (("best-1", "green"), ("worst-1", "red")):
        Image.new("RGB", (24, 8), color).save(folder / "pairs" / f"{name}.png")
    for i in range(4):
        Image.new("RGB", (30, 10), (60 * i, 10, 20)).save(folder / "samples" / f"{500 * i:08}.png")
    return folder


def text_of(run: Path) -> str:
    return write_report(run).path.read_text()


def test_the_page_shows_everything_in_the_run_folder(run: Path) -> None:
    page = text_of(run)
    for fact in ("worse since image 1,000: l1 &lt;17.8&gt;", "D knows the training pictures &amp; no others", "unet width=4", "lambda_l1", "24,000", "2.9.9",
                 "64, 48", "added fact", "16.25", "15.25 to 17.25", "odd_metric", "best by l1", "96 pictures", "G skipped 1 step", "images per second",
                 "All 3 evaluations", "collapse of &lt;b&gt;fake_b&lt;/b&gt;.", "i2i train augment=ada", "D &lt;overfits&gt;", ">detected<", "bad.png", "41.5", "2027-01-15"):
        assert fact in page, fact
    assert '<path class="best" d="M' in page
    assert '<path class="skip" d="M' in page
    assert page.count("<figure class=\"chart\"") == len(loss_charts([log_entry(7)])) + 2 + 1 + 1 + 1
    assert page.count("data:image/png;base64,") == 1 + 1 + 4 + 2     # Collapse, the sheet that is shown, all sheets, the pairs.


def test_everything_inserted_is_escaped(run: Path) -> None:
    entry = log_entry(1) | {"<img src=x onerror=alert(1)>": 1.0, "</script><script>alert(2)</script>": 2.0}
    lines(run / "log.jsonl", [entry, entry | {"images": 200}])
    page = text_of(run)
    assert NOT_ACTIVE not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;co" in page
    assert "<img src=x" not in page
    assert "<b>good" not in page
    assert page.count("<script>") == 1
    assert page.count("</script>") == page.count("<script")
    data = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    assert any(curve["name"] == "</script><script>alert(2)</script>" for chart in data if isinstance(chart, dict) for curve in chart["curves"])


def test_the_page_loads_nothing_from_elsewhere(run: Path) -> None:
    page = text_of(run)
    assert "default-src 'none'" in page
    asked: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("iframe", "object", "embed", "base", "form", "audio", "video")
            asked.extend(value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "poster", "data", "ping", "xlink:href"))

    Parser().feed(page)
    assert len(asked) > 8
    assert all(value.startswith(("data:", "#")) for value in asked)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", page)


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    assert write_report(run, tmp_path / "a.html").path.read_bytes() == write_report(run, tmp_path / "new" / "b.HTM").path.read_bytes()


@pytest.mark.parametrize("absent", ["log.jsonl", "speed.jsonl", "metrics.jsonl", "verdict.json", "pairs.json", "collapse.jsonl", "samples", "pairs"])
def test_a_file_may_be_absent(run: Path, absent: str) -> None:
    shutil.rmtree(run / absent) if (run / absent).is_dir() else (run / absent).unlink()
    written = write_report(run)
    assert [problem.split(" ")[0] for problem in written.problems] == (["pairs/best-1.png", "pairs/worst-1.png"] if absent == "pairs" else [])


@pytest.mark.parametrize(("settings", "note"), [
    ({}, "source, result, target"), ({"latent": "normal"}, "The same noise every time."), ({"lambda_cycle_a": 10.0}, "b, what is made of it")])
def test_sample_sheets_are_described_by_the_kind_of_recipe(run: Path, settings: dict[str, object], note: str) -> None:
    (run / "config.json").write_text(json.dumps(CONFIG | {"recipe": {"name": "x", "settings": settings}}))
    assert note in text_of(run)


def test_config_and_log_alone_are_enough(run: Path) -> None:
    for each in ("speed.jsonl", "metrics.jsonl", "verdict.json", "pairs.json", "samples", "pairs"):
        shutil.rmtree(run / each) if (run / each).is_dir() else (run / each).unlink()
    page = text_of(run)
    assert "No verdict" in page
    assert 'id="samples"' not in page


def test_a_real_run_is_reported_without_problems(trained: Path, tmp_path: Path) -> None:
    written = write_report(trained, tmp_path / "report.html")
    assert written.problems == ()
    page = written.path.read_text()
    assert all(f'id="{section}"' in page for section in ("settings", "losses", "speed", "samples"))


def test_damaged_images_are_named_and_left_out(run: Path, i2i: Run) -> None:
    whole = (run / "samples" / "00000500.png").read_bytes()
    (run / "samples" / "00000500.png").write_bytes(whole[:-30])
    (run / "samples" / "00001000.png").write_bytes(b"no picture")
    (run / "pairs" / "best-1.png").unlink()
    result = i2i("report", run)
    assert result.code == 1
    left_out = [line for line in result.err.splitlines() if line.startswith("left out: ")]
    assert [line.split()[2] for line in left_out] == ["samples/00000500.png", "samples/00001000.png", "pairs/best-1.png"]
    assert result.err.splitlines()[-1].startswith("error: ")
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 1 + 2 + 1
    assert "samples/00001000.png is not a PNG image" in page


@pytest.mark.parametrize("name", ["verdict.json", "pairs.json"])
@pytest.mark.parametrize("text", ["{", "[]", "\0", '{"best": 3, "worst": {"a": 1}, "warnings": "x", "sentence": null}'])
def test_damaged_json_files_do_not_stop_the_report(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text)
    assert len(write_report(run).problems) == (0 if "best" in text else 1)


def test_odd_entries_do_not_stop_the_report(run: Path) -> None:
    lines(run / "metrics.jsonl", [{"images": 5}, {"images": 6, "scores": [], "readings": None}, {"images": 7, "scores": {"l1": 3, "ssim": None}}, {"no": 1}])
    lines(run / "log.jsonl", [{"images": 5, "d": float("nan"), "gan": float("inf"), "l1": "text"}, {"images": 5, "d": True}, {"images": 9, "d": -1e300}])
    (run / "pairs.json").write_text('{"best": [{"name": "x", "file": "../other.png"}, {"name": "y"}, 3], "worst": []}')
    Image.new("RGB", (3, 1)).save(run.parent / "other.png")
    problems = write_report(run).problems
    assert len(problems) == 4
    assert problems[1] == "../other.png lies outside the run folder"


def test_lines_that_are_no_entries_are_named(run: Path) -> None:
    """But for the last one, which may be being written."""
    (run / "metrics.jsonl").write_bytes(b'\xff\xfe\n[1]\n{"images": 1%s}\n{"images": 5, "scores": {}}\n{"imag' % (b"0" * 400))
    assert write_report(run).problems == ("metrics.jsonl: 3 of 4 lines are not what i2i writes",)


def test_links_that_lead_nowhere_do_not_stop_the_report(run: Path) -> None:
    for name, target in (("00000700.png", "nowhere.png"), ("00000800.png", "00000800.png")):
        (run / "samples" / name).symlink_to(target)
    assert [problem.split()[0] for problem in write_report(run).problems] == ["samples/00000700.png", "samples/00000800.png"]


@pytest.mark.parametrize(("words", "said"), [
    (("nowhere",), "nowhere does not exist"),
    (("empty",), "no run folder"),
    (("file.txt",), "file.txt is a file"),
    (("early",), "no logs yet"),
    (("broken",), "cannot be read"),
    (("run", "--out", "report.txt"), "must end in .html"),
    (("run", "--out", "folder.html"), "is a folder"),
    (("run", "--out", "file.txt/report.html"), "could not be written"),
    ((), "RUN"),
])
def test_wrong_requests_are_one_line(run: Path, i2i: Run, words: tuple[str, ...], said: str) -> None:
    base = run.parent
    for name in ("empty", "early", "broken", "folder.html"):
        (base / name).mkdir()
    (base / "file.txt").write_text("")
    (base / "early" / "config.json").write_text(json.dumps(CONFIG))
    (base / "broken" / "config.json").write_text("{")
    result = i2i("report", *words)
    assert result.code == 2
    assert said in result.line


def test_the_command_says_where_the_report_is(run: Path, i2i: Run) -> None:
    result = i2i("report", "run", "--out", "there/x.html")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("there/x.html (")
    assert not (run / "report.html").exists()


def test_no_torch_is_imported(run: Path) -> None:
    code = f"import sys; from i2i.cli import app; app.run(['report', {str(run)!r}]); print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "False False"


def test_thinning_keeps_ends_extremes_and_gaps() -> None:
    points = [Point(i, (i * 7919 % 1000) / 1000) for i in range(50_000)]
    points[20_001], points[30_001], points[40_001] = Point(20_001, 9.0), Point(30_001, -9.0), Point(40_001, None)
    thinned = thin(points)
    assert 600 < len(thinned) <= MAX_POINTS
    assert [thinned[0], thinned[-1]] == [points[0], points[-1]]
    assert {points[20_001], points[30_001], points[40_001]} <= set(thinned)
    assert [p.x for p in thinned] == sorted(p.x for p in thinned)
    assert thin(points[:MAX_POINTS]) == points[:MAX_POINTS]


def test_running_means_are_means() -> None:
    assert {p.y for p in running_mean([Point(i, 3.0) for i in range(500)])} == {3.0}
    assert max(p.y or 9 for p in running_mean([Point(i, float(i % 2)) for i in range(1000)])) < 0.6
    assert running_mean([Point(i, None) for i in range(500)]) == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7), (0.12, 0.13), (1e-9, 3e-9), (0, 4e5), (-1e300, -1e299)])
def test_ticks_are_round_and_within(low: float, high: float) -> None:
    ticks = Axis(low, high, 0, 100).ticks()
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in ticks)
    assert all(len(f"{tick:g}".split("e")[0].strip("-0.").replace(".", "")) <= 3 for tick in ticks)


def render_chart(chart: Chart) -> str:
    return str(make_environment().get_template("macros.html").module.charts(draw([chart])))


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [5.0, 5.0], [-2.0, -2.0], [1e-12, 1.0], [None, 1.0, None, 2.0], [1e-300, 1e300]])
def test_any_values_can_be_drawn(values: list[float | None]) -> None:
    drawn = render_chart(Chart("t", [Curve("c", [Point(i, y) for i, y in enumerate(values)])]))
    assert "<svg" in drawn
    assert not re.search(r"\b(nan|inf)\b", drawn)


def test_a_chart_without_values_is_left_out() -> None:
    assert render_chart(Chart("t", [Curve("c", [Point(1, None)])])) == ""


def test_a_logarithmic_axis_is_offered_where_it_helps() -> None:
    def chart(*values: float) -> str:
        return render_chart(Chart("t", [Curve("c", [Point(i, y) for i, y in enumerate(values)])]))
    assert "log scale" in chart(1, 100)
    assert "log scale" not in chart(1, 2)
    assert "log scale" not in chart(-1, 100)


def test_losses_are_grouped_into_charts() -> None:
    names = ("grad_norm_G", "d_a", "gan_b", "cycle_a", "cycle_b", "l1", "real_logits", "skipped_G", "images")
    charts = loss_charts([dict.fromkeys(names, 1.0)])
    assert {chart.title: [curve.name for curve in chart.curves] for chart in charts} == {
        "adversarial losses": ["d_a", "gan_b"], "cycle": ["cycle_a", "cycle_b"], "l1": ["l1"], "logits of the discriminator": ["real_logits"],
        "gradient norms": ["grad_norm_G"]}


def test_readings_are_grouped_into_charts() -> None:
    names = ("real_logits_train", "real_logits_heldout", "fake_logits", "diversity", "diversity_real", "other")
    charts = reading_charts([{"images": 1, "readings": dict.fromkeys(names, 1.0)}])
    assert {chart.title: [curve.name for curve in chart.curves] for chart in charts} == {
        "logits of the discriminator": ["real train", "real heldout", "fake"], "diversity": ["generated", "real"], "other": ["other"]}


def test_of_many_sample_sheets_a_few_are_shown_with_the_first_and_the_last(run: Path) -> None:
    whole = (run / "samples" / "00000000.png").read_bytes()
    for i in range(100):
        (run / "samples" / f"{i * 1000:08}.png").write_bytes(whole)
    contents = read_run(run)
    assert len(contents.samples) == MAX_SAMPLE_SHEETS
    assert (contents.samples[0][0], contents.samples[-1][0]) == (0, 99_000)
    assert f"{MAX_SAMPLE_SHEETS} of {contents.samples_found} sheets" in text_of(run)
    assert evenly_spaced(range(5), 3) == [0, 2, 4]


def test_numbers_are_formatted_for_reading() -> None:
    assert [format_number(v) for v in (None, 0, 18000.4, -0.123456, 1234567)] == ["–", "0", "18,000", "−0.1235", "1,234,567"]


# ------------------------------------------------------------------------------------------ in a browser


@pytest.fixture
def page(run: Path, browser: Any) -> Iterator[Any]:
    """The report in a browser; afterwards checks that there were no errors and no network requests."""
    troubles: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file://", "data:")) else troubles.append(request.url))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.goto(write_report(run).path.resolve().as_uri())
    yield page
    assert troubles == []


def test_the_slider_shows_other_sheets(page: Any) -> None:
    def color() -> list[int]:
        return page.evaluate("""() => { const image = document.querySelector("#player img"), canvas = document.createElement("canvas");
            const context = canvas.getContext("2d"); context.drawImage(image, 0, 0); return [...context.getImageData(1, 1, 1, 1).data].slice(0, 3); }""")

    def press(key: str) -> None:
        page.keyboard.press(key)
        page.wait_for_function("document.querySelector('#player img').complete")

    assert page.inner_text("#shown") == "image 1,500"
    assert color() == [180, 10, 20]
    page.focus("#when")
    press("ArrowLeft")
    assert (page.inner_text("#shown"), color()) == ("image 1,000", [120, 10, 20])
    press("Home")
    assert (page.inner_text("#shown"), color()) == ("image 0", [0, 10, 20])
    assert page.get_attribute("#when", "aria-valuetext") == "image 0"
    assert page.get_attribute("#player img", "alt") == "samples at image 0"


def test_tables_show_intervals_and_the_cursor_follows_curves(page: Any) -> None:
    row = page.locator("#figures tbody tr", has_text="l1")
    assert row.locator("td").all_inner_texts() == ["16.25 15.25 to 17.25", "17.75 16.75 to 18.75"]
    chart = page.locator("#metrics figure.chart").first
    assert chart.locator(".legend b").inner_text() == "17.75 (16.75 to 18.75)"
    chart.locator("svg").focus()
    page.keyboard.press("Home")
    assert chart.locator(".at").inner_text() == "image 500"
    assert chart.locator(".legend b").inner_text() == "20.5 (19.5 to 21.5)"
    assert "20.5" in chart.locator("svg").get_attribute("aria-valuetext")
    chart = page.locator("#losses figure.chart").last
    chart.locator("svg").scroll_into_view_if_needed()
    box = chart.locator("svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] * (44 + 306 * 6 / 19) / 360, box["y"] + 50)      # The seventh of twenty points.
    assert chart.locator(".at").inner_text() == "image 700, G skipped 1 step"
    assert chart.locator(".legend b").inner_text() == "128"
    before = chart.locator("g.log").is_visible()
    chart.locator("button").click()
    assert (before, chart.locator("g.log").is_visible(), chart.locator("g.linear").is_visible()) == (False, True, False)


def test_the_page_fits_a_phone(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_injected_scripts_do_not_run(run: Path, browser: Any) -> None:
    path = write_report(run).path
    path.write_text(path.read_text().replace("<main>", "<main><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"))
    page = browser.new_page()
    page.goto(path.resolve().as_uri())
    assert page.title() == "run – i2i report"
