"""Files from strangers: whatever they hold, the answer is one line or the right result; nothing is run, and no more memory taken than they have bytes."""

from __future__ import annotations

import copy
import json
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import i2i as package
from i2i.config import override, parse_assignments
from i2i.data.dataset_root import LABELS
from i2i.data.sources import open_source
from i2i.errors import I2IError, RequestError
from i2i.inference.model import Model, load
from i2i.recipes.base import DataInfo
from i2i.recipes.meta_device import build_on_meta
from i2i.registry import Spec, build, lookup
from i2i.runs import checkpoint, log
from i2i.runs.folder import RunFolder
from i2i.training import resume as resuming
from i2i.training.distributed import Runtime
from i2i.training.plan import memory_estimate
from i2i.training.trainer import Trainer
from tests.conftest import Run
from tests.training.test_resume import assert_same

HOSTILE: tuple[Any, ...] = (None, True, -1, 0, 1, 2.5, 10**9, 2**53, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\0", "../../etc/passwd", "nearest",
                            [], {}, [1] * 1000, [[]], {"name": "unet", "options": {}}, {"name": 3}, {"name": "resnet", "options": {"blocks": 10**9}})
MEMORY = 150 * 2**20        # Bytes: what it may take to refuse a file of a few hundred kB, kernels and caches of torch's included.


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in JSON data."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*at, key)
        yield from places(value, (*at, key))


def mutated(data: dict[str, Any], g: np.random.Generator) -> dict[str, Any]:
    """One place holds something else, or is gone, or has changed places with another."""
    data = copy.deepcopy(data)
    every = list(places(data))
    def parent(place: tuple[Any, ...]) -> Any:
        found: Any = data
        for key in place[:-1]:
            found = found[key]
        return found

    one, other = (every[int(g.integers(len(every)))] for _ in range(2))
    match int(g.integers(6)):
        case 0:
            del parent(one)[one[-1]]
        case 1:
            value, another = copy.deepcopy(parent(one)[one[-1]]), copy.deepcopy(parent(other)[other[-1]])
            parent(one)[one[-1]] = another
            if other[:len(one)] != one:
                parent(other)[other[-1]] = value
        case _:
            parent(one)[one[-1]] = HOSTILE[int(g.integers(len(HOSTILE)))]
    return data


def refused(attempt: Callable[[], object]) -> bool:
    """Whether it was refused in one line; what else it raises is an error of the test."""
    told = ""
    try:
        attempt()
    except I2IError as error:
        told = str(error)
    assert "\n" not in told
    assert len(told) < 2000, told[:300]
    return bool(told)


def use(model: Model) -> None:
    """Have it make something; what comes out is what it says of itself."""
    if model.recipe.sources:
        image = torch.zeros(1, model.formats["a"].channels, 16, 16)
        assert model.translate(image).shape == (1, model.formats["b"].channels, 16, 16)
    else:
        assert model.generate(2).shape[:2] == (2, model.formats["b"].channels)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_mutated_model_headers_are_refused_or_harmless(trained: Path, noisy: dict[str, Path], tmp_path: Path) -> None:
    """100 headers, each with a checksum that is right."""
    g, path, counts = np.random.default_rng(6), tmp_path / "x.safetensors", [0, 0]
    for run in (trained, *noisy.values()):
        tensors, header = checkpoint.load(run / "model.safetensors", "model")
        before = peak()
        for _ in range(25):
            checkpoint.save(path, tensors, mutated(header, g))
            counts[refused(lambda: use(load(path, device="cpu")))] += 1
        assert peak() - before < MEMORY
    assert min(counts) > 10, counts     # Some change nothing that a model needs.


