"""What a figure was measured by.  Two figures are comparable only if all of it is the same, but for the fakes
themselves."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from i2i.data.image_set import ImageSetFacts
from i2i.errors import RequestError
from i2i.metrics.set_metrics import Figure

# Images below which a Fréchet distance is mostly bias, and below which it is still much of it.
FEW, SOME = 2048, 10_000
QUANTIZED = "uint8"
CONVERTED = "gray repeated to three channels; alpha over white; 16 bits as 8-bit levels; of many channels the first three, in metrics of pairs all"
LIBRARIES = ("numpy", "pillow", "torch", "timm")


@dataclass(frozen=True)
class Stamp:
    """The protocol of a result.  Everything here is compared; versions and the fakes' own hash stand beside
    it."""

    features: str
    weights: str                        # sha256 of the feature network's file.
    resize: str
    quantized: str
    channels: str
    n_fake: int
    n_real: int
    real: str                           # Hash of the reference set's files.
    real_formats: tuple[str, ...]
    fake_formats: tuple[str, ...]
    metrics: Mapping[str, Any]          # Name -> options, defaults included.
    seed: int
    bootstrap: int


def versions() -> dict[str, str]:
    """What ran: recorded, and not compared, since digits that depend on it are far below any interval."""
    import i2i
    return {"i2i": i2i.__version__, "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES}}


def warnings(fake: ImageSetFacts, real: ImageSetFacts) -> list[str]:
    """What a reader of the figures has to know about the two sets of files."""
    out = []
    few = min(fake.n, real.n)
    if few < SOME:
        limit, words = (FEW, "is mostly bias of the sample size") if few < FEW else (SOME,
                                                                                     "still has a visible bias")
        out.append(f"{few:,} images: below {limit:,} a Fréchet distance {words}; compare it at equal n only, "
                   "or take kid (unbiased) and fd_infinity (--metrics kid,fd_infinity)")
    if set(fake.formats) != set(real.formats) and (fake.lossy or real.lossy):
        out.append(f"fakes are {_named(fake)} and reals {_named(real)}: a lossy format on one side moves the "
                   "distance; save fakes as PNG")
    if list(fake.sizes) != list(real.sizes):
        out.append(f"fakes are {_largest(fake.sizes)} and reals {_largest(real.sizes)}: what the resize does "
                   "differs between them")
    for name, facts in (("fakes", fake), ("reals", real)):
        if facts.alpha:
            out.append(f"{facts.alpha} of {facts.n} {name} have alpha: laid over white")
        if facts.gray:
            out.append(f"{facts.gray} of {facts.n} {name} are gray: repeated to three channels")
    return out


def _named(facts: ImageSetFacts) -> str:
    return " and ".join(facts.formats)


def _largest(sizes: Mapping[str, int]) -> str:
    first = next(iter(sizes))
    return first if len(sizes) == 1 else f"{first} and {len(sizes) - 1} other sizes"


def result(figures: Mapping[str, Figure], stamp: Stamp, fake: ImageSetFacts, told: list[str]) -> dict[str,
                                                                                                      Any]:
    """The JSON of an evaluation."""
    return {"results": {name: {key: value for key,
                               value in asdict(figure).items() if value not in (None, "")} for name,
                        figure in figures.items()},
            "interval": "95 %, normal, bootstrap standard error" if stamp.bootstrap > 1 else None,
            "stamp": json.loads(json.dumps(asdict(stamp))), "fakes": asdict(fake), "versions": versions(),
            "warnings": told}


def text(data: Any) -> str:
    """JSON that every reader accepts: not-a-number becomes null."""
    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(path: Path) -> dict[str, Any]:
    """An earlier result.  RequestError if the file is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise RequestError(f"{path} is not JSON") from None
    if not isinstance(data, dict) or not isinstance(data.get("stamp"),
                                                    dict) or not isinstance(data.get("results"), dict):
        raise RequestError(f"{path} is not a result of i2i evaluate --json: it has no stamp")
    return data


def check_comparable(new: Mapping[str, Any], old: Mapping[str, Any], name: str) -> None:
    """RequestError names every field in which the stamps of two results differ; of metrics, those that both
    have are compared."""
    a, b = dict(new["stamp"]), dict(old["stamp"])
    ours, theirs = a.pop("metrics", {}), b.pop("metrics", {})
    both = ours.keys() & theirs.keys()
    if not both:
        raise RequestError(f"not comparable with {name}: it has {', '.join(theirs)}, and this "
                           f"{', '.join(ours)}")
    a |= {f"{metric}.{key}": value for metric in both for key, value in ours[metric].items()}
    b |= {f"{metric}.{key}": value for metric in both for key, value in theirs[metric].items()}
    differing = [f"{key} is {_short(a.get(key))} here and {_short(b.get(key))} there"
                 for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    if differing:
        raise RequestError(f"not comparable with {name}: " + "; ".join(differing))


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    words = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return words if len(words) <= 40 else words[:12] + "…"
