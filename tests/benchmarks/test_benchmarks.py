"""`i2i bench modes`: small runs, tables, continuing after a kill, invalid requests."""

import functools
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from i2i.benchmarks import results_table, schedule, train_and_score
from i2i.benchmarks.benchmark import RING, STACKED_MNIST
from i2i.benchmarks.methods import METHODS, Method
from i2i.benchmarks.mixtures import ring
from i2i.benchmarks.train_and_score import Task, TrainingRun
from i2i.cli import app
from i2i.errors import JobError
from i2i.recipes.base import DataInfo
from tests.conftest import Run

TINY = ("--set", "generator.width=8", "--set", "discriminator.width=4", "--steps", "4")


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_a_benchmark_from_the_command_line_to_its_tables(i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "measure_cost", functools.partial(train_and_score.measure_cost, blocks=5, block_steps=4, warmup=1))
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- ring -->\nold\n<!-- /ring -->\nAfter.\n<!-- grid -->\nkept\n<!-- /grid -->\n")
    arguments = ("bench", "modes", "ring", "--only", "r1,wgan", "--seeds", 2, "--out", tmp_path / "out", "--docs", page, *TINY)
    done = i2i(*arguments)
    assert done.code == 0, done.err
    runs = [line for line in lines(tmp_path / "out") if line["kind"] == "run"]
    assert [(line["seed"], line["method"]) for line in runs] == [(seed, name) for seed in (0, 1) for name in ("gan", "r1", "wgan")]
    assert all(len(line["counts"]) == 8 and sum(line["counts"]) == round(line["high_quality"] * 2500) for line in runs)
    costs = {line["method"]: line["ratio"] for line in lines(tmp_path / "out") if line["kind"] == "cost"}
    assert costs["wgan"] > 1.8, costs           # Five steps of D for one of G.

    data = json.loads((tmp_path / "out" / "table.json").read_text())["ring"]
    assert [row["method"] for row in data["rows"]] == ["gan", "r1", "wgan"]
    assert data["rows"][0]["modes"][0] == sum(line["modes"] for line in runs if line["method"] == "gan") / 2
    assert {row["source"] for row in data["published"]} == {"Lin et al. 2018", "Srivastava et al. 2017"}
    text = page.read_text()
    assert text.startswith("Before.\n<!-- ring -->\n| method | modes of 8 |")
    assert "| `r1` |" in text
    assert text.endswith("<!-- /ring -->\nAfter.\n<!-- grid -->\nkept\n<!-- /grid -->\n")
    assert (tmp_path / "modes-ring.png").stat().st_size > 1000

    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert i2i(*arguments).code == 0
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before      # Nothing is done twice.


def test_a_run_is_a_function_of_its_task() -> None:
    task = Task("ring", "r1", 1, 5, ("generator.width=8",))
    one, two, other = (train_and_score.execute(each, ring()) for each in (task, task, Task("ring", "r1", 2, 5, ("generator.width=8",))))
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])
    assert one[0] | {"seconds": 0} == two[0] | {"seconds": 0}


def run_benchmark_to_be_killed(out: str) -> None:
    app.run(["bench", "modes", "ring", "--only", "gan", "--seeds", "400", "--no-costs", "--out", out, *TINY])


def test_a_run_benchmark_to_be_killedmark_continues(i2i: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=run_benchmark_to_be_killed, args=(str(out),))
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((out / "results.jsonl").exists() and len((out / "results.jsonl").read_text().splitlines()) >= 3):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = len(schedule.read_results(out))
    assert 3 <= done < 400
    whole = (out / "results.jsonl").read_text()
    (out / "results.jsonl").write_text(whole[:-20])     # The last line is cut off, as by a crash.
    assert i2i("bench", "modes", "ring", "--only", "gan", "--seeds", done + 2, "--no-costs", "--out", out, *TINY).code == 0
    found = lines(out)
    assert [line["seed"] for line in found] == list(range(done + 2))
    assert [json.dumps(line) for line in found[:done - 1]] == whole.splitlines()[:done - 1]


def test_runs_in_several_processes_are_the_same(tmp_path: Path) -> None:
    requested = schedule.Schedule((RING,), ("gan", "ema"), 2, 3, ("generator.width=8", "discriminator.width=4"), None, 2)
    tasks = requested.tasks(RING)
    (tmp_path / "many").mkdir()
    many = list(schedule.execute_all(tasks, requested, tmp_path / "many", ring()))
    alone = [train_and_score.execute(task, ring())[0] for task in tasks]
    assert sorted((line["key"], line["counts"]) for line in many) == sorted((line["key"], line["counts"]) for line in alone)


def test_a_killed_worker_is_one_line(tmp_path: Path) -> None:
    requested = schedule.Schedule((RING,), ("gan",), 40, 20, ("generator.width=8", "discriminator.width=4"), None, 2)
    lines = schedule.execute_all(requested.tasks(RING), requested, tmp_path, ring())
    next(lines)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(JobError, match="was killed; run the same command to continue"):
        list(lines)


def test_other_settings_are_other_runs() -> None:
    task = Task("ring", "gan", 0, 5)
    assert len({each.key for each in (task, Task("ring", "gan", 1, 5), Task("ring", "gan", 0, 6), Task("grid", "gan", 0, 5), Task("ring", "r1", 0, 5),
                                      Task("ring", "gan", 0, 5, ("generator.width=8",)), Task("ring", "gan", 0, 5, images="mnist"))}) == 7


