"""What makes training faster changes nothing that is learned, or says so: reading ahead, writing beside the training, memory formats, compiling."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import i2i
from i2i.config import override, parse_assignments
from i2i.data.loader import prefetched
from i2i.errors import JobError, RequestError
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.recipes.presets import PRESETS
from i2i.registry import Spec, build, lookup, names
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training import resume as resuming
from i2i.training import train as training
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime, compile_networks
from i2i.training.player_optimizers import PlayerOptimizers
from i2i.training.run_state import AsyncWriter
from i2i.training.settings import recipe_or_preset
from tests.conftest import SMALL, Run
from tests.training.test_nan import trainer
from tests.training.test_resume import StopAfter, assert_same


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"writer", "prefetch"}


# ---------------------------------------------------------------------------------------------- reading ahead

def test_a_thread_reads_ahead_in_order_and_no_further_than_asked() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    stream = prefetched(numbers(), 3)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(taken) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert taken == [0, 1, 2, 3]        # The one that was given and three that wait.
    assert list(islice(stream, 50)) == list(range(1, 51))
    assert threads() == {"prefetch"}
    stream.close()
    assert not threads()


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_an_error_comes_after_all_that_was_read_before_it_and_the_end_is_an_end(depth: int) -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise OSError("gone")

    stream = prefetched(failing(), depth)
    assert list(islice(stream, 3)) == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(stream)
    assert list(prefetched(iter(range(4)), depth)) == [0, 1, 2, 3]
    assert not threads()


def test_no_thread_outlives_a_run_that_fails(strips: Path, tmp_path: Path) -> None:
    folder, job = resuming.resolve_job("pix2pix", [*SMALL, "train.images=40"], data=strips, out=tmp_path / "run", epochs=None, resume=None)
    (strips / "train" / "04.png").write_bytes(b"broken")
    with pytest.raises(JobError, match=r"04\.png"):
        training.run_job(job, folder, device="cpu")
    assert not threads()
    assert not list(tmp_path.rglob("*.part"))


def test_batches_that_a_stream_of_its_own_copies_are_those_of_the_run_without(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with streams that only note what is asked of them; also where a run is resumed."""
    train, events = ["pix2pix", *SMALL, "train.images=40"], list[str]()

    @contextmanager
    def stream(of: object) -> Iterator[None]:
        events.append(f"{of}")
        yield

    def for_config(config: TrainConfig, device: str) -> Runtime:
        runtime = make(config, device)
        runtime._copies = "copies"
        return runtime

    i2i.train(*train, data=strips, out=tmp_path / "plain", device="cpu")
    make = Runtime.for_config
    monkeypatch.setattr(Runtime, "for_config", for_config)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(wait_stream=lambda other: events.append(f"wait for {other}")))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: events.append("keep"), raising=False)
    folder, job = resuming.resolve_job(train[0], train[1:], data=strips, out=tmp_path / "run", epochs=None, resume=None)
    assert training.run_job(job, folder, device="cpu", callbacks=[StopAfter(14)]) == signal.SIGINT
    i2i.train(resume=tmp_path / "run", device="cpu")
    assert_same(tmp_path / "plain", tmp_path / "run")
    assert events == ["copies", "wait for copies", "keep", "keep"] * job.train.steps


def test_batches_are_augmented_on_the_device_a_and_b_alike_and_anew_in_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    monkeypatch.setattr(Pix2Pix, "step", lambda self, modules, batch, *rest: seen.append((batch["a"], batch["b"])))
    image = torch.linspace(-1, 1, 32).expand(8, 3, 32, 32)
    small = ("pix2pix", "generator.width=4", "discriminator.width=4")
    run = trainer((*small, "device_augment=kornia", "device_augment.ops=RandomHorizontalFlip"), tmp_path / "run")
    for _ in range(2):
        run.advance({"a": image, "b": 0.5 * image})
    assert all(torch.allclose(b, 0.5 * a, atol=1e-6) for a, b in seen)
    flipped = [[not torch.allclose(each, image[0], atol=1e-6) for each in a] for a, _ in seen]
    assert 0 < sum(flipped[0]) < 8
    assert flipped[0] != flipped[1]
    with pytest.raises(RequestError, match=r"train\.device_augment=ada cannot be used"):
        i2i.train("cyclegan", "device_augment=ada", out=tmp_path / "ada", device="cpu")
    assert not (tmp_path / "ada").exists()


# ---------------------------------------------------------------------------------------------- writing beside

