"""The protocol stamp of a result, which must be equal for results to be comparable."""

import json
import platform
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import permutations
from pathlib import Path
from typing import Any

from i2i.config import VERSION
from i2i.data.image_set import ImageSetFacts
from i2i.errors import RequestError
from i2i.metrics.set_metrics import Score
from i2i.registry import names

# Below so many images a Fréchet distance is mostly bias, and below so many the bias is still visible.
MOSTLY_BIAS, VISIBLE_BIAS = 2048, 10_000
QUANTIZATION = "uint8"
CHANNELS = ("gray repeated to three channels; alpha over white; 16 bits as 8-bit levels; of many channels "
            "the first three, in metrics of pairs all")
FEATURE_FIELDS = {"features", "weights", "more_features", "resize"}
REFERENCE_FIELDS = {"n_real", "real", "real_formats"}
SEEDED_METRICS = {"fd_infinity", "diversity"}       # Whose values, not just their intervals, have a seed.
STRIP_HINT = "A|B strips? i2i evaluate MODEL --data DIR compares the halves of such"
INTERVAL = "95 %; Student's t for metrics of pairs, else by comparing random parts of both sets"


@dataclass(frozen=True)
class Stamp:
    """What the values of a result depend on, which must be equal in results that are compared."""

    features: str                   # Name of the feature network.
    weights: str                    # sha256 of its file.
    more_features: Mapping[str, str]        # Further feature networks: name, sha256.
    resize: str
    quantized: str
    channels: str                   # Treatment of gray, alpha, 16 bits and many channels.
    n_fake: int
    n_real: int
    real: str                       # Hash of the reference set's files.
    real_formats: tuple[str, ...]
    fake_formats: tuple[str, ...]
    metrics: Mapping[str, Any]      # Options by metric, defaults included.
    seed: int
    bootstrap: int


def unused_fields(metrics: Set[str]) -> set[str]:
    """The fields of a stamp on which no value of these metrics depends."""
    unused = {"bootstrap"}
    if not metrics & SEEDED_METRICS:
        unused |= {"seed"}
    if metrics <= {"color", *names("paired_metric")}:
        unused |= FEATURE_FIELDS
    return unused | REFERENCE_FIELDS if metrics <= {"is"} else unused


def warnings(fake: ImageSetFacts, real: ImageSetFacts, metrics: Set[str]) -> list[str]:
    """What a reader of the scores of these metrics of sets has to know about the two sets of files."""
    out, unused = list[str](), unused_fields(metrics)
    if not metrics:
        return out
    n = min(fake.n, real.n or fake.n)       # 0: of stored statistics that do not say it.
    if "fd" in metrics and n < VISIBLE_BIAS:
        limit, bias = ((MOSTLY_BIAS, "is mostly bias of the sample size") if n < MOSTLY_BIAS else
                       (VISIBLE_BIAS, "still has a visible bias"))
        out.append(f"{n:,} images: below {limit:,} a Fréchet distance {bias}; compare it at equal n only, "
                   "or take kid (unbiased) and fd_infinity (--metrics kid,fd_infinity)")
    formats_differ = bool(real.formats) and set(fake.formats) != set(real.formats)
    if "real" not in unused and formats_differ and (fake.lossy or real.lossy):
        out.append(f"fakes are {' and '.join(fake.formats)} and reals {' and '.join(real.formats)}: a lossy "
                   "format on one side moves the scores; save fakes as PNG")
    if not unused & {"real", "resize"} and real.sizes and list(fake.sizes) != list(real.sizes):
        out.append(f"fakes are {_describe_sizes(fake.sizes)} and reals {_describe_sizes(real.sizes)}: what "
                   "the resize does differs between them")
    for (wide, one), (narrow, other) in permutations((("fakes", fake), ("reals", real))):
        if "real" not in unused and {_doubled(size) for size in other.sizes} == set(one.sizes):
            out.append(f"{wide} are twice as wide as {narrow}: {STRIP_HINT}")
    for name, facts in (("fakes", fake), ("reals", real))[:1 if "real" in unused else 2]:
        if facts.alpha:
            out.append(f"{facts.alpha} of {facts.n} {name} have alpha: laid over white")
        if facts.gray:
            out.append(f"{facts.gray} of {facts.n} {name} are gray: repeated to three channels")
    return out