def test_corrupted_model_files_are_refused_or_unchanged(trained: Path, tmp_path: Path) -> None:
    """Bits flipped in the places of the tensors, in their shapes and types, in the length of the header; pieces cut off or doubled."""
    data, path, g = (trained / "model.safetensors").read_bytes(), tmp_path / "x.safetensors", np.random.default_rng(7)
    length = int.from_bytes(data[:8], "little")
    tensors, header = checkpoint.load(trained / "model.safetensors", "model")
    before, changed, counts = peak(), 0, [0, 0]
    for _ in range(80):
        broken = bytearray(data)
        place = int(g.choice([g.integers(8), g.integers(8, 8 + length), g.integers(len(data))]))
        match int(g.integers(4)):
            case 0:
                broken[place] ^= 1 << int(g.integers(8))
            case 1:
                del broken[place:]
            case 2:
                broken[place:place] = data[place:place + 50]
            case 3:
                broken[place:place + 8] = struct.pack("<Q", int(g.integers(2**63)))
        path.write_bytes(broken)
        if bytes(broken) == data:
            continue
        changed += 1
        was_refused = refused(lambda: use(load(path, device="cpu")))
        counts[was_refused] += 1
        if not was_refused:         # Then the change lies in no byte that means anything.
            same_tensors, same_header = checkpoint.load(path, "model")
            assert same_header == header
            assert same_tensors.keys() == tensors.keys()
            assert all(torch.equal(same_tensors[name], tensors[name]) for name in tensors)
    assert counts[True] > 0.9 * changed > 60, counts
    assert peak() - before < MEMORY


@pytest.mark.parametrize(("options", "words"), [
    ({"width": 2**40}, "bytes"), ({"width": 10**6}, "by the header"), ({"width": 10**30}, "generator.width="), ({"width": float("nan")}, "generator.width="),
    ({"width": True}, "generator.width="), ({"depth": 10**9}, "depth"), ({"width": -4}, "header"), ({"norm": "x"}, "norm")])
