"""i2i translate, generate and evaluate in two processes: each output once, and not a bit differs from one process."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from i2i.data.sharding import SingleProcess, shard_blocks
from tests.conftest import Run, drawing
from tests.pair import Done, start, together


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
    words = {"translate": ["translate", str(trained), str(base / "in"), "--out", "OUT/translated"],
             "translate again": ["translate", str(trained), str(base / "in"), "--out", "OUT/translated", "--skip-existing"],
             "folder": ["generate", str(noisy["classes"]), "--out", "OUT/folder", "--n", "70", "--batch", "8"],
             "more": ["generate", str(noisy["classes"]), "--out", "OUT/folder", "--n", "100", "--batch", "8"],
             "zip": ["generate", str(noisy["styles"]), "--out", "OUT/set.zip", "--n", "50", "--batch", "8"],
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
        assert first.out.split("(")[0] == one.out.replace("one", "two").split("(")[0] or name == "wrong"
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
    for folder in ("fakes", "partners", "unequal/testA", "unequal/testB", "one", "two"):
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


def test_two_processes_judge_as_one(judged: tuple[Path, dict[str, tuple[Done, Done]], dict[str, list[str]]], i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    base, done, words = judged
    monkeypatch.setenv("I2I_CACHE", str(base / "cache"))
    for name, line in words.items():
        one = i2i(*(word.replace("OUT", str(base / "one")) for word in line))
        first, other = done[name]
        assert first.code == one.code == 0, (name, first.err, one.err)
        assert first.out.splitlines()[1:] == one.out.splitlines()[1:]       # The first line has the seconds.
        assert first.err == one.err
        assert not other.out + other.err
    assert files(base / "two") == files(base / "one")
    assert {"sets.json", "again.json", "one-batch.json", "pairs.json", "model.json", "unequal.json", "sheet.png"} == files(base / "one").keys()


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
