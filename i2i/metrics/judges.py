"""Which feature networks judge a model, and on which images: two that share nothing, none that it knows."""

import re
from collections.abc import Mapping
from pathlib import Path

from i2i.metrics.feature_networks import available_networks
from i2i.metrics.set_metrics import slug
from i2i.metrics.weights import catalog

# The first that is here, and that a model was not trained with, gives the scores without a network's name.
FIRST_JUDGES = ("inception", "efficientnet-lite0", "open-nsfw", "random")
SECOND_JUDGES = ("random", "open-nsfw")         # All of these give scores, too.
TRAINING_JUDGES = ("efficientnet-lite0", "open-nsfw", "random")     # The first while training.
TrainedWith = Mapping[str, str]         # Feature networks that a model was trained with: name, sha256.


def family(name: str) -> str:
    """The architecture of a feature network without its size: timm:tf_efficientnet_lite2 -> efficientnet."""
    found = re.match(r"(?:timm:)?(?:tf_)?([a-z]+)", name)
    return found[1] if found else name


def is_impartial(name: str, trained_with: TrainedWith) -> bool:
    """Whether a model was trained with no network of this family, nor with its weights by another name."""
    entry = catalog().get(name)
    return family(name) not in map(family, trained_with) and (
        entry is None or entry.sha256 not in trained_with.values())


def default_judges(trained_with: TrainedWith, folder: Path | None = None) -> list[str]:
    """The networks that judge where none are named; their weights may be in `folder`."""
    here = available_networks(folder)
    able = [name for name in FIRST_JUDGES if name in here and is_impartial(name, trained_with)]
    first = able[:1] or ["random"]
    return first + [name for name in SECOND_JUDGES if name in able and name not in first]


def training_judge(trained_with: TrainedWith) -> str:
    """The one network that judges a model while it is trained, when time is short."""
    able = [name for name in TRAINING_JUDGES if is_impartial(name, trained_with)]
    return next((name for name in able if name in available_networks()), (able or TRAINING_JUDGES)[0])


def second_judge(first: str, trained_with: TrainedWith) -> str | None:
    """The network that judges a trained model beside the first, whose name may be that of its scores."""
    return next((name for name in SECOND_JUDGES if slug(name) != slug(first)
                 and name in available_networks() and is_impartial(name, trained_with)), None)


def partiality_warnings(networks: Mapping[str, str], trained_with: TrainedWith) -> list[str]:
    """Warnings that judges, by name and sha256, are networks that a model was trained with, or like them."""
    found = []
    for name, weights in networks.items():
        same = name in trained_with or weights in trained_with.values()
        relatives = [name] if same else [each for each in trained_with if family(each) == family(name)]
        if relatives:
            like = "" if same else f", and {name} is of the same family"
            found.append(f"the model was trained with {', '.join(relatives)}{like}, which therefore sees "
                         "less of its faults than others do; by default it is judged by "
                         f"{', '.join(default_judges(trained_with))}")
    return found


def describe_selection(split: str, picked_on: str, *, has_val: bool) -> str:
    """Whether a model was trained on a split of its own data, picked by it, or neither.

    Args:
        split: that the model is evaluated on.
        picked_on: the split by which it was found the best of its run; "" for the last model.
        has_val: whether the data have a validation split.
    """
    if split == picked_on:
        return f"not held out: best is picked on {split}"
    if split in ("train", "val"):
        reason = "the model was trained on these" if split == "train" else "best is picked on val"
        return f"not held out: {reason}"
    if picked_on:
        return f"picked on {picked_on}, shown on {split} once"
    if has_val:
        return f"the last model of its run, not a picked one; shown on {split} once"
    return (f"the last model of its run, as there is no val split to pick one on; {split} is not held out "
            "once models are compared on it")
