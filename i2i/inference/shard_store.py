"""Generated sets as WebDataset tar shards, or as Parquet in the layout of Hugging Face datasets."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from i2i.data.sharding import ProcessGroup, SingleProcess
from i2i.data.sources.shards import import_pyarrow
from i2i.errors import RequestError
from i2i.files import atomic_path, part_path
from i2i.inference.generation_plan import GenerationPlan
from i2i.inference.image_store import MANIFEST, PLAN, FolderStore, PackedStore, ZipStore, read_plan

SHARD_SIZE = 10_000         # Images in a shard.
ROW_GROUP = 100             # Rows held in memory; datasets writes as many for images.


class ShardStore(PackedStore):
    """A folder of shards, written as a folder `NAME.part` of images and packed when all are there."""

    def __init__(self, out: Path, plan: GenerationPlan, shard_size: int) -> None:
        self.shard_size = shard_size
        if out.suffix.lower() == ".zip" or out.is_file() or out.name in ("", ".."):
            raise RequestError(f"--layout {plan.layout} writes a new folder of shards; --out {out} is none")
        if plan.layout == "parquet":
            import_pyarrow()
        super().__init__(out, plan)

    def resume(self, n: int) -> None:
        if self.out.is_dir() and os.listdir(self.out):
            self.plan.check_same(read_plan(self.out), str(self.out))
            with open(self.out / MANIFEST, "rb") as manifest:
                self.count = sum(1 for _ in manifest)
            self.complete = n <= self.count
            if not self.complete:
                raise RequestError(f"{self.out} holds {self.count:,} images, and shards do not grow; choose "
                                   "another --out")
            return
        super().resume(n)

    def pack(self) -> None:
        packed = part_path(self.out, ".packed")
        shutil.rmtree(packed, ignore_errors=True)
        (packed / "data").mkdir(parents=True)
        starts = range(0, self.count, self.shard_size)
        for number, first in enumerate(starts):
            indices = range(first, min(self.count, first + self.shard_size))
            tar = self.plan.layout == "webdataset"
            name = f"train-{number:05}" + (".tar" if tar else f"-of-{len(starts):05}.parquet")
            with atomic_path(packed / "data" / name, sync=True) as part:
                (self._write_tar if tar else self._write_parquet)(part, indices)
        for name in (PLAN, MANIFEST):
            shutil.copyfile(self.folder / name, packed / name)
        if self.out.exists():
            self.out.rmdir()        # It is empty.
        os.replace(packed, self.out)

    def _write_tar(self, path: Path, indices: range) -> None:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for index in indices:
                label = self.plan.label(index)
                files = {self.plan.suffix[1:]: self.read(index), "json": self.plan.line(index).encode()}
                for ending, data in (files | ({} if label is None else {"cls": b"%d" % label})).items():
                    member = tarfile.TarInfo(f"{index:08}.{ending}")    # No date: equal sets, equal bytes.
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))

    def _write_parquet(self, path: Path, indices: range) -> None:
        pa = import_pyarrow()
        features: dict[str, Any] = {"image": {"_type": "Image"}}
        columns = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
        if self.plan.turn:
            features["label"] = {"names": self.plan.classes, "_type": "ClassLabel"}
            columns.append(("label", pa.int64()))
        schema = pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features}})})
        with pa.parquet.ParquetWriter(path, schema) as writer:
            for first in range(indices.start, indices.stop, ROW_GROUP):
                rows = range(first, min(indices.stop, first + ROW_GROUP))
                images = [{"bytes": self.read(i), "path": f"{i:08}{self.plan.suffix}"} for i in rows]
                values = [images, [self.plan.label(i) for i in rows]]
                writer.write_table(pa.table(dict(zip(schema.names, values, strict=False)), schema))


def open_store(out: str | Path, plan: GenerationPlan, n: int, group: ProcessGroup | None = None,
               shard_size: int = SHARD_SIZE) -> FolderStore:
    """Open a zip or folder for the first `n` images; RequestError if that cannot be, or is something else."""
    path, group = Path(out), group or SingleProcess()
    if plan.layout in ("webdataset", "parquet"):
        store: FolderStore = ShardStore(path, plan, shard_size)
    else:
        store = (ZipStore if path.suffix.lower() == ".zip" and not path.is_dir() else FolderStore)(path, plan)
    try:
        if not group.rank:
            store.resume(n)
    except RequestError:
        store.close()
        raise
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        store.close()
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"--out {out} cannot be written or continued: {reason}") from None
    store.count = group.broadcast(store.count)
    if isinstance(store, PackedStore):
        store.complete = group.broadcast(store.complete)
    return store
