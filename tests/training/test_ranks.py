"""Two processes: they end identical, equal one process with the joint batch where nothing is drawn, and resume exactly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from i2i.data.sampler import Order
from i2i.errors import JobError
from i2i.recipes.pix2pix import Pix2Pix
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training.distributed import Runtime
from tests.conftest import CUT, CYCLE, SMALL, drawing, two_styles
from tests.training.test_nan import trainer
from tests.two_processes import Done, environment, free_port, start, together

FEW = ("train.batch_size=4", "train.images=16", "train.log_every=4", "train.checkpoint_every=8", "train.ema_half_life=0")
NOISE = ("generator.width=4", "generator.z_dim=8", "discriminator.width=4", *FEW)
STYLE = (*NOISE, "generator.w_dim=8", "generator.max_channels=8", "generator.mapping_layers=2", "discriminator.max_channels=8")
PLAIN = ("generator.norm=none", "discriminator.norm=none")
JOINT = ("generator.norm=instance", "discriminator.norm=instance", "generator.dropout=0")
PROJECTED = ("discriminator=projected", "discriminator.features=random", "discriminator.width=4", "discriminator.channels=2")
RUNS = {        # name -> recipe, words, whether one process with the joint batch gives the same but for rounding: where nothing is drawn
    "pix2pix": ("pix2pix", [*SMALL, *FEW], False),
    "pix2pix-bf16": ("pix2pix", [*SMALL, *FEW, "train.precision=bf16"], False),
    "pix2pix-augmented": ("pix2pix", [*SMALL, *FEW, "generator.norm=instance", "discriminator.norm=instance", "augment=diffaugment", "penalty=wgan-gp"], False),
    "pix2pix-joint": ("pix2pix", [*SMALL, *FEW, *JOINT, "penalty=r1"], True),
    "pix2pix-joint-bf16": ("pix2pix", [*SMALL, *FEW, *JOINT, "train.precision=bf16"], True),
    "spade": ("spade", [*SMALL, *FEW, "generator.hidden=4", "generator.norm=instance"], False),
    "projected": ("pix2pix", ["generator.width=4", *FEW, *JOINT, *PROJECTED, "adversarial=hinge", "perceptual=features", "perceptual.features=random"], True),
    "cyclegan": ("cyclegan", [*CYCLE, *FEW, "pool=0", "augment=ada", "augment.p=0.5", "augment.speed=0", "generator.dropout=0.5"], False),
    "cyclegan-joint": ("cyclegan", [*CYCLE, *FEW, "pool=0"], True),
    "cyclegan-bf16": ("cyclegan", [*CYCLE, *FEW, "pool=0", "train.precision=bf16"], True),
    "cut": ("cut", [*CUT, *FEW], False),
    "dcgan": ("dcgan", [*NOISE], False),
    "diffusion": ("diffusion", ["denoiser.width=4", "conditional=true", "steps=2", *FEW], False),
    "bbdm-bf16": ("bbdm", ["denoiser.width=4", "steps=2", "train.precision=bf16", *FEW], False),
    "fastgan": ("gan", [*NOISE, "generator=fastgan", "g_weight_norm=spectral", "discriminator=fastgan", "discriminator.decoder_width=4"], False),
    "wgan-gp": ("wgan-gp", [*NOISE, *PLAIN, "d_steps=2"], False),
    "sngan-bf16": ("sngan", [*NOISE, "train.precision=bf16"], False),
    "cgan": ("cgan", [*NOISE, *PLAIN], False),
    "infogan": ("infogan", [*NOISE, *PLAIN, "generator.z_dim=14"], False),
    "deligan": ("deligan", [*NOISE, "generator.norm=virtual", "generator.reference=6", "discriminator.norm=none", "latent.components=3"], False),
    "infogan-bf16": ("infogan", [*NOISE, *PLAIN, "generator.z_dim=14", "train.precision=bf16"], False),
    "vae": ("vae", ["generator.width=4", "generator.z_dim=8", "encoder.width=4", *FEW], False),
    "flow": ("flow", ["network.width=4", "network.couplings=2", *FEW], False),
    "stylegan2-ada": ("stylegan2-ada", [*STYLE], False),
    "stylegan2": ("stylegan2", [*STYLE, "discriminator.group=0", "g_penalty=none", "augment=ada", "augment.speed=100", "augment.interval=1"], False),
    "stylegan2-bf16": ("stylegan2", [*STYLE, "train.precision=bf16"], False)}
GROWING = ("generator.width=4", "generator.z_dim=8", "generator.max_channels=8", "discriminator.width=4", "discriminator.max_channels=8", *FEW)
GROWN_STYLE = (*GROWING, "generator.w_dim=8", "generator.mapping_layers=2")
MORE = {        # The other presets and the stabilizers, likewise: `slow`, as these are the same recipes with other components.
    "lsgan": ("lsgan", [*NOISE]),
    "wgan": ("wgan", [*NOISE, *PLAIN, "d_steps=2"]),
    "dragan": ("dragan", [*NOISE]),
    "rpgan": ("rpgan", [*NOISE, *PLAIN]),
    "r3gan": ("r3gan", [*NOISE, *PLAIN]),
    "sagan": ("sagan", [*NOISE]),
    "fastcut": ("fastcut", [*CUT, *FEW]),
    "progan": ("progan", [*GROWING, "discriminator.group=0"]),
    "progan-group": ("progan", [*GROWING]),
    "stylegan": ("stylegan", [*GROWN_STYLE, "discriminator.group=0"]),
    "stylegan-group": ("stylegan", [*GROWN_STYLE]),
    "pack": ("dcgan", [*NOISE, "pack=2"]),
    "unrolling": ("dcgan", [*NOISE, *PLAIN, "unrolling=adam", "unrolling.steps=2"]),
    "feature_matching": ("dcgan", [*NOISE, "feature_matching=means"]),
    "history": ("dcgan", [*NOISE, *PLAIN, "lambda_history=0.1"]),
    "kernels": ("dcgan", [*NOISE, *PLAIN, "discriminator.kernels=4"]),
    "virtual": ("dcgan", [*NOISE, "generator.norm=virtual", "generator.reference=8"]),
    "mixture": ("dcgan", [*NOISE, *PLAIN, "latent=mixture"])}
MORE |= {f"{name}-bf16": (recipe, [*words, "train.precision=bf16"]) for name, (recipe, words) in MORE.items()}
RESUMED = {"pix2pix": "paired", "cyclegan-pools": "unpaired", "stylegan2-ada": "images"}
POOLS = ("cyclegan", [*CYCLE, *FEW, "train.images=28", "train.log_every=12", "adversarial=wasserstein", "penalty=wgan-gp"], False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strips, strips of which three cannot be read, unpaired sides, and images in two classes."""
    base = tmp_path_factory.mktemp("ranks")
    for i in range(6):
        (base / "paired" / "train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawing(i)).save(base / "paired" / "train" / f"{i}.png")
        (base / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(drawing(i)[:, 32:])).save(base / "images" / "ab"[i % 2] / f"{i}.png")
    two_styles(base / "unpaired")
    shutil.copytree(base / "paired", base / "broken")
    for i in (1, 3, 4):
        (base / "broken" / "train" / f"{i}.png").write_bytes(b"broken")
    return base


def data_of(recipe: str) -> str:
    return {"pix2pix": "paired", "cyclegan": "unpaired", "cut": "unpaired", "fastcut": "unpaired", "spade": "paired", "bbdm": "paired"}.get(recipe, "images")


def train(base: Path, recipe: str, words: Sequence[str], out: str) -> list[object]:
    return ["train", recipe, *words, "--data", base / data_of(recipe), "--out", base / out, "--device", "cpu"]


def cut(folder: Path) -> None:
    """As if it had been killed before its last state."""
    *_, last = RunFolder(folder).states()
    last.unlink()


@pytest.fixture(scope="module")
def runs(made: Path) -> dict[str, tuple[Done, Done]]:
    """Every run of the table in two processes, and some of them to be gone on with."""
    table = RUNS | {"cyclegan-pools": POOLS}
    skipping = ["train", "pix2pix", *SMALL, "train.images=40", "data.on_error=skip", "--data", made / "broken", "--out", made / "two" / "skipping", "--device", "cpu"]
    *done, skipped = together(made, [*(train(made, recipe, words, f"two/{name}") for name, (recipe, words, _) in table.items()), skipping])
    for name in RESUMED:
        shutil.copytree(made / "two" / name, made / "cut" / name)
        cut(made / "cut" / name)
    resumed = together(made, [["train", "--resume", made / "cut" / name, "--device", "cpu"] for name in RESUMED])
    return dict(zip([*table, "skipping", *(f"resumed {name}" for name in RESUMED)], [*done, skipped, *resumed], strict=True))


@pytest.mark.parametrize("name", [*RUNS, "cyclegan-pools"])
def test_ranks_end_identical_and_one_speaks(runs: dict[str, tuple[Done, Done]], name: str) -> None:
    one, other = runs[name]
    assert (one.code, other.code) == (0, 0), one.err + other.err
    assert one.identical
    assert one.out.count("done: model") == 1
    assert not other.out + other.err


@pytest.fixture(scope="module")
def more_runs(made: Path) -> dict[str, tuple[Done, Done]]:
    """The other presets and the remedies in two processes."""
    lines = [train(made, recipe, words, f"two/{name}") for name, (recipe, words) in MORE.items()]
    return dict(zip(MORE, together(made, lines, seconds=3600), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_every_preset_and_remedy_ends_identical(more_runs: dict[str, tuple[Done, Done]], made: Path, name: str) -> None:
    test_ranks_end_identical_and_one_speaks(more_runs, name)
    assert len((made / "two" / name / "log.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("name", [name for name, (_, _, same) in RUNS.items() if same])
def test_two_ranks_are_one_with_the_joint_batch_where_nothing_is_drawn(runs: dict[str, tuple[Done, Done]], made: Path, name: str) -> None:
    """The logs of a run in two processes and of the same run in this one."""
    recipe, words, _ = RUNS[name]
    import i2i
    i2i.train(recipe, *words, data=made / data_of(recipe), out=made / "one" / name, device="cpu")
    ones, twos = ([json.loads(line) for line in (made / number / name / "log.jsonl").read_text().splitlines()] for number in ("one", "two"))
    half = "bf16" in name
    for one, two in zip(ones[:2] if half else ones, twos, strict=not half):
        assert one.keys() == two.keys()
        for key in one:
            assert two[key] == pytest.approx(one[key], rel=0.1 if half else 2e-3, abs=0.02 if half else 1e-4), (key, one["images"])


@pytest.mark.parametrize("name", RESUMED)
def test_resume_with_two_ranks_is_exact(runs: dict[str, tuple[Done, Done]], made: Path, name: str) -> None:
    assert runs[f"resumed {name}"][0].identical
    (one, header), (other, other_header) = (checkpoint.load(RunFolder(made / number / name).states()[-1], "state") for number in ("two", "cut"))
    assert header == other_header
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert (made / "two" / name / "log.jsonl").read_text() == (made / "cut" / name / "log.jsonl").read_text()


def test_pools_are_each_process_own(runs: dict[str, tuple[Done, Done]], made: Path) -> None:
    tensors, _ = checkpoint.load(RunFolder(made / "two" / "cyclegan-pools").states()[-1], "state")
    assert not torch.equal(tensors["rank1.pool_b.images"], tensors["modules.pool_b.images"])


def test_shared_buffers_are_those_of_all_processes(runs: dict[str, tuple[Done, Done]], made: Path) -> None:
    for name, shared in {"stylegan2-ada": ("T.p", "T.sign_sum", "T.count", "P.mean", "G.w_avg"), "stylegan2": ("T.p", "T.sign_sum", "T.count", "G.w_avg")}.items():
        tensors, _ = checkpoint.load(RunFolder(made / "two" / name).states()[-1], "state")
        found = {key.removeprefix("rank1.") for key in tensors if key.startswith("rank1.") and key.endswith(tuple(shared))}
        assert {key.rpartition(".")[2] for key in found} == {key.rpartition(".")[2] for key in shared}
        assert all(torch.equal(tensors[f"rank1.{key}"], tensors[f"modules.{key}"]) for key in found)


DRAWS: dict[str, Callable[[], torch.Tensor]] = {
    "normal": lambda: torch.normal(torch.zeros(4), torch.ones(4)),
    "beta": lambda: torch.distributions.Beta(torch.full((4,), 2.0), torch.ones(4)).sample(),
    "gamma": lambda: torch.distributions.Gamma(torch.full((4,), 2.0), torch.ones(4)).sample(),
    "dropout": lambda: F.dropout(torch.ones(64)),
    "attention dropout": lambda: F.scaled_dot_product_attention(*torch.ones(3, 1, 8, 8), dropout_p=0.5),
    "rrelu": lambda: F.rrelu(-torch.ones(4), training=True),
    "gumbel": lambda: F.gumbel_softmax(torch.zeros(4)),
    "permutation": lambda: torch.randperm(64),
    "number": lambda: torch.rand(())}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=list(DRAWS))
def test_ranks_start_alike_and_draw_different_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[], torch.Tensor]) -> None:
    """A step of the engine in which numbers are drawn, as each of two processes and once more."""
    drawn: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []
    monkeypatch.setattr(Pix2Pix, "step", lambda *args: drawn.append(draw()))
    for rank in (0, 1, 0, 1):
        run = trainer(("pix2pix", "generator.width=4", "discriminator.width=4"), tmp_path / f"{len(drawn)}", rank=rank)
        weights.append(torch.cat([p.detach().flatten() for p in run.modules.parameters()]))
        run.advance({side: torch.zeros(2, 3, 32, 32) for side in "ab"})
    assert all(torch.equal(weights[0], other) for other in weights)
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[1], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])