def test_jobs_are_done_in_order_and_an_error_is_raised_once_and_drops_those_behind_it() -> None:
    done: list[int] = []

    def fail() -> None:
        raise JobError("full")

    writer = AsyncWriter(background=True)
    for job in (lambda: (time.sleep(0.05), done.append(1)), lambda: done.append(2), fail, lambda: done.append(3)):
        writer.submit(job)
    with pytest.raises(JobError, match="full"):
        writer.finish()
    assert done == [1, 2]
    writer.submit(lambda: done.append(4))
    writer.finish()
    assert done == [1, 2, 4]
    assert not threads()
    writer.submit(fail)
    with pytest.raises(ZeroDivisionError), writer:      # What went wrong first is what is told.
        1 // 0  # noqa: B018


def test_what_waits_to_be_written_does_not_change() -> None:
    weight = torch.ones(3)
    copies = AsyncWriter(background=True).copy({"w": weight})
    weight.add_(1)
    assert copies["w"].tolist() == [1, 1, 1]
    assert AsyncWriter(background=False).copy({"w": weight})["w"] is weight


def test_a_disk_that_refuses_in_the_background_ends_the_run_and_the_state_before_stays(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, words = checkpoint.write_atomically, ["pix2pix", *SMALL, "train.images=40"]

    def full(path: Path, job: object) -> None:
        if path.name == "state-00000016.safetensors":
            raise JobError(f"{path} could not be written: No space left on device")
        write(path, job)

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(JobError, match="No space left"):
        i2i.train(*words, data=strips, out=tmp_path / "run", device="cpu")
    assert [path.stem for path in RunFolder(tmp_path / "run").states()] == ["state-00000000", "state-00000008"]
    monkeypatch.undo()
    i2i.train(resume=tmp_path / "run", device="cpu")
    i2i.train(*words, data=strips, out=tmp_path / "straight", device="cpu")
    assert_same(tmp_path / "straight", tmp_path / "run")


def test_killed_in_the_middle_of_a_background_write_the_state_before_counts(strips: Path, tmp_path: Path) -> None:
    words = ["pix2pix", *SMALL, "train.images=40"]
    child = os.fork()
    if not child:
        save = checkpoint.save_file

        def half(tensors: dict[str, torch.Tensor], path: Path, header: dict[str, str]) -> None:
            save(tensors, path, header)
            if "00000016" in path.name:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.save_file = half
        i2i.train(*words, data=strips, out=tmp_path / "run", device="cpu")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "run" / ".state-00000016.safetensors.part").exists()
    i2i.train(resume=tmp_path / "run", device="cpu")
    i2i.train(*words, data=strips, out=tmp_path / "straight", device="cpu")
    assert_same(tmp_path / "straight", tmp_path / "run")


# ---------------------------------------------------------------------------------------------- settings

@pytest.mark.parametrize("word", ["train.prefetch_factor=0", "train.prefetch_factor=5", "train.async_writes=false"])
def test_how_files_are_read_and_written_changes_nothing(trained: Path, tmp_path: Path, word: str) -> None:
    i2i.train("pix2pix", *SMALL, "train.images=24", word, data=trained.parent / "data", out=tmp_path / "run", device="cpu")
    assert_same(trained, tmp_path / "run")


