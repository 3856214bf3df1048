"""i2i translate, generate and evaluate in two processes: each output once, and not a bit differs from one process."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from i2i.data.sharding import SingleProcess, shard_blocks
from tests.conftest import SMALL, Run, drawing
from tests.two_processes import ROOT, Done, alone, environment, free_port, start, together


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def both(trained: Path, noisy: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Done, Done]], dict[str, list[str]]]:
    """The same command lines in two processes, into `two`; pictures of two sizes, one of them broken."""
    base = tmp_path_factory.mktemp("shared")
    (base / "in" / "deep").mkdir(parents=True)
    for i in range(150):
        picture = Image.fromarray(drawing(i)[:, :32])
        (picture.resize((48, 32)) if i % 3 == 0 else picture).save(base / "in" / ("deep" if i % 2 else "") / f"{i:03}.png")
    (base / "in" / "007x.png").write_bytes(b"broken")
    for folder in ("images", "masks"):
        (base / "set" / folder).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(drawing(i)[:, :32]).save(base / "set" / folder / f"{i}.bmp")
    (base / "set" / "boxes.json").write_text('{"images": [{"file_name": "3.bmp"}, {"file_name": "gone.bmp"}]}')
    words = {"translate": ["translate", str(trained), str(base / "in"), "--out", "OUT/translated"],
             "translate again": ["translate", str(trained), str(base / "in"), "--out", "OUT/translated", "--skip-existing"],
             "folder": ["generate", str(noisy["classes"]), "--out", "OUT/folder", "--n", "70", "--batch", "8"],
             "more": ["generate", str(noisy["classes"]), "--out", "OUT/folder", "--n", "100", "--batch", "8"],
             "zip": ["generate", str(noisy["styles"]), "--out", "OUT/set.zip", "--n", "50", "--batch", "8"],
             "translate labels": ["translate", str(trained), str(base / "set"), "--out", "OUT/carried", "--labels", "carry", "--mix", "0.7", "--format", "png"],
             "into that": ["translate", str(trained), str(base / "set"), "--out", "OUT/carried", "--labels", "carry"],
             **{layout: ["generate", str(noisy["classes"]), "--out", f"OUT/{layout}", "--n", "20", "--batch", "4", "--layout", layout, "--shard", "8"][:11 if layout == "coco" else None]
                for layout in ("webdataset", "parquet", "coco")},
             "wrong": ["generate", str(trained), "--out", "OUT/x", "--n", "5"]}
    done = together(base, [[*(word.replace("OUT", str(base / "two")) for word in line), "--device", "cpu"] for line in words.values()])
    return base, dict(zip(words, done, strict=True)), words


def test_two_processes_write_what_one_writes(both: tuple[Path, dict[str, tuple[Done, Done]], dict[str, list[str]]], i2i: Run) -> None:
    base, done, words = both
    for name, line in words.items():
        one = i2i(*(word.replace("OUT", str(base / "one")) for word in line), "--device", "cpu")
        first, other = done[name]
        assert first.code == one.code, first.err
        assert not other.out
        assert first.out.split("(")[0] == one.out.replace("one", "two").split("(")[0]
        if name == "wrong":
            assert (one.code, first.err) == (2, one.err)
        if name.startswith("translate"):
            assert first.err == one.err
            assert not other.err
    assert files(base / "two") == files(base / "one")
    assert len(files(base / "two" / "translated")) == 150
    assert done["wrong"][1].err.startswith("error: process 1: ")


JUDGE = {
    "sets": ["--real", "{reals}", "--fake", "{base}/fakes", "--json", "OUT/sets.json", "--bootstrap", "2"],
    "known reference": ["--real", "{reals}", "--fake", "{base}/fakes", "--json", "OUT/again.json", "--bootstrap", "2", "--metrics", "fd,color", "--against", "OUT/sets.json"],
    "all in one batch": ["--real", "{reals}", "--fake", "{base}/fakes", "--json", "OUT/one-batch.json", "--bootstrap", "0", "--metrics", "kid", "--batch", "64"],
    "named pairs": ["--real", "{reals}", "--fake", "{base}/partners", "--metrics", "l1,ssim,kid", "--no-cache", "--json", "OUT/pairs.json"],
    "model": ["{trained}", "--sheet", "OUT/sheet.png", "--json", "OUT/model.json", "--batch", "2"],
    "model, sizes": ["{trained}", "--data", "{base}/unequal", "--metrics", "l1,psnr", "--json", "OUT/unequal.json", "--batch", "2"]}


@pytest.fixture(scope="module")
def reals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 pictures: with batches of 4 the last round is for one process."""
    folder = tmp_path_factory.mktemp("reals")
    for i in range(21):
        Image.fromarray(drawing(i)[:, :32]).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def judged(trained: Path, reals: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[Done, Done]], dict[str, list[str]]]:
    """Evaluations of sets and of a model in two processes, into `two`."""
    base = tmp_path_factory.mktemp("judged")
    for folder in ("fakes", "partners", "unequal/testA", "unequal/testB", "two"):
        (base / folder).mkdir(parents=True)
    for i in range(21):
        Image.fromarray(drawing(i)[:, 32:]).save(base / "partners" / f"{i:02}.png")
        Image.fromarray(drawing(i + 50)[:, 32:]).save(base / "fakes" / f"{i:02}.{'jpg' if i % 3 == 0 else 'png'}")
    for i in range(5):
        for side, picture in (("A", drawing(i)[:, :32]), ("B", drawing(i)[:, 32:] if i % 2 else drawing(i, 40)[:, 40:])):
            Image.fromarray(picture).save(base / "unequal" / f"test{side}" / f"{i}.png")
    words = {name: ["evaluate", *(word.format(base=base, reals=reals, trained=trained) for word in line), "--device", "cpu", *([] if "--batch" in line else ["--batch", "4"])]
             for name, line in JUDGE.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("I2I_CACHE", str(base / "cache"))
        done = together(base, [[word.replace("OUT", str(base / "two")) for word in line] for line in words.values()], seconds=600)
    shutil.rmtree(base / "cache")
    return base, dict(zip(words, done, strict=True)), words


def near(a: object, b: object) -> bool:
    """Whether JSON data is the same but for the rounding of its numbers that are not whole."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(near(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(near, a, b))
    return a == pytest.approx(b, rel=1e-9, abs=1e-9) if isinstance(a, float) and isinstance(b, float) else a == b


@pytest.mark.parametrize("threads", [1, 2])
def test_two_processes_judge_as_one(threads: int, judged: tuple[Path, dict[str, tuple[Done, Done]], dict[str, list[str]]],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte as one with as many threads as each of them; but for rounding as one with others, as BLAS then adds in another order."""
    base, done, words = judged
    name_of = f"one-{threads}"
    (base / name_of).mkdir()
    monkeypatch.setenv("I2I_CACHE", str(base / f"cache-{threads}"))
    lines = {name: line for name, line in words.items() if threads == 1 or name in ("sets", "known reference", "all in one batch")}
    ones = alone(base, [[word.replace("OUT", str(base / name_of)) for word in line] for line in lines.values()], threads=threads, seconds=600)
    for name, one in zip(lines, ones, strict=True):
        first, other = done[name]
        assert first.code == one.code == 0, (name, first.err, one.err)
        assert first.out.splitlines()[1:] == one.out.splitlines()[1:] or threads > 1        # The first line has the seconds.
        assert first.err == one.err
        assert not other.out + other.err
    two, found = files(base / "two"), files(base / name_of)
    if threads == 1:
        assert two == found
        assert {"sets.json", "again.json", "one-batch.json", "pairs.json", "model.json", "unequal.json", "sheet.png"} == found.keys()
    assert len(found) >= 3
    assert all(near(json.loads(two[name]), json.loads(text)) for name, text in found.items() if name.endswith(".json"))


def test_near_is_not_anything() -> None:
    assert near({"a": [1.0, "x", None]}, {"a": [1.0 + 1e-12, "x", None]})
    for other in ({"a": [1.0 + 1e-7, "x", None]}, {"a": [1.0, "y", None]}, {"a": [1.0, "x"]}, {"b": [1.0, "x", None]}):
        assert not near({"a": [1.0, "x", None]}, other)


def test_the_process_that_fails_says_why(tmp_path: Path, reals: Path) -> None:
    shutil.copytree(reals, tmp_path / "broken")
    (tmp_path / "broken" / "06.png").write_bytes(b"broken")     # In the second block, which is process 1's.
    line = ["-m", "i2i.cli", "evaluate", "--real", reals, "--fake", tmp_path / "broken", "--metrics", "l1", "--batch", "4", "--device", "cpu"]
    processes = start(line, tmp_path)
    (out, first), (other_out, other) = (process.communicate(timeout=120) for process in processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert not out + other_out
    assert other.splitlines()[-1].startswith(f"error: process 1: {tmp_path}/broken/06.png: ")
    assert first.splitlines()[-1].startswith("error: another process of this job has ended, and its own last line says why")


def test_blocks_are_dealt_in_turns_and_rounds_are_as_many_for_all() -> None:
    class Of(SingleProcess):
        def __init__(self, rank: int, world_size: int) -> None:
            self.rank, self.world_size = rank, world_size     # type: ignore[misc]

    for n in (0, 1, 7, 8, 9, 40):
        for world_size in (1, 2, 3):
            dealt = [list(shard_blocks(n, 4, Of(rank, world_size))) for rank in range(world_size)]
            assert len(set(map(len, dealt))) == 1
            assert [i for turn in zip(*dealt, strict=True) for block in turn for i in block] == list(range(n))


def test_a_job_leaves_no_thread_to_abort_at_the_end(trained: Path, reals: Path, tmp_path: Path) -> None:
    """gloo's threads release what they sent a moment later, and one that does so while Python ends aborts the process."""
    (tmp_path / "end.py").write_text(
        "import atexit, sys, threading\n"
        "atexit.register(lambda: print('left:', sorted(open(f'/proc/self/task/{task}/comm').read().strip()"
        " for task in __import__('os').listdir('/proc/self/task') if task != str(threading.main_thread().native_id))))\n"
        "sys.argv = ['i2i', *sys.argv[1:]]\n"
        "import i2i.cli.__main__\n")
    processes = start([tmp_path / "end.py", "translate", trained, reals, "--out", "out", "--device", "cpu"], tmp_path)
    for process in processes:
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, out.splitlines()[-1]) == (0, "left: []"), errors


def surroundings() -> dict[str, str]:
    """Of a shell in which a person types, on a machine without a GPU."""
    told = ("RANK", "LOCAL_", "WORLD", "MASTER", "ACCELERATE", "OMP_")
    return {key: value for key, value in environment(0, 0).items() if not key.startswith(told)}


def documented(path: str, start: str) -> list[str]:
    """The launcher's words in a line of the docs, up to the command; on two processes of this machine, with a free port."""
    lines = [line for line in (ROOT / path).read_text().splitlines() if start in line]
    assert lines, f"{path} has no line with {start!r}"
    text = lines[0][lines[0].index(start):]
    program, *words = shlex.split(text[:text.index(" -m i2i.cli")].strip("`- "))
    words = words[1:] if program == "accelerate" else words      # accelerate launch
    count = "--num_processes" if program == "accelerate" else "--nproc_per_node"
    words[words.index(count) + 1] = "2"
    module = ["accelerate.commands.launch", f"--main_process_port={free_port()}"] if program == "accelerate" else \
        ["torch.distributed.run", f"--master_port={free_port()}"]
    return [sys.executable, "-m", *module, *words, "-m", "i2i.cli"]


LAUNCHERS = {"torchrun": ("docs/training.md", "torchrun --nproc_per_node"), "accelerate": ("docs/scale.md", "accelerate launch --multi_gpu")}


def test_the_pages_have_one_line_for_torchrun() -> None:
    """But for the number of processes; so one of them is tried."""
    lines = [[word for word in documented(page, LAUNCHERS["torchrun"][1]) if "port" not in word] for page in ("docs/training.md", "docs/scale.md")]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_documented_lines_make_one_job_without_a_device(launcher: str, trained: Path, noisy: dict[str, Path], reals: Path, strips: Path,
                                                         tmp_path: Path) -> None:
    """Each command under the launcher as the docs have it: with nothing about devices, and one process writes and speaks."""
    commands: dict[str, list[object]] = {
        "train": ["train", "pix2pix", *SMALL, "train.images=8", "--data", strips],
        "translate": ["translate", trained, reals, "--out", "translated"],
        "generate": ["generate", noisy["classes"], "--number", "6", "--out", "made"],
        "evaluate": ["evaluate", "--real", reals, "--fake", reals, "--metrics", "l1", "--json", "judged.json"]}
    says = {"train": "done: model", "translate": "21 translated", "generate": "6 generated", "evaluate": "21 fakes"}
    for name in commands if launcher == "torchrun" else ("train", "translate"):
        words = [*documented(*LAUNCHERS[launcher]), *map(str, commands[name])]
        done = subprocess.run(words, cwd=tmp_path, env=surroundings(), capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, (name, done.stderr[-3000:])
        assert done.stdout.count(says[name]) == 1, (name, done.stdout)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["pix2pix"]
    assert json.loads((tmp_path / "runs" / "pix2pix" / "config.json").read_text())
    assert len(list((tmp_path / "translated").iterdir())) == 21


def test_accelerate_on_cpus_makes_one_job(trained: Path, reals: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no",
             "--dynamo_backend=no", f"--main_process_port={free_port()}", "-m", "i2i.cli", "translate", trained, reals, "--out", "translated"]
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=surroundings(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("21 translated") == 1


def test_launchers_do_not_take_our_options_for_theirs() -> None:
    """Python's argparse, in some versions, refuses what begins several of a launcher's options, also after the program's name."""
    import typer
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    from i2i.cli import app
    theirs = [list(parser()._option_string_actions) for parser in (get_args_parser, launch_command_parser)]
    commands = typer.main.get_command(app).commands     # type: ignore[attr-defined]
    for name in ("train", "translate", "generate", "evaluate"):
        for parameter in commands[name].params:
            if parameter.param_type_name == "option":
                ways = [way for way in parameter.opts if all(sum(each.startswith(way) for each in options) < 2 for options in theirs)]
                assert ways, f"{name}: {parameter.opts}"


@pytest.mark.slow
def test_the_documented_line_for_several_machines_makes_one_job(strips: Path, tmp_path: Path) -> None:
    """Two launchers stand for two machines, with a process each; the folders are where the reader has none."""
    line = next(line for line in (ROOT / "docs" / "scale.md").read_text().splitlines() if line.startswith("torchrun --nnodes"))
    port = free_port()
    changes = {"--nnodes 4": "--nnodes 2", "--nproc_per_node 8": "--nproc_per_node 1", "FIRST": "127.0.0.1", "29500": str(port), "/shared/photos": str(strips), "/shared/run": str(tmp_path / "run")}
    for old, new in changes.items():
        assert old in line
        line = line.replace(old, new)
    processes = [subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *shlex.split(line.replace(" N ", f" {rank} "))[1:], *SMALL, "train.images=8"],
                                  cwd=tmp_path, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    (first, first_errors), (second, second_errors) = (process.communicate(timeout=240) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], first_errors[-3000:] + second_errors[-3000:]
    assert "8 images in 4 steps of 2" in first
    assert first.count("done: model") == 1
    assert second == ""
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["run", "strips"]
