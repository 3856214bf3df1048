"""What to measure and how: the choice of metrics, of their options and of the feature network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from i2i.config import parse
from i2i.data.sharding import ProcessGroup, SingleProcess
from i2i.errors import RequestError
from i2i.metrics import feature_networks, judges, paired, set_metrics, weights  # noqa: F401 - registers.
from i2i.metrics.feature_networks import FeatureExtractor
from i2i.registry import Spec, lookup, names, schema, suggest

FID_ALIASES = {"fid": "fd", "fid_infinity": "fd_infinity"}     # Names that mean the FID Inception.
DEFAULT_SET_METRICS = ("fd", "kid", "precision_recall", "density_coverage", "diversity", "color")
DEFAULT_MODEL_METRICS = ("l1", "psnr", "ssim", "ms_ssim", "fd")
Progress = Callable[[str, int, int], None]      # Stage, images done, images in total.


@dataclass(frozen=True)
class EvaluationRequest:
    """What to measure and how."""

    metrics: tuple[Spec, ...]       # With all their options.
    explicit: bool                  # The user named them, so one that cannot be computed is an error.
    seed: int = 0                   # Of subsets and of parts for intervals.
    bootstrap: int = 20             # How often a metric is computed for its interval, 0 for none.
    batch_size: int = 32
    cache: bool = True              # Keep the features of the reference set in the user's cache.
    weights: Path | None = None     # A weights file, or a folder of them.
    warnings: tuple[str, ...] = ()  # Of the choices above, for the result.
    progress: Progress = field(default=lambda stage, done, total: None, compare=False)
    # Processes that share the work; only the main one gets results.
    group: ProcessGroup = field(default_factory=SingleProcess, compare=False)

    def find_weights(self, name: str) -> Path:
        """A weights file of the catalog, first looked for in a folder given as `weights`."""
        return weights.find_weights(name, self.weights if self.weights and self.weights.is_dir() else None)


def metric_kind(name: str) -> str:
    """Whether a metric is of sets (`metric`) or of pairs (`paired_metric`)."""
    return "metric" if name in names("metric") else "paired_metric"


def choose_metrics(listed: str | None, options: Sequence[str], default: Sequence[str],
                   features: str) -> tuple[Spec, ...]:
    """Parse the metrics of a request, with all their options.

    Args:
        listed: names separated by commas, or None for the default.
        options: METRIC.OPTION=VALUE overrides such as `kid.subsets=50`.
        default: names of the metrics if none are listed.
        features: name of the feature network.
    """
    known = [*names("metric"), *names("paired_metric"), *FID_ALIASES]
    chosen: dict[str, dict[str, Any]] = {}
    for name in [each.strip() for each in listed.split(",")] if listed else default:
        if name not in known:
            raise RequestError(f"--metrics: no metric is called {name!r}; {suggest(name, known)}")
        if name in FID_ALIASES and features != "inception":
            raise RequestError(f"--metrics {name} is of the FID Inception, and the features are {features}: "
                               f"use {FID_ALIASES[name]}, or --features inception")
        name = FID_ALIASES.get(name, name)
        chosen[name] = {key: option.default for key, option in schema(metric_kind(name), name).items()}
    for override in options:
        key, equals, text = override.partition("=")
        name, _, option = key.partition(".")
        if not equals or name not in chosen:
            raise RequestError(f"--set {override} is not METRIC.OPTION=VALUE of a chosen metric; chosen: "
                               f"{', '.join(chosen)}")
        accepted = schema(metric_kind(name), name)
        if option not in accepted:
            raise RequestError(f"metric {name!r} has no option {option!r}; {suggest(option, accepted)}")
        chosen[name][option] = parse(key, text, accepted[option].type)
    return tuple(Spec(name, values) for name, values in chosen.items())


def networks_of_pairs(metrics: Sequence[Spec]) -> dict[str, str]:
    """The networks by which LPIPS, if it is among the metrics, compares images: name, sha256."""
    used = [paired.LPIPS_BACKBONES[spec.options["net"]] for spec in metrics if spec.name == "lpips"]
    return {name: weights.catalog_entry(name).sha256 for name in used}


def choose_features(listed: str | None, weights_path: Path | None, resize: str, device: str = "cpu",
                    trained_with: Mapping[str, str] = MappingProxyType({})) -> list[FeatureExtractor]:
    """Load the feature networks that judge; RequestError if a name is unknown or weights are absent.

    Args:
        listed: feature networks, separated by commas; by default `judges.default_judges`.
        weights_path: the weights file of the first, or a folder of them.
        resize: name of the resize mode.
        device: where the networks run.
        trained_with: networks that the model was trained with, which do not judge unless they are listed.
    """
    lookup("resize", resize)
    file = weights_path if weights_path is not None and not weights_path.is_dir() else None
    if listed is not None:
        chosen = [name.strip() for name in listed.split(",")]
    elif file is None:
        chosen = judges.default_judges(trained_with, weights_path)
    else:
        lite0 = weights.catalog_entry("efficientnet-lite0").sha256
        inception = not file.is_file() or weights.sha256(file) != lite0
        chosen = ["inception" if inception else "efficientnet-lite0"]
    known = [*names("feature_network"), "timm:NAME"]
    for name in chosen:
        if name.partition(":")[0] not in known:
            raise RequestError(f"--features {name} is not known; {suggest(name, known)}")
    places = [weights_path, *(weights_path if file is None else None for _ in chosen[1:])]
    return [feature_networks.load_extractor(name, place, resize=resize, device=device)
            for name, place in zip(dict.fromkeys(chosen), places, strict=False)]
