"""`i2i` alone says what to type next, by what is in the folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from i2i.cli import app
from i2i.cli.next_steps import FIRST, next_steps


def run_folder(path: Path, *, ended: bool) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"recipe": {"name": "pix2pix"}}))
    if ended:
        (path / "verdict.json").write_text("{}")
    return path


def test_an_empty_folder_begins_with_a_bundled_model(tmp_path: Path) -> None:
    assert next_steps(tmp_path) == [FIRST]
    assert next_steps(tmp_path / "missing") == [FIRST]


def test_runs_go_on_or_are_reported_and_data_are_checked(tmp_path: Path) -> None:
    run_folder(tmp_path / "runs" / "my faces", ended=False)
    run_folder(tmp_path / "runs" / "maps", ended=True)
    (tmp_path / "photos" / "train").mkdir(parents=True)
    (tmp_path / "horses.zip").write_bytes(b"")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.json").write_text("[")
    (tmp_path / "model.safetensors").write_bytes(b"")
    commands = [command for command, _ in next_steps(tmp_path)]
    assert sorted(commands[:2]) == ["i2i report runs/maps", "i2i train --resume 'runs/my faces'"]
    assert commands[2:] == ["i2i data check horses.zip", "i2i data check photos", "i2i translate model.safetensors IMAGES --out DIR"]


def test_inside_a_run_only_the_run_is_meant(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", ended=True)
    (run / "samples").mkdir()
    (run / "samples" / "0.png").write_bytes(b"")
    (run / "model.safetensors").write_bytes(b"")
    assert [command for command, _ in next_steps(run)] == ["i2i report ."]


def test_help_ends_with_them_and_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: i2i")
    assert out.rstrip().splitlines()[-2:] == ["Next:", f"  {FIRST[0]}  # {FIRST[1]}"]
    assert app.run(["--help"]) == 0
    assert "Next:" not in capsys.readouterr().out
    (tmp_path / "a.png").write_bytes(b"")
    code = "import sys; from i2i.cli import app; app.run([]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "i2i data check ." in done.stdout
