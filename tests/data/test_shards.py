"""Tar and Parquet shards: the images, labels and pairs that are in them, read at random, and trainings by them."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from i2i.data.sources import Unreadable, open_source
from i2i.data.sources.shards import ParquetShards, TarShards
from i2i.errors import RequestError
from tests.conftest import SMALL, Run, drawing

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(index: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(drawing(index)[:, :32]).save(file, kind)
    return file.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def parquet(path: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None = None, rows: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = {name: pa.array([{"bytes": each, "path": None} for each in values], image) if isinstance(values[0], bytes) else pa.array(values)
              for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features or {}}})})
    pq.write_table(table, path, row_group_size=rows)
    return path


@pytest.fixture(params=["tar", "parquet"])
def labeled(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Ten images of two classes in two shards for training, and two in one for tests."""
    for shard, indices in (("train-00000", range(6)), ("train-00001", range(6, 10)), ("test-00000", range(10, 12))):
        path = tmp_path / "shards" / "data" / f"{shard}.{request.param}"
        if request.param == "tar":
            tar(path, {f"{i:06}.{end}": data for i in indices for end, data in (("png", png(i)), ("cls", b"%d" % (i % 2)), ("json", b"{}"))})
        else:
            parquet(path, {"image": [png(i) for i in indices], "label": [i % 2 for i in indices]}, {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}})
    (tmp_path / "shards" / "README.md").write_text("not an image")
    return tmp_path / "shards"


def test_shards_hold_images_labels_and_splits(labeled: Path) -> None:
    source = open_source(labeled)
    names = list(source.names())
    assert len(names) == 12
    assert sorted(map(source.read, names)) == sorted(map(png, range(12)))
    assert source.read(names[3], 8) == b"\x89PNG\r\n\x1a\n"
    manifest = source.manifest()
    assert manifest
    tared = isinstance(source, TarShards)
    assert manifest.classes == (("0", "1") if tared else ("cat", "dog"))
    for split, indices in (("train", range(10)), ("test", range(10, 12))):
        rows = manifest.splits[split]
        assert [source.read(name) for name in rows.a] == [png(i) for i in indices]
        assert rows.labels is not None
        assert rows.labels.tolist() == [i % 2 for i in indices]
    copy = pickle.loads(pickle.dumps(source))       # As spawned loader workers get it.
    assert [copy.read(name) for name in copy.names()] == [source.read(name) for name in names]
    assert source.identity(names[0]) != source.identity(names[1])
    with pytest.raises(Unreadable, match="there is no such image"):
        source.read("data/train-00000/nothing.png")
    single = open_source(next(labeled.glob("data/train-00001.*")))
    assert len(single.names()) == 4


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_two_images_of_a_sample_are_a_pair(kind: str, tmp_path: Path) -> None:
    if kind == "tar":
        tar(tmp_path / "x.tar", {f"deep/{i}.{side}": png(i + 10 * (side == "b.jpg"), "PNG" if side == "a.png" else "JPEG") for i in range(3) for side in ("a.png", "b.jpg")})
    else:
        parquet(tmp_path / "x.parquet", {"a": [png(i) for i in range(3)], "b": [png(i + 10, "JPEG") for i in range(3)]}, rows=2)
    source = open_source(tmp_path / f"x.{kind}")
    manifest = source.manifest()
    assert manifest
    rows = manifest.splits["train"]
    assert [source.read(name) for name in rows.a] == [png(i) for i in range(3)]
    assert [source.read(name) for name in rows.b] == [png(i + 10, "JPEG") for i in range(3)]
    assert all(name.endswith(".jpg") for name in rows.b)


def learned(run: Path) -> tuple[dict[str, bytes], bytes]:
    last = sorted(run.glob("state-*.safetensors"))[-1]
    return {name: value.tobytes() for name, value in load_file(last).items()}, (run / "log.jsonl").read_bytes()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_training_from_shards_is_that_from_files_and_resumes_exactly(kind: str, i2i: Run, tmp_path: Path) -> None:
    sides = {"a": [np.ascontiguousarray(drawing(i)[:, :32]) for i in range(12)], "b": [np.ascontiguousarray(drawing(i)[:, 32:]) for i in range(12)]}
    encoded: dict[str, list[bytes]] = {side: [] for side in sides}
    for side, images in sides.items():
        (tmp_path / "plain" / side).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(file := tmp_path / "plain" / side / f"{i:08}.png")
            encoded[side].append(file.read_bytes())
    (tmp_path / "plain" / "manifest.csv").write_text("a,b\n" + "".join(f"a/{i:08}.png,b/{i:08}.png\n" for i in range(12)))
    if kind == "tar":
        for start in (0, 6):
            tar(tmp_path / "data" / f"{start:02}.tar", {f"{i:08}.{side}.png": encoded[side][i] for i in range(start, start + 6) for side in "ab"})
    else:
        parquet(tmp_path / "data" / "all.parquet", dict(encoded))
    runs = {"files": 0, "workers": 2}
    for name, workers in runs.items():
        data = tmp_path / ("plain" if name == "files" else "data")
        done = i2i("train", "pix2pix", *SMALL, "train.images=12", f"train.num_workers={workers}", "--data", data, "--out", tmp_path / name, "--device", "cpu")
        assert done.code == 0, done.err
        assert learned(tmp_path / name) == learned(tmp_path / "files")
    sorted((tmp_path / "workers").glob("state-*"))[-1].unlink()
    assert i2i("train", "--resume", tmp_path / "workers", "--device", "cpu").code == 0
    assert learned(tmp_path / "workers") == learned(tmp_path / "files")


def test_what_is_wrong_with_a_shard_is_one_line_that_names_it(labeled: Path, i2i: Run, tmp_path: Path) -> None:
    shard = next(labeled.glob("data/train-00001.*"))
    whole = shard.read_bytes()
    for end in (len(whole) // 2, 700, 512, 0):
        shard.write_bytes(whole[:end])
        refused = i2i("data", "check", labeled)
        assert refused.code == 2
        assert f"{shard} cannot be read as" in refused.line
    shard.write_bytes(whole)
    source = open_source(labeled)
    assert isinstance(source, TarShards | ParquetShards)
    shard.write_bytes(whole[:100])      # After it was indexed.
    lost = [name for name in source.names() if "train-00001" in name]
    with pytest.raises(Unreadable, match="train-00001"):
        source.read(lost[-1])


def test_samples_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"sample 0: 2 images \(x, y\); accepted: one, or two called a and b"):
        open_source(tar(tmp_path / "x.tar", {"0.x.png": png(0), "0.y.png": png(1)}))
    with pytest.raises(RequestError, match="holds no images"):
        open_source(tar(tmp_path / "y.tar", {"0.txt": b"text"}))
    with pytest.raises(RequestError, match="0 images"):
        open_source(parquet(tmp_path / "z.parquet", {"label": [1, 2]}))
    parquet(tmp_path / "both" / "z.parquet", {"image": [png(0)]})
    tar(tmp_path / "both" / "x.tar", {"0.png": png(0)})
    with pytest.raises(RequestError, match="shards of two kinds"):
        open_source(tmp_path / "both")
