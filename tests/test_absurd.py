"""Numbers that nobody can mean: one line, at once, before anything is written; in every setting and every option that takes a number."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from i2i.config import parse_assignments, settings, to_dict
from i2i.data.config import DataConfig
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.registry import kinds, lookup, names, schema
from i2i.training import memory
from i2i.training.config import TrainConfig
from i2i.training.settings import check_components, configure
from tests.conftest import SMALL, Run

SECONDS = 10.0      # Of this process: far more than any of them takes, far less than to try.


@pytest.mark.parametrize(("word", "expected"), [
    *((f"train.{key}={value}", "accepted") for key in ("images", "batch_size", "checkpoint_every", "keep_checkpoints", "num_workers") for value in ("1e99", "-1", "nan", "inf", "1e400", "١e9x")),
    *((f"train.{key}=0", "1 or more") for key in ("batch_size", "log_every", "checkpoint_every", "collapse_every", "keep_checkpoints", "max_skips")),
    ("train.batch_size=1e9", "1048576 or fewer"), ("train.batch_size=1e6", "of memory, more than 4 times"), ("train.num_workers=1e9", "512 or fewer"),
    ("train.prefetch_factor=1e9", "1024 or fewer"), ("train.threads=1e9", "1024 or fewer"), ("train.ema_ramp_up=0", "more than 0"), ("train.ema_ramp_up=nan", "a number"),
    ("data.size=1e6", "from 16 to 32767"), ("data.size=-64", "from 16 to 32767"), ("data.load_size=1e9", "from 16 to 32767"), ("data.size=32k", "of memory, more than 4 times"),
    ("generator.width=1e9", "2^63 bytes"), ("generator.width=1e6", "of memory, more than 4 times"), ("generator.width=1e99", "up to 2^53"), ("generator.width=0", "1 or more"),
    ("generator.width=-8", "1 or more"), ("generator.depth=1e9", "of depth 1000000000"), ("generator.depth=1e15", "of depth"), ("discriminator.layers=1e9", "1 or more"),
    ("discriminator.layers=1e15", "1 or more"), ("lambda_l1=inf", "a number"), ("lambda_l1=-1", "0 or more"), ("g_optimizer.lr=nan", "a number"),
    ("g_optimizer.lr=-1", "more than 0"), ("g_optimizer.beta1=1e9", "less than 1"), ("g_optimizer.eps=0", "more than 0"), ("d_optimizer.weight_decay=-1", "0 or more"),
    ("pack=1e9", "accepted"), ("d_steps=0", "1 or more")])
def test_absurd_numbers_are_refused_in_one_line(strips: Path, i2i: Run, word: str, expected: str) -> None:
    began = time.process_time()
    words = [other for other in SMALL if other.split("=")[0] != word.split("=")[0]]
    result = i2i("train", "pix2pix", *words, word, *([] if "images" in word else ["train.images=4"]), "--data", strips, "--out", "run", "--device", "cpu")
    assert result.code == 2
    assert expected in result.line
    assert len(result.line) < 600
    assert not Path("run").exists()
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(("words", "expected"), [(["--epochs", "1e99"], "2^53"), (["--epochs", "nan"], "--epochs nan"), (["--epochs", "inf"], "--epochs inf"),
                                                 (["--epochs", "-1"], "--epochs -1"), (["--epochs", "1e400"], "--epochs inf")])
def test_absurd_numbers_of_epochs_are_refused(strips: Path, i2i: Run, words: list[str], expected: str) -> None:
    result = i2i("train", "pix2pix", *SMALL, *words, "--data", strips, "--out", "run", "--device", "cpu")
    assert (result.code, expected in result.line) == (2, True), result.err
    assert not Path("run").exists()


@pytest.mark.parametrize("words", [("--n", "1e99"), ("--n", "-1"), ("--n", "0"), ("--n", "nan"), ("--n", "3", "--truncation", "1e99"), ("--n", "3", "--truncation", "nan"),
                                   ("--n", "3", "--seed", "-1"), ("--n", "3", "--batch", "-1"), ("--n", "1" + "0" * 30)])
def test_absurd_options_of_generate_are_refused(noisy: dict[str, Path], i2i: Run, words: tuple[str, ...]) -> None:
    result = i2i("generate", noisy["styles"], "--out", "made", *words)
    assert result.code == 2
    assert len(result.line) < 600
    assert not Path("made").exists()


def every_number() -> Iterator[tuple[str, ...]]:
    """Recipes with one setting, or one option of one piece, that takes a number."""
    for recipe in names("recipe"):
        for key, field in settings(lookup("recipe", recipe)()).items():
            kind = field.kind
            if kind in kinds():
                for name in names(kind):
                    yield from ((recipe, f"{key}={name}", f"{key}.{option}") for option, p in schema(kind, name).items() if p.type in (int, float))
            elif field.type in (int, float):
                yield (recipe, key)


class TooLong(BaseException):
    """No Exception, so that nobody takes it for his own."""


def _give_up(number: int, frame: FrameType | None) -> None:
    raise TooLong


@pytest.mark.slow
@pytest.mark.parametrize("value", ["1e9", "-1", "1e15"])
def test_every_numeric_option_of_every_component_refuses_absurd_values_or_builds(value: str) -> None:
    """Refused in one line, or planned, in a few seconds; what is planned is a config that can be written and read."""
    old, found = signal.signal(signal.SIGVTALRM, _give_up), []
    for recipe, *piece, key in every_number():
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            job = configure(lookup("recipe", recipe)(), DataConfig(), TrainConfig(batch_size=8), parse_assignments([*piece, f"{key}={value}"]))
            check_components(job[0])
            memory.estimate_memory(job[0], DataInfo((32, 32), num_classes=3), batch_size=8, ema=True)
            json.dumps(to_dict(job[0]), allow_nan=False)
        except RequestError as error:
            if "\n" in str(error) or len(str(error)) > 600:
                found.append(f"{recipe} {' '.join(piece)} {key}={value}: {str(error)[:100]}")
        except (Exception, TooLong) as error:
            found.append(f"{recipe} {' '.join(piece)} {key}={value}: {type(error).__name__}: {str(error)[:100]}")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, old)
    assert not found, "\n".join(found)