@pytest.mark.parametrize(("arguments", "message"), [
    (["rign"], "no benchmark is called 'rign'; did you mean 'ring'"),
    (["--only", "wgn"], "no method is called 'wgn'; did you mean 'wgan'"),
    (["--steps", "few"], "--steps=few cannot be read"), (["--steps", "0"], "1 or more"), (["--seeds", "0"], "seeds"), (["--jobs", "0"], "jobs"),
    (["--set", "generator.widht=3"], "no option 'widht'"), (["--set", "g_optimizer.lr=abc"], "g_optimizer.lr=abc cannot be read"),
    (["--set", "train.batch_size=abc"], "train.batch_size=abc cannot be read"), (["--set", "train.batch_size=2", "--only", "pack-3"], "train.batch_size=0"),
    (["--set", "width"], "is not KEY=VALUE"),
    (["--mnist", "x"], "is for stacked-mnist"), (["stacked-mnist", "--mnist", "nowhere"], "nowhere is not a folder"), (["--docs", "none.md"], "is no file"),
])
def test_invalid_requests_are_one_line(i2i: Run, arguments: list[str], message: str) -> None:
    result = i2i("bench", "modes", *arguments)
    assert result.code == 2
    assert message in result.line


def test_a_folder_with_other_files_is_refused(i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    result = i2i("bench", "modes", "ring", "--out", tmp_path / "photos")
    assert (result.code, "is not empty" in result.line) == (2, True)


# ---------------------------------------------------------------------------------------------- methods

@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_on_points(name: str) -> None:
    """Its settings are accepted, its networks fit points, and advancing once updates G once."""
    task = Task("ring", name, 0, 2, ("generator.width=8", "discriminator.width=8"))
    recipe, train = task.configure()
    assert set(recipe.modules(DataInfo((1, 1), 2, 2)))
    assert train.batch_size == (126 if name == "pack-3" else RING.batch_size)
    assert train.steps >= 2 * METHODS[name].d_steps
    run = TrainingRun(task, ring())
    run.advance()
    assert torch.isfinite(run.sample(50)).all()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_fits_the_networks_for_images(name: str) -> None:
    """Also gradient penalties, for which D has to go without batch norm."""
    recipe, _ = Task("stacked-mnist", name, 0, 2, ("generator.width=2", "discriminator.width=2")).configure()
    assert set(recipe.modules(DataInfo((28, 28), 3, 3)))


def test_methods_of_other_recipes_take_their_own_networks_and_are_for_points() -> None:
    task = Task("ring", "diffusion", 0, 5, ("generator.width=8", "optimizer.lr=3e-3", "train.batch_size=16"))
    recipe, train = task.configure()
    assert (type(recipe).__name__, recipe.denoiser.name, train.batch_size) == ("Diffusion", "mlp", 16)
    assert "optimizer.lr=2e-3" in task.settings         # The method's own, as with all methods.
    assert task.key != Task("ring", "rectified-flow", 0, 5, task.extra).key
    methods = schedule.Schedule((STACKED_MNIST, RING), ("gan", "diffusion"), 1)
    assert [[each.method for each in methods.tasks(benchmark)] for benchmark in (STACKED_MNIST, RING)] == [["gan"], ["gan", "diffusion"]]


def test_settings_that_refer_to_the_benchmark_take_its_values() -> None:
    """Batches that packs divide, and Metz et al.'s unrolled steps at the rate of D's own."""
    for benchmark, batch, rate in (("ring", "126", "0.004"), ("stacked-mnist", "63", "0.001")):
        assert f"train.batch_size={batch}" in Task(benchmark, "pack-3", 0, 5).settings
        assert f"unrolling.lr={rate}" in Task(benchmark, "unrolled-5", 0, 5).settings
        assert f"g_optimizer.lr={float(rate) / 4:g}" in Task(benchmark, "ttur", 0, 5).settings
    assert "train.batch_size=255" in Task("ring", "pack-3", 0, 5, ("train.batch_size=256",)).settings       # Also the user's.
    assert "unrolling.lr=1e-4" in Task("ring", "unrolled-5", 0, 5, ("d_optimizer.lr=1e-4",)).settings


def test_a_method_with_another_batch_size_has_as_many_steps() -> None:
    for extra in ((), ("train.batch_size=12",)):
        _, train = Task("ring", "d-steps-2", 0, 7, extra).configure()
        assert train.steps == 14        # Else the rate, which falls to 0 at the end, would end too soon or too late.


def test_settings_of_a_method_replace_those_of_the_benchmark() -> None:
    method = Method("x", ("g_optimizer=rmsprop", "g_optimizer.lr=*0.5", "discriminator.width=3"), "")
    common = ("g_optimizer.lr=4e-3", "g_optimizer.beta1=0.5", "d_optimizer.lr=1e-3", "discriminator.width=9")
    assert method.combine(common, 8) == ("d_optimizer.lr=1e-3", "discriminator.width=3", "g_optimizer=rmsprop", "g_optimizer.lr=0.002")


def test_a_generator_without_high_quality_samples_counts_as_the_worst() -> None:
    runs = [{"modes": 8, "high_quality": 0.5, "reverse_kl": 0.1}, {"modes": 0, "high_quality": 0.0, "reverse_kl": None, "stopped": "x"}]
    row = results_table.summarize("gan", runs, None, 8)
    assert (row.modes[0], row.worst, row.stopped) == (4, 0, 1)
    assert row.reverse_kl[0] == pytest.approx((0.1 + 2.0794) / 2, abs=1e-3)
    assert results_table.format_interval(row.high_quality, 1, 100, " %").startswith("25.0 ± ")
