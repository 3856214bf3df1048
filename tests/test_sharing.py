"""i2i translate and generate in two processes: each output once, and not a bit differs from one process."""

from pathlib import Path

import pytest
from PIL import Image

from i2i.share import Alone, rounds
from tests.conftest import Run, drawing
from tests.pair import Done, together


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


def test_blocks_are_dealt_in_turns_and_rounds_are_as_many_for_all() -> None:
    class Of(Alone):
        def __init__(self, rank: int, world: int) -> None:
            self.rank, self.world = rank, world     # type: ignore[misc]

    for n in (0, 1, 7, 8, 9, 40):
        for world in (1, 2, 3):
            dealt = [list(rounds(n, 4, Of(rank, world))) for rank in range(world)]
            assert len(set(map(len, dealt))) == 1
            assert [i for turn in zip(*dealt, strict=True) for block in turn for i in block] == list(range(n))
