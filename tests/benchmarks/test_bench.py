"""The bench as a user meets it: small runs, tables, going on after a kill, wrong words."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from i2i.benchmarks import remedies, runner, running, table, trials
from i2i.benchmarks.points import ring
from i2i.benchmarks.remedies import ROWS
from i2i.benchmarks.running import Task
from i2i.cli import app
from i2i.recipes.base import DataInfo
from tests.conftest import Run

TINY = ("--set", "generator.width=8", "--set", "discriminator.width=4", "--steps", "4")


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_a_bench_from_words_to_tables(i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in (("BLOCK", 4), ("BLOCKS", 5), ("WARM", 1)):
        monkeypatch.setattr(running, name, few)
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- ring -->\nold\n<!-- /ring -->\nAfter.\n<!-- grid -->\nkept\n<!-- /grid -->\n")
    words = ("bench", "modes", "ring", "--only", "r1,wgan", "--seeds", 2, "--out", tmp_path / "out", "--docs", page, *TINY)
    done = i2i(*words)
    assert done.code == 0, done.err
    runs = [line for line in lines(tmp_path / "out") if line["kind"] == "run"]
    assert [(line["seed"], line["remedy"]) for line in runs] == [(seed, name) for seed in (0, 1) for name in ("gan", "r1", "wgan")]
    assert all(len(line["counts"]) == 8 and sum(line["counts"]) == round(line["high_quality"] * 2500) for line in runs)
    costs = {line["remedy"]: line["ratio"] for line in lines(tmp_path / "out") if line["kind"] == "cost"}
    assert costs["wgan"] > 1.8, costs           # Five steps of D for one of G.

    data = json.loads((tmp_path / "out" / "table.json").read_text())["ring"]
    assert [row["remedy"] for row in data["rows"]] == ["gan", "r1", "wgan"]
    assert data["rows"][0]["modes"][0] == sum(line["modes"] for line in runs if line["remedy"] == "gan") / 2
    assert {row["source"] for row in data["published"]} == {"Lin et al. 2018", "Srivastava et al. 2017"}
    text = page.read_text()
    assert text.startswith("Before.\n<!-- ring -->\n| remedy | modes of 8 |")
    assert "| `r1` |" in text
    assert text.endswith("<!-- /ring -->\nAfter.\n<!-- grid -->\nkept\n<!-- /grid -->\n")
    assert (tmp_path / "modes-ring.png").stat().st_size > 1000

    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert i2i(*words).code == 0
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before      # Nothing is done twice.


def test_a_run_is_a_function_of_its_task() -> None:
    task = Task("ring", "r1", 1, 5, ("generator.width=8",))
    one, two, other = (running.execute(each, ring()) for each in (task, task, Task("ring", "r1", 2, 5, ("generator.width=8",))))
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])
    assert one[0] | {"seconds": 0} == two[0] | {"seconds": 0}


def killed_bench(out: str) -> None:
    app.run(["bench", "modes", "ring", "--only", "gan", "--seeds", "400", "--no-costs", "--out", out, *TINY])


def test_a_killed_bench_goes_on(i2i: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=killed_bench, args=(str(out),))
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((out / "results.jsonl").exists() and len((out / "results.jsonl").read_text().splitlines()) >= 3):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = len(runner.results(out))
    assert 3 <= done < 400
    whole = (out / "results.jsonl").read_text()
    (out / "results.jsonl").write_text(whole[:-20])     # The last line is cut off, as by a crash.
    assert i2i("bench", "modes", "ring", "--only", "gan", "--seeds", done + 2, "--no-costs", "--out", out, *TINY).code == 0
    found = lines(out)
    assert [line["seed"] for line in found] == list(range(done + 2))
    assert [json.dumps(line) for line in found[:done - 1]] == whole.splitlines()[:done - 1]


def test_runs_in_processes_are_the_same(tmp_path: Path) -> None:
    order = runner.Order((trials.BENCHMARKS["ring"],), ("gan", "ema"), 2, 3, ("generator.width=8", "discriminator.width=4"), None, 2)
    tasks = order.tasks(order.trials[0])
    (tmp_path / "many").mkdir()
    many = list(runner.run_tasks(tasks, order, tmp_path / "many", ring()))
    alone = [running.execute(task, ring())[0] for task in tasks]
    assert sorted((line["key"], line["counts"]) for line in many) == sorted((line["key"], line["counts"]) for line in alone)


def test_other_settings_are_other_runs() -> None:
    task = Task("ring", "gan", 0, 5)
    assert len({each.key for each in (task, Task("ring", "gan", 1, 5), Task("ring", "gan", 0, 6), Task("grid", "gan", 0, 5), Task("ring", "r1", 0, 5),
                                      Task("ring", "gan", 0, 5, ("generator.width=8",)), Task("ring", "gan", 0, 5, pictures="mnist"))}) == 7


@pytest.mark.parametrize(("words", "said"), [
    (["rign"], "no test is called 'rign'; did you mean 'ring'"),
    (["--only", "wgn"], "no remedy is called 'wgn'; did you mean 'wgan'"),
    (["--steps", "few"], "--steps=few cannot be read"), (["--steps", "0"], "1 or more"), (["--seeds", "0"], "seeds"), (["--jobs", "0"], "jobs"),
    (["--set", "generator.widht=3"], "no option 'widht'"), (["--set", "g_optimizer.lr=abc"], "g_optimizer.lr=abc cannot be read"),
    (["--set", "train.batch_size=abc"], "train.batch_size=abc cannot be read"), (["--set", "train.batch_size=2", "--only", "pack-3"], "train.batch_size=0"),
    (["--set", "width"], "is not KEY=VALUE"),
    (["--mnist", "x"], "is for stacked-mnist"), (["stacked-mnist", "--mnist", "nowhere"], "nowhere is no folder"), (["--docs", "none.md"], "is no file"),
])
def test_a_wrong_word_is_one_line(i2i: Run, words: list[str], said: str) -> None:
    result = i2i("bench", "modes", *words)
    assert result.code == 2
    assert said in result.line


def test_a_folder_of_something_else_is_left_alone(i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    result = i2i("bench", "modes", "ring", "--out", tmp_path / "photos")
    assert (result.code, "is not empty" in result.line) == (2, True)


# ---------------------------------------------------------------------------------------------- the table of remedies

@pytest.mark.parametrize("name", ROWS)
def test_every_remedy_is_what_its_words_say(name: str) -> None:
    """Its words are accepted, its networks fit points, and one round updates G once."""
    task = Task("ring", name, 0, 2, ("generator.width=8", "discriminator.width=8"))
    recipe, train = running.settle(task)
    assert set(recipe.modules(DataInfo((1, 1), 2, 2)))
    assert train.batch_size == (126 if name == "pack-3" else trials.BENCHMARKS["ring"].batch)
    assert train.steps >= 2 * ROWS[name].rounds
    run = running.Run(task, ring())
    run.round()
    assert torch.isfinite(run.samples(50)).all()


@pytest.mark.parametrize("name", ROWS)
def test_every_remedy_fits_the_networks_for_pictures(name: str) -> None:
    """Also gradient penalties, for which D has to go without batch norm."""
    recipe, _ = running.settle(Task("stacked-mnist", name, 0, 2, ("generator.width=2", "discriminator.width=2")))
    assert set(recipe.modules(DataInfo((28, 28), 3, 3)))


def test_what_a_remedy_takes_from_the_test_is_of_that_test() -> None:
    """Batches that packs divide, and Metz et al.'s unrolled steps at the rate of D's own."""
    for trial, batch, rate in (("ring", "126", "0.004"), ("stacked-mnist", "63", "0.001")):
        assert f"train.batch_size={batch}" in Task(trial, "pack-3", 0, 5).words
        assert f"unrolling.lr={rate}" in Task(trial, "unrolled-5", 0, 5).words
        assert f"g_optimizer.lr={float(rate) / 4:g}" in Task(trial, "ttur", 0, 5).words
    assert "train.batch_size=255" in Task("ring", "pack-3", 0, 5, ("train.batch_size=256",)).words       # What a user says of all remedies holds here too.
    assert "unrolling.lr=1e-4" in Task("ring", "unrolled-5", 0, 5, ("d_optimizer.lr=1e-4",)).words


def test_a_remedy_with_a_batch_of_its_own_has_as_many_rounds() -> None:
    for extra in ((), ("train.batch_size=12",)):
        _, train = running.settle(Task("ring", "d-steps-2", 0, 7, extra))
        assert train.steps == 14        # Else the rate, which falls to 0 at the end, would end too soon or too late.


def test_words_of_a_remedy_replace_those_of_the_test() -> None:
    remedy = remedies.TableRow("x", ("g_optimizer=rmsprop", "g_optimizer.lr=*0.5", "discriminator.width=3"), "")
    common = ("g_optimizer.lr=4e-3", "g_optimizer.beta1=0.5", "d_optimizer.lr=1e-3", "discriminator.width=9")
    assert remedy.on(common, 8) == ("d_optimizer.lr=1e-3", "discriminator.width=3", "g_optimizer=rmsprop", "g_optimizer.lr=0.002")


def test_a_row_counts_what_has_nothing_good_as_the_worst() -> None:
    runs = [{"modes": 8, "high_quality": 0.5, "reverse_kl": 0.1}, {"modes": 0, "high_quality": 0.0, "reverse_kl": None, "stopped": "x"}]
    row = table.row("gan", runs, None, 8)
    assert (row.modes[0], row.worst, row.stopped) == (4, 0, 1)
    assert row.reverse_kl[0] == pytest.approx((0.1 + 2.0794) / 2, abs=1e-3)
    assert table.figure(row.high_quality, 1, 100, " %").startswith("25.0 ± ")