def color_warnings(fake: ImageSetFacts, real: ImageSetFacts) -> list[str]:
    """Which colors the sets have besides sRGB."""
    return [f"{count} of {facts.n} {name}: {note}"
            for name, facts in (("fakes", fake), ("reals", real)) for note, count in facts.colors.items()]


def _doubled(size: str) -> str:
    """WIDTHxHEIGHT with twice the width."""
    width, height = size.split("x")
    return f"{2 * int(width)}x{height}"


def _describe_sizes(sizes: Mapping[str, int]) -> str:
    first = next(iter(sizes))
    return first if len(sizes) == 1 else f"{first} and {len(sizes) - 1} other sizes"


def result(scores: Mapping[str, Score], stamp: Stamp, fake: ImageSetFacts,
           warnings: list[str]) -> dict[str, Any]:
    """The result of an evaluation as JSON data.  Versions are recorded, not compared."""
    versions = {"i2i": VERSION, "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("numpy", "pillow", "torch", "timm")}}
    return {"results": scores_as_data(scores),
            "interval": INTERVAL if any(score.low is not None for score in scores.values()) else None,
            "stamp": json.loads(json.dumps(asdict(stamp))), "fakes": asdict(fake), "versions": versions,
            "warnings": warnings}


def scores_as_data(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Scores as JSON data, without what they do not have."""
    return {name: {key: value for key, value in asdict(score).items() if value not in (None, "")}
            for name, score in scores.items()}


def read_result(path: Path) -> dict[str, Any]:
    """Read an earlier result.  RequestError if the file is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise RequestError(f"{path} is not JSON") from None
    if not isinstance(data, dict) or not all(isinstance(data.get(key), dict) for key in ("stamp", "results")):
        raise RequestError(f"{path} is not a result of i2i evaluate --json: it has no stamp")
    return data


def compare(new: Mapping[str, Any], old: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """The column of an earlier result, if there is one; RequestError if it cannot be compared."""
    if old is None:
        return {}
    check_comparable(new, old, name)
    return {"before": old["results"]}


def check_comparable(new: Mapping[str, Any], old: Mapping[str, Any], name: str) -> None:
    """RequestError naming all that differs in what decides the values that two results share."""
    a, b = dict(new["stamp"]), dict(old["stamp"])
    new_metrics, old_metrics = a.pop("metrics", {}), b.pop("metrics", {})
    shared = new_metrics.keys() & old_metrics.keys()
    if not shared:
        raise RequestError(f"not comparable with {name}: it has {', '.join(old_metrics)}, and this "
                           f"{', '.join(new_metrics)}")
    more = [stamp.get("more_features") or {} for stamp in (a, b)]
    for stamp, other in ((a, more[1]), (b, more[0])):      # Of those that both have, the weights must agree.
        stamp["more_features"] = {name: value for name, value in (stamp.get("more_features") or {}).items()
                                  if name in other}
    for stamp, metrics in ((a, new_metrics), (b, old_metrics)):
        stamp |= {f"{metric}.{key}": value for metric in shared for key, value in metrics[metric].items()}
    differing = [f"{key} is {_abbreviate(a.get(key))} here and {_abbreviate(b.get(key))} there"
                 for key in sorted((a.keys() | b.keys()) - unused_fields(shared)) if a.get(key) != b.get(key)]
    if differing:
        raise RequestError(f"not comparable with {name}: " + "; ".join(differing))


def _abbreviate(value: Any) -> str:
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:12] + "…"
