"""The shell completes commands, models, datasets, recipes and settings, by what the source says: without importing torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from i2i import registry
from i2i.cli import app, catalog, completion
from i2i.data.sources import bundled_datasets
from i2i.inference.bundled_models import bundled_models


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What Bash is told for a line that ends at the cursor."""
    monkeypatch.setenv("_I2I_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        app.run([])
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(("line", "words"), [
    ("i2i tra", ["train", "translate"]), ("i2i train pix2pix-", ["pix2pix-drawings"]), ("i2i train pix2pix lambda_l", ["lambda_l1="]),
    ("i2i train pix2pix generator.width=8 generator.input_", ["generator.input_skip="]), ("i2i train pix2pix --data peeps", ["peeps-64"]),
    ("i2i translate persona", ["personas-color"]), ("i2i generate pee", ["peeps"]), ("i2i evaluate --real fluent", ["fluent3d-64"]), ("i2i list ssi", ["ssim"])])
def test_words_are_completed(line: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert completed(line, monkeypatch, capsys) == words


def test_the_words_are_those_that_are_registered() -> None:
    assert set(completion.recipes()) == set(registry.names("recipe"))
    assert set(completion.presets()) == set(registry.names("preset"))
    assert completion.complete_model("") == sorted(bundled_models())
    assert completion.complete_data("") == sorted(bundled_datasets())
    settings = {each.key for section in catalog.SECTIONS for each in catalog.section_settings(section)} | {each.key for each in catalog.recipe_settings()}
    settings |= {f"{key}.{option}" for key, kinds in catalog.kinds_by_setting().items() for kind in kinds for name in registry.names(kind) for option in registry.schema(kind, name)}
    assert completion.settings() == settings
    assert {*registry.kinds(), *(name for kind in registry.kinds() for name in registry.names(kind))} <= set(completion.complete_list(""))


def test_it_is_installed_by_one_command_and_imports_no_torch(tmp_path: Path) -> None:
    code = ("import os, sys; from i2i.cli import app, completion; completion.complete_list('')\n"
            "assert not {'torch', 'numpy'} & sys.modules.keys()\napp.run(['--install-completion', 'bash'])")
    done = subprocess.run([sys.executable, "-c", code], env={"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(__file__).parents[1]), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
                          capture_output=True, text=True, check=False)
    assert "bash completion installed" in done.stdout, done.stderr
    assert "_I2I_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "i2i.sh").read_text()