@pytest.mark.parametrize("words", [["train.memory_format=channels-last"], ["train.memory_format=channels-last", "train.precision=bf16"]])
def test_channels_last_resumes_bit_for_bit_and_learns_the_same_but_for_rounding(trained: Path, strips: Path, tmp_path: Path, words: list[str]) -> None:
    train = ["pix2pix", *SMALL, "generator.width=16", "train.images=40", *words]
    i2i.train(*train, data=strips, out=tmp_path / "straight", device="cpu")
    folder, job = resuming.resolve_job(train[0], train[1:], data=strips, out=tmp_path / "run", epochs=None, resume=None)
    assert training.run_job(job, folder, device="cpu", callbacks=[StopAfter(14)]) == signal.SIGINT
    i2i.train(resume=tmp_path / "run", device="cpu")
    assert_same(tmp_path / "straight", tmp_path / "run")
    if len(words) == 1:
        i2i.train("pix2pix", *SMALL, "train.images=2", *words, data=trained.parent / "data", out=tmp_path / "short", device="cpu")
        i2i.train("pix2pix", *SMALL, "train.images=2", data=trained.parent / "data", out=tmp_path / "plain", device="cpu")
        last, plain = (checkpoint.load(RunFolder(tmp_path / name).states()[-1], "state")[0] for name in ("short", "plain"))
        for key, value in plain.items():
            if key.startswith("log."):
                torch.testing.assert_close(last[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("asked", [False, True])
def test_tf32_is_used_only_where_it_is_asked_for(strips: Path, tmp_path: Path, asked: bool) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn        # Can be read and set where there is no GPU.
    before = [flag.allow_tf32 for flag in flags]
    try:
        for flag in flags:
            flag.allow_tf32 = not asked
        i2i.train("pix2pix", *SMALL, "train.images=2", *(["train.tf32=true"] if asked else []), data=strips, out=tmp_path / "run", device="cpu")
        assert [flag.allow_tf32 for flag in flags] == [asked] * 2
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def test_moments_lie_as_their_parameters_do() -> None:
    """Fused kernels go through both in the order of memory; files have them contiguous."""
    recipe = Pix2Pix(generator=Spec("unet", {"width": 2}), discriminator=Spec("patch", {"width": 2, "layers": 1}))
    modules = recipe.modules(DataInfo((16, 16))).to(memory_format=torch.channels_last)
    made, again = (PlayerOptimizers(recipe, modules, Runtime(device="cpu"), max_skips=3) for _ in range(2))
    made("G", sum(p.square().sum() for p in modules["G"].parameters()))
    tensors, data = made.state()
    again.restore({name: tensor.contiguous() for name, tensor in tensors.items()}, data)
    for p in modules["G"].parameters():
        one, other = (optimizers.optimizers["G"].state[p]["exp_avg"] for optimizers in (made, again))
        assert p.stride() == one.stride() == other.stride()
        assert torch.equal(one, other)
    assert any(moments["exp_avg"].any() for moments in made.optimizers["G"].state.values())


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_fused_kernels_can_be_left_out(name: str) -> None:
    """The same moments and steps but for rounding, by other kernels."""
    ended = []
    for fused in (True, False):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(40))
        optimizer = build("optimizer", Spec(name, {"fused": fused, "lr": 0.01, "weight_decay": 0.1}), [p])
        assert optimizer.defaults["fused"] is fused
        for _ in range(20):
            p.grad = torch.randn_like(p)
            optimizer.step()
        ended.append(p.detach())
    torch.testing.assert_close(ended[0], ended[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*PRESETS, *names("recipe")])
def test_second_order_modules_are_reported(name: str) -> None:
    recipe_name, words = recipe_or_preset(name)
    recipe = override(lookup("recipe", recipe_name)(), parse_assignments([word for word in words if not word.startswith(("train.", "data."))]))
    twice = any(word in ("penalty=r1", "penalty=r1r2", "penalty=wgan-gp", "penalty=dragan") or word.startswith("unrolling=") for word in words)
    assert bool(recipe.second_order_modules) == twice
    assert ("G" in recipe.second_order_modules) == ("g_penalty=path-length" in words)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("words", [[], ["train.compile=false", "train.cuda_graphs=true", "train.ema_half_life=0"], ["discriminator.norm=instance", "penalty=r1", "adversarial=hinge"]])
def test_compiled_networks_keep_their_names_resume_bit_for_bit_and_spare_what_is_second_order_modules(strips: Path, tmp_path: Path, words: list[str]) -> None:
    train = ["pix2pix", *SMALL, "train.images=40", "train.compile=true", *words]
    i2i.train(*train, data=strips, out=tmp_path / "straight", device="cpu")
    folder, job = resuming.resolve_job(train[0], train[1:], data=strips, out=tmp_path / "run", epochs=None, resume=None)
    assert training.run_job(job, folder, device="cpu", callbacks=[StopAfter(14)]) == signal.SIGINT
    i2i.train(resume=tmp_path / "run", device="cpu")
    assert_same(tmp_path / "straight", tmp_path / "run")
    i2i.train(*train, "train.compile=false", "train.cuda_graphs=false", data=strips, out=tmp_path / "plain", device="cpu")
    compiled, plain = (checkpoint.load(tmp_path / name / "model.safetensors", "model")[0] for name in ("straight", "plain"))
    assert compiled.keys() == plain.keys()


def test_cuda_graphs_are_a_mode_of_compiled_networks_that_evaluations_do_without() -> None:
    modules, asked = torch.nn.ModuleDict({"G": torch.nn.Linear(2, 2)}), []
    modules["G"].compile = lambda **options: asked.append(options)
    modules["G"]._compiled_call_impl = lambda x: x + 1
    compile_networks(modules, ["G"], torch.device("cpu"), cuda_graphs=True)
    assert asked == [{"dynamic": False, "mode": "reduce-overhead"}]
    assert modules["G"](torch.zeros(1, 2)).tolist() == [[1, 1]]
    assert torch.equal(modules.eval()["G"](torch.zeros(1, 2))[0], modules["G"].bias)      # Evaluations are not compiled.


def test_without_a_compiler_compiling_is_refused_before_anything_is_trained(strips: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("No working C++ compiler found\nin 12 places")

    monkeypatch.setattr(torch, "compile", broken)
    result = i2i("train", "pix2pix", *SMALL, "train.images=4", "train.compile=true", "--data", strips, "--out", "run", "--device", "cpu")
    assert result.code == 2
    assert "train.compile=true: torch.compile does not work here (No working C++ compiler found)" in result.line
