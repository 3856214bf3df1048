"""Mean and covariance of a reference set's features in a file, as pytorch-fid and clean-fid keep them: `mu`
(D,) and `sigma` (D, D) in a NumPy archive.  Ours also says of which images and of which network."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from i2i.data.image_set import ImageSetFacts
from i2i.data.sources import fetched, is_url
from i2i.errors import RequestError
from i2i.files import write_atomically
from i2i.images.format import Array
from i2i.metrics.feature_networks import FeatureExtractor
from i2i.metrics.frechet import Gaussian
from i2i.metrics.set_metrics import SetFeatures, StoredFeatures

METRICS = ("fd",)       # Computed by default.
KEYS = ("features", "weights", "resize")        # What decides features.


@dataclass(frozen=True)
class StoredStatistics:
    """The statistics in a file, the facts of the images, and `protocol`: what decided their features, {} if
    the file does not say it."""

    where: str
    mean: Array
    covariance: Array
    facts: ImageSetFacts
    protocol: dict[str, str]

    @property
    def network(self) -> str:
        """The feature network; that of pytorch-fid and clean-fid unless the file says another."""
        return self.protocol.get("features", "inception")

    def warnings(self, resize: str) -> tuple[str, ...]:
        """What a reader of scores has to know about the file."""
        return () if self.protocol else (
            f"{self.where} does not say how its images were resized; here {resize}: pytorch-fid's are "
            "legacy-pytorch, clean-fid's clean or, in mode legacy_tensorflow, legacy-tf (--resize)",)

    def check(self, judges: Sequence[FeatureExtractor]) -> None:
        """RequestError if the features are not those of the networks that judge."""
        for judge in judges:
            ours = dict(zip(KEYS, (judge.name, judge.weights, judge.resize), strict=True))
            for key in KEYS:
                if self.protocol.get(key, ours[key]) != ours[key]:
                    raise RequestError(f"--real {self.where} does not fit: {key} is "
                                       f"{self.protocol[key][:40]} there and {ours[key][:40]} here")
            if len(self.mean) != judge.num_features:
                raise RequestError(f"--real {self.where} does not fit: it holds {len(self.mean):,} features, "
                                   f"and {judge.name} has {judge.num_features:,}")

    def features_of(self, judge: FeatureExtractor) -> SetFeatures:
        """The set as metrics see it."""
        self.check([judge])
        return StoredFeatures(Gaussian.from_moments(self.mean, self.covariance, self.facts.n), self.where)


def read_statistics(where: str) -> StoredStatistics | None:
    """The statistics in a file; None if it is something else.  RequestError if they cannot be used."""
    if Path(where).suffix.lower() != ".npz" or not (is_url(where) or Path(where).is_file()):
        return None
    file = fetched(where) if is_url(where) else where
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if not {"mu", "sigma"} <= set(arrays.files):
                return None
            mean, covariance = (np.asarray(arrays[key], np.float64) for key in ("mu", "sigma"))
            ours = json.loads(str(arrays["i2i"])) if "i2i" in arrays.files else {}
            facts = ImageSetFacts(**ours.pop("facts")) if ours else ImageSetFacts(
                0, hashlib.sha256(mean.tobytes() + covariance.tobytes()).hexdigest())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile,
            zlib.error) as error:
        raise RequestError(f"--real {where} cannot be read: {error}") from None
    if mean.ndim != 1 or not mean.size or covariance.shape != (mean.size, mean.size):
        raise RequestError(f"--real {where}: mu is {mean.shape} and sigma {covariance.shape}; accepted: (D,) "
                           "and (D, D)")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise RequestError(f"--real {where}: mu or sigma holds NaN or infinity")
    return StoredStatistics(where, mean, covariance, facts, ours)


def write_statistics(file: Path, found: SetFeatures, facts: ImageSetFacts, judge: FeatureExtractor) -> None:
    """Write the statistics of a set's features atomically.  JobError if that fails."""
    ours = dict(zip(KEYS, (judge.name, judge.weights, judge.resize), strict=True))
    gaussian = found.gaussian

    def save(part: Path) -> None:
        with open(part, "wb") as out:
            np.savez(out, mu=gaussian.mean, sigma=gaussian.root.T @ gaussian.root,
                     i2i=np.array(json.dumps({**ours, "facts": asdict(facts)})))

    write_atomically(file, save)
