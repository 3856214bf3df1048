"""The synthetic-data card of a report: what was tested by which file, what was not, damaged files; as Markdown; in a real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from i2i.cli import app
from i2i.evaluation.hype_results import Session, merge_sessions
from i2i.report import write_report
from i2i.report.data_card import COMMANDS, QUESTIONS, recognize
from tests.conftest import Run
from tests.test_documented_commands import the_command
from tests.test_hype import session

SCORE = {"value": 0.25, "low": 0.2, "high": 0.3, "better": "lower"}
LEAKS = {"results": {"copies": SCORE, "c_t_random": {"value": -2.5}}, "held_out": {"copies": {"value": 0.01, "low": 0.0, "high": 0.02}}, "chance": 0.0099,
         "stamp": {"n_fake": 200, "n_real": 900, "metrics": {"leaks": {"n_test": 100}}}, "warnings": ["few images"], "nearest": []}
EVALUATION = {"results": {"fd_random": {"value": 12.5, "low": 11.0, "high": 14.0, "better": "lower"}, "note": {"value": 1.0}},
              "stamp": {"n_fake": 300, "n_real": 900, "features": "random", "metrics": {"fd": {}}}, "warnings": []}
VERDICT = {"share": 10, "ratio": "1", "verdict": "helps", "sentence": "adding synthetic images helps: at 10 % of the real images, +3.1 points (+1.0 … +5.2)"}
WORTH = {"sentence": VERDICT["sentence"], "verdicts": [VERDICT, VERDICT | {"verdict": "hurts", "share": 100, "sentence": "adding synthetic images hurts: at 100 %"}], "conditions": [],
         "task": "classify", "n_real": 500, "n_test": 400, "n_fake": 1000, "warnings": []}
AUDIT = {"light": "red", "n": 64, "warnings": [], "answers": [
    {"question": "Does it hide its input?", "light": "red", "finding": "It hides its input in noise", "advice": "Add noise while training."},
    {"question": "Are colors kept?", "light": "green", "finding": "Colors are kept.", "advice": ""},
    {"question": "Is it known?", "light": "not tested", "finding": "There are no training images.", "advice": ""}]}
HYPE = merge_sessions([Session(f"{i}", session(f"{i}", model="cyc <gan>", fooled=3 + i % 2, seed=i)) for i in range(12)])
ALL = {"evaluation": EVALUATION, "worth": WORTH, "leaks": LEAKS, "hype": HYPE, "audit": AUDIT}
TRANSLATOR = {"i2i": "0.1.0", "recipe": {"name": "cyclegan", "settings": {}}, "data": {"where": "photos & drawings", "fingerprint": {"train": "40 + 50 images, ab12"}},
              "train": {"images": 800, "seed": 3}, "sizes": {"crop": [64, 48]}, "versions": {"torch": "2.9.9"}}
NOISE = TRANSLATOR | {"recipe": {"name": "gan", "requested": "dcgan", "settings": {}}, "data": {"where": "photos", "fingerprint": {"train": "90 images of 3 classes, ab12"}}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TRANSLATOR))
    (folder / "log.jsonl").write_text('{"images": 100, "d": 0.5}\n{"images": 800, "d": 0.4}\n')
    return folder


def save(folder: Path, results: dict[str, Any]) -> None:
    for name, result in results.items():
        path = folder / ("worth/results.json" if name == "worth" else f"{name}.json")      # As i2i worth --out writes it.
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result))


def card_of(run: Path) -> str:
    """As Markdown, without the escaping."""
    write_report(run, data_card=True)
    return re.sub(r"\\(.)", r"\1", (run / "data-card.md").read_text())


@pytest.mark.parametrize("kind", QUESTIONS)
def test_each_kind_of_result_is_recognized(kind: str) -> None:
    assert recognize(ALL[kind]) == kind
    assert recognize({}) == recognize([]) == recognize(TRANSLATOR) == recognize({"results": [], "stamp": {}}) == ""


def test_the_card_says_what_was_tested_and_what_to_know(run: Path) -> None:
    save(run, ALL)
    card = card_of(run)
    made, good, know, tested = (card.split(f"\n## {title}\n")[1].split("\n## ")[0] for title in (
        "What they are made of", "What they are good for", "What to know", "What was tested"))
    for row in ("| model | cyclegan |", "photos &amp; drawings", "| size | 48x64 pixels |", "| train data | 40 + 50 images |", "| training | 800 images seen, seed 3 |", "i2i 0.1.0, torch 2.9.9"):
        assert row in made
    assert good.strip().splitlines() == ["- Training: Adding synthetic images helps: at 10 % of the real images, +3.1 points (+1.0 … +5.2)."]
    for line in ("Adding synthetic images hurts: at 100 %.", "50 of 200 are copies of training images, 25 % (20 to 30); by chance 0.99 %. They are named in leaks.json",
                 "It hides its input in noise. Add noise while training.", "Few images."):
        assert f"- {line}" in know
    for line in ("### Does training on them help?", "(worth/results.json)", "| fd_random, lower is better | 12.5 (11 to 14) |", "| copies | 0.25 (0.2 to 0.3); held-out images 0.01 (0 to 0.02) |",
                 "cyc &lt;gan&gt;: people err on 17.5 % (16.25 to 18.75) of the images; 50 % is chance (12 people).", "| Are colors kept? | green: Colors are kept. |",
                 "300 images against 900 real ones, by features random. (evaluation.json)", "The worst light is red, of 3 questions to 64 images."):
        assert line in tested, line
    assert "What was not tested" not in card
    page = (run / "report.html").read_text()
    assert "people err on 17.5" in page
    assert "cyc &lt;gan&gt;" in page
    assert "cyc <gan>" not in page


def test_copies_within_what_chance_gives_are_no_warning(run: Path) -> None:
    save(run, {"leaks": LEAKS | {"results": {"copies": {"value": 0.005, "low": 0.001, "high": 0.02}}, "warnings": []}})
    assert "What to know" not in card_of(run)


@pytest.mark.parametrize("config", [TRANSLATOR, NOISE], ids=["translator", "from noise"])
def test_what_was_not_tested_has_the_command_that_would(run: Path, config: dict[str, Any]) -> None:
    (run / "config.json").write_text(json.dumps(config))
    card = card_of(run)
    rest = card.split("## What was not tested")[1]
    expected = [question for kind, question in QUESTIONS.items() if config is TRANSLATOR or kind != "audit"]
    assert [line[2:].partition(" `")[0] for line in rest.splitlines() if line.startswith("- ")] == expected
    assert "Not shown by any test." in card
    assert ("- image-to-image" in card) == (config is TRANSLATOR)
    save(run, {"leaks": LEAKS})
    assert "copies of training" not in card_of(run).split("## What was not tested")[1]


def test_the_commands_exist_with_their_options() -> None:
    root = typer.main.get_command(app)
    for command in {command for commands in COMMANDS.values() for command in commands.values()}:
        found, words = the_command(root, command.split()[1:])
        assert not hasattr(found, "commands"), command
        known = {way for option in found.params for way in option.opts}
        assert {word for word in words if word.startswith("--")} <= known, command


@pytest.mark.parametrize("text", ["{", "\0", '{"results": {"copies": 3}, "stamp": {"metrics": {"leaks": {}}, "n_fake": 2}}', '{"light": "red", "answers": [{}]}',
                                  '{"i2i": "hype score"}', '{"sentence": "", "verdicts": [3]}', '{"results": {"fd": {}}, "stamp": {"n_fake": "x", "n_real": 2}}',
                                  '{"results": {"copies": {"value": Infinity}}, "chance": 0, "stamp": {"metrics": {"leaks": {}}, "n_fake": 2}}'])
def test_a_damaged_file_is_named_and_the_rest_is_shown(run: Path, tmp_path: Path, i2i: Run, text: str) -> None:
    save(run, {"evaluation": EVALUATION})
    (run / "leaks.json").write_text(text)
    found = i2i("report", run, "--data-card")
    assert found.code == 1
    assert "left out: leaks.json of the data card cannot be used: is damaged" in found.err
    assert "fd" in (run / "data-card.md").read_text()
    (tmp_path / "bad.json").write_text(text)
    found = i2i("report", run, "--data-card", "--results", "bad.json")
    assert (found.code, "bad.json cannot be used: is damaged" in found.line) == (2, True)


def test_results_from_elsewhere_are_added(run: Path, tmp_path: Path, i2i: Run) -> None:
    (tmp_path / "more").mkdir()
    save(tmp_path / "more", {"leaks": LEAKS, "unknown": {"a": 1}})
    save(tmp_path, {"scores": HYPE, "other": {"a": 1}})
    found = i2i("report", run, "--data-card", "--results", "more", "--results", "scores.json", "--out", "there/card.html")
    assert (found.code, found.err) == (0, "")
    assert found.out.strip().endswith("there/data-card.md")
    card = (tmp_path / "there" / "data-card.md").read_text()
    assert "(leaks.json)" in card
    assert "(scores.json)" in card
    assert not (run / "data-card.md").exists()
    assert "other.json is no result of evaluation, worth, leaks, hype, audit" in i2i("report", run, "--data-card", "--results", "other.json").line
    assert "nowhere.json cannot be used" in i2i("report", run, "--data-card", "--results", "nowhere.json").line
    assert "is for --data-card" in i2i("report", run, "--results", "scores.json").line


def test_names_that_are_no_text_are_written_escaped(run: Path) -> None:
    save(run, {"hype": json.loads(json.dumps(HYPE).replace("cyc <gan>", "\\udcff"))})
    assert "udcff: people err on" in card_of(run)


def test_without_the_option_there_is_no_card(run: Path) -> None:
    save(run, ALL)
    page = write_report(run).path.read_text()
    assert 'id="data-card"' not in page
    assert not (run / "data-card.md").exists()


@pytest.fixture
def page(run: Path, browser: Any) -> Iterator[Any]:
    save(run, {kind: result for kind, result in ALL.items() if kind != "evaluation"})
    troubles: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(write_report(run, data_card=True).path.resolve().as_uri())
    yield page
    assert troubles == []


def test_the_card_in_a_browser(page: Any) -> None:
    """It comes first, fits a phone, and its parts open and close by keyboard."""
    assert page.locator("main section").first.get_attribute("id") == "data-card"
    assert page.locator("nav a").first.get_attribute("href") == "#data-card"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#data-card summary").all_inner_texts() == [question for kind, question in QUESTIONS.items() if kind != "evaluation"]
    assert "Are they like real images? i2i evaluate" in page.inner_text("#data-card")
    answer = page.get_by_text("people err on")
    assert answer.is_visible()
    page.locator("summary", has_text=QUESTIONS["hype"]).focus()
    page.keyboard.press("Enter")
    assert not answer.is_visible()