def test_weights_that_differ_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(device="cpu")
    runtime.world_size = 2
    other = [torch.zeros(3), torch.tensor([1.0, 2.0])]

    def gather(mine: torch.Tensor) -> torch.Tensor:
        from i2i.training.distributed import _bit_sum
        return torch.cat([mine, torch.stack([_bit_sum(tensor) for tensor in other])[None]])

    monkeypatch.setattr("i2i.training.distributed.gather", gather)
    runtime.check_same([("D.weight", torch.zeros(3)), ("G.weight", torch.tensor([1.0, 2.0]))], "at the start")
    with pytest.raises(JobError, match=r"G\.weight differs between processes 0 and 1 at 8 images"):
        runtime.check_same([("D.weight", torch.zeros(3)), ("G.weight", torch.tensor([1.0, 2.0000002]))], "at 8 images")


# ---------------------------------------------------------------------------------------------- launchers, and ends

LONG = ["-m", "i2i.cli", "train", "pix2pix", *SMALL, "train.batch_size=4", "train.images=1M", "--device", "cpu"]


def until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_interruption_under_torchrun_stops_both_and_is_reported_once(made: Path, tmp_path: Path) -> None:
    surroundings = {key: value for key, value in environment(0, 0).items() if not key.startswith(("RANK", "LOCAL_", "WORLD", "MASTER"))}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    process = subprocess.Popen([*torchrun, *LONG, "--data", made / "paired", "--out", "long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=surroundings)
    until(lambda: len(RunFolder(tmp_path / "long").states()) == 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert err.count("stopped and saved; continue with: i2i train --resume long") == 1, err[-3000:]


def test_a_process_that_is_killed_ends_the_others_within_seconds(made: Path, tmp_path: Path) -> None:
    """Without a launcher's help, and what was saved is there to go on from."""
    processes = start([*LONG, "--data", made / "paired", "--out", "run"], tmp_path)
    until(lambda: len(RunFolder(tmp_path / "run").states()) == 2, processes[0])
    os.kill(processes[1].pid, signal.SIGKILL)
    began = time.monotonic()
    _, err = processes[0].communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert processes[0].returncode == 1
    (line,) = [line for line in err.splitlines() if "warn" not in line.lower()]
    assert line.startswith("error: another process of this job has ended, and its own last line says why; process 0 of 2 cannot go on alone"), err
    assert checkpoint.load(RunFolder(tmp_path / "run").states()[-1], "state")


def test_a_process_that_fails_says_why_and_ends_the_others(made: Path, tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / "data" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "train" / f"{i:02}.png").write_bytes(b"broken" if i == 4 else (made / "paired" / "train" / "0.png").read_bytes())
    processes = start([*LONG, "--data", tmp_path / "data", "--out", "run"], tmp_path)
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    lines = [line for err in told for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2, told
    assert sum("04.png" in line for line in lines) == 1
    assert sum("another process of this job has ended" in line for line in lines) == 1
    assert all("to be continued with: i2i train --resume run" in line for line in lines)
    assert not any("Traceback" in err for err in told)
    tensors, header = checkpoint.load(RunFolder(tmp_path / "run").states()[-1], "state")
    assert tensors
    order = Order(40, 0)
    assert header["step"] == [order(position) for position in range(40)].index(4) // 4     # All steps before the one that needs it.


HANGS = """
import os, sys, time
from pathlib import Path
from i2i.cli import app
from i2i.data.sources import Folder
read = Folder.read

def hangs(self, name):
    if os.environ["RANK"] == "1" and name.endswith("04.png") and Path("now").exists():
        Path("hanging").touch()
        time.sleep(1000)
    return read(self, name)

Folder.read = hangs
sys.exit(app.run(sys.argv[1:]))
"""


def test_a_signal_to_one_process_that_waits_for_a_file_saves_and_stops_both(made: Path, tmp_path: Path) -> None:
    """In its loader process, on a disk that has stopped answering, while the other process waits for it."""
    for i in range(8):
        (tmp_path / "data" / "train").mkdir(parents=True, exist_ok=True)
        shutil.copy(made / "paired" / "train" / "0.png", tmp_path / "data" / "train" / f"{i:02}.png")
    processes = start(["-c", HANGS, *LONG[2:], "train.num_workers=1", "data.cache=off", "--data", "data", "--out", "run"], tmp_path)
    until(lambda: len(RunFolder(tmp_path / "run").states()) == 2, processes[0])
    (tmp_path / "now").touch()
    until((tmp_path / "hanging").exists, processes[1])
    time.sleep(1)       # What was read ahead is used up.
    began = time.monotonic()
    processes[1].send_signal(signal.SIGTERM)
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert time.monotonic() - began < 60
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, told
    assert sum(err.count("stopped and saved; continue with: i2i train --resume run") for err in told) == 1
    *_, before, last = RunFolder(tmp_path / "run").states()
    assert checkpoint.load(last, "state")[1]["step"] > checkpoint.load(before, "state")[1]["step"]


def test_what_either_rank_leaves_out_is_reported_once(runs: dict[str, tuple[Done, Done]], made: Path) -> None:
    assert runs["skipping"][0].code == 0, runs["skipping"][0].err
    entries = [json.loads(line) for line in (made / "two" / "skipping" / "skipped.jsonl").read_text().splitlines()]
    assert sorted(Path(entry["file"]).name for entry in entries) == ["1.png", "3.png", "4.png"]
    assert [entry["images"] for entry in entries] == sorted(entry["images"] for entry in entries)
    assert all(entry["images"] <= 40 for entry in entries)