def test_a_header_that_wants_more_than_the_file_holds(trained: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    tensors, header = checkpoint.load(trained / "model.safetensors", "model")
    header["recipe"]["settings"]["generator"]["options"] |= options
    checkpoint.save(tmp_path / "x.safetensors", tensors, header)
    before = peak()
    with pytest.raises(RequestError, match=words):
        load(tmp_path / "x.safetensors")
    assert peak() - before < MEMORY


@pytest.mark.parametrize(("recipe", "words", "key"), [
    ("pix2pix", ["generator=resnet", "generator.blocks=1000000000"], "generator.blocks"), ("gan", ["generator=mlp", "generator.layers=1000000000"], "generator.layers"),
    ("gan", ["discriminator=mlp", "discriminator.layers=1000000000"], "discriminator.layers"), ("pix2pix", ["discriminator.layers=1000000000"], "discriminator.layers"),
    ("gan", ["generator=stylegan2", "generator.mapping_layers=1000000000"], "generator.mapping_layers")])
def test_networks_of_a_billion_layers_are_refused_before_they_are_built(recipe: str, words: list[str], key: str) -> None:
    with pytest.raises(RequestError, match=f"{key}=1000000000 cannot be used"):
        build_on_meta(override(lookup("recipe", recipe)(), parse_assignments(words)), DataInfo((32, 32)))


def test_a_pickle_by_another_name_and_a_header_of_gigabytes(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(RequestError, match="not a safetensors file"):
        load(path)
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(RequestError, match="its header would have"):
        load(path)
    path.write_bytes(struct.pack("<Q", 2 * 10**5) + b"[" * 10**5 + b"]" * 10**5)
    with pytest.raises(RequestError, match="not a safetensors file"):
        load(path)
    save_file({"x": torch.zeros(1)}, path, {"i2i": "[" * 10**5 + "]" * 10**5})
    with pytest.raises(RequestError, match="not one of i2i"):
        load(path)


# ---------------------------------------------------------------------------------------------- run folders

@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of a finished run."""
    shutil.copytree(trained, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_corrupted_training_states_are_refused_or_harmless(run: RunFolder) -> None:
    """60 headers and tables of tensors, with checksums that are right, restored by one trainer, which then can take a step."""
    g, last = np.random.default_rng(8), run.states()[-1]
    for state in run.states()[:-1]:
        state.unlink()
    tensors, header = checkpoint.load(last, "state")
    job = resuming.reopen_job(run)
    trainer = Trainer(job.recipe, job.info, job.train, Runtime(device="cpu"), run, job.header())
    batch = {side: torch.zeros(2, 3, 32, 32) for side in "ab"}
    counts, before, names = [0, 0], peak(), sorted(tensors)
    for i in range(60):
        other = dict(tensors)
        if i % 2:
            name, another = (names[int(g.integers(len(names)))] for _ in range(2))
            match int(g.integers(4)):
                case 0:
                    del other[name]
                case 1:
                    other[f"{name.rpartition('.')[0]}.{int(g.integers(99))}"] = other.pop(name)
                case 2:
                    other[name] = tensors[another].clone()
                case 3:
                    other[name] = torch.zeros(3, 7, dtype=torch.int16)
        checkpoint.save(last, other, header if i % 2 else mutated(header, g))
        was_refused = refused(trainer.restore)
        counts[was_refused] += 1
        if not was_refused:
            trainer.advance(batch)
    assert min(counts) >= 1, counts     # Nearly all of a state is needed.
    assert peak() - before < MEMORY


def test_mutated_configs_are_refused_or_harmless(run: RunFolder) -> None:
    """60 of them: a run is continued as it was, or not at all."""
    g, config, counts = np.random.default_rng(9), run.read_config(), [0, 0]
    before = peak()

    def reopened() -> None:
        job = resuming.reopen_job(run)
        memory_estimate(job)

    for _ in range(60):
        run.config.write_text(json.dumps(mutated(config, g)))
        counts[refused(reopened)] += 1
    assert min(counts) > 5, counts
    assert peak() - before < MEMORY


@pytest.mark.parametrize("text", ["", "[" * 10**5, "{}", "[]", "null", '{"recipe": 3}', "\0", '{"recipe": {"name": "pix2pix", "settings": {"lambda_l1": NaN}}}',
                                  '{"train": ' + "9" * 5000 + "}"])
def test_a_file_that_is_no_config_is_refused_in_one_line(run: RunFolder, i2i: Run, text: str) -> None:
    run.config.write_text(text)
    for words in (("train", "--resume", run.path), ("report", run.path)):
        result = i2i(*words)
        assert "Traceback" not in result.err
        assert result.code in (0, 1, 2)
    assert i2i("train", "--resume", run.path).code == 2


LINES = ('{"images": "many"}', '{"images": 1e400}', '{"images": -5}', '{"images": 8, "scores": 3, "seconds": "x", "each": null}', '{"images": 8, "images_per_second": "fast"}',
         "[" * 10**5, "\0\0", '{"images": 8, "detection": "5"}', '{"images": 8, "b": {"spread": "x"}, "detection": {"sentence": 1}}', '{"images": 8, "d": NaN}', '{"images": true}',
         '{"images": 8, "file": 7, "reason": []}', "{}", "null", "9" * 5000)


def test_foreign_log_lines_do_not_disturb_a_run(run: RunFolder, trained: Path, i2i: Run) -> None:
    """What is no line of a log is dropped when the run goes on; what is worth a sentence is not lost."""
    run.states()[-1].unlink()
    for path in (run.log, run.speed, run.metrics, run.skipped, run.collapse):
        with open(path, "ab") as file:
            file.write(b"\xff\xfe\n" + "\n".join(LINES).encode() + b"\n")
    (run.path / "pairs.json").write_text("[" * 10**5)
    run.verdict.write_text('{"sentence": 3, "warnings": [[]]}')
    assert i2i("report", run.path).code in (0, 1)
    result = i2i("train", "--resume", run.path, "--device", "cpu")
    assert result.code == 0, result.err
    (run.path / "report.html").unlink(missing_ok=True)
    assert_same(trained, run.path)
    assert [log.read(path) for path in (run.skipped, run.metrics)] == [[], []]


@pytest.mark.parametrize(("text", "words"), [
    ('{"labels": [["0.png", 10000000000]]}', "a whole number from 0 to 99999"), ("[" * 10**5, "cannot be read"), ('{"labels": [["0.png", 1e400]]}', "a whole number"),
    ('{"labels": {"0.png": ' + "9" * 5000 + "}}", "cannot be read"), ('{"labels": [["0.png", NaN]]}', "a whole number"), ("\0", "cannot be read")])
def test_malformed_labels_are_refused(strips: Path, text: str, words: str) -> None:
    (strips / "train" / LABELS).write_text(text)
    with pytest.raises(RequestError, match=words) as error:
        build("dataset", Spec("images"), open_source(strips / "train"), "ab")
    assert len(str(error.value)) < 400


def test_a_model_that_asks_for_data_elsewhere(trained: Path, tmp_path: Path, i2i: Run) -> None:
    tensors, header = checkpoint.load(trained / "model.safetensors", "model")
    for name, value in (("data", ["x"]), ("data", "\0"), ("direction", 3), ("classes", "red"), ("formats", {"a": {}, "b": {"dtype": "object"}})):
        checkpoint.save(tmp_path / "x.safetensors", tensors, header | {name: value})
        result = i2i("evaluate", tmp_path / "x.safetensors")
        assert (result.code, "does not hold the model" in result.line) == (2, True), name
    assert package.load(trained)
