"""Which feature networks judge a model: two that share nothing, and none that it was trained with."""

from collections.abc import Mapping
from pathlib import Path

from i2i.metrics.feature_networks import available_networks
from i2i.metrics.weights import catalog

# The first that is here, and that a model was not trained with, gives the scores without a network's name.
FIRST_JUDGES = ("inception", "efficientnet-lite0", "open-nsfw", "random")
SECOND_JUDGES = ("random", "open-nsfw")         # All of these give scores, too.
TRAINING_JUDGES = ("efficientnet-lite0", "open-nsfw", "random")     # The first while training.
TrainedWith = Mapping[str, str]         # Feature networks that a model was trained with: name, sha256.


def is_impartial(name: str, trained_with: TrainedWith) -> bool:
    """Whether a model was not trained with this network, by its name and by its weights."""
    entry = catalog().get(name)
    return name not in trained_with and (entry is None or entry.sha256 not in trained_with.values())


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


def partiality_warnings(names: list[str], trained_with: TrainedWith) -> list[str]:
    """Warnings that a judge is one of the networks that a model was trained with."""
    return [f"the model was trained with {name}, which therefore sees less of its faults than others do; by "
            f"default it is judged by {', '.join(default_judges(trained_with))}"
            for name in names if not is_impartial(name, trained_with)]
