"""Are these inputs like those that the model was trained on?  Distances to these by a feature network."""

from collections.abc import Callable

import numpy as np

from i2i.data.transforms import resize
from i2i.evaluation.audit_answers import Answer, answer, not_tested
from i2i.evaluation.audit_images import Audited, Side
from i2i.images.convert import make_grid, middle_square
from i2i.images.format import Array
from i2i.metrics.feature_networks import FeatureExtractor
from i2i.metrics.intervals import proportion_interval
from i2i.metrics.precision_recall import nearest_neighbors

NAME, QUESTION = "inputs", "Are its inputs like those it was trained on?"
MAX_TRAINING = 500          # Training inputs that are compared with, evenly spaced.
USUAL = 0.95                # Of training inputs, whose distance to the nearest other one is usual.
LIMIT = 0.15                # Share of inputs that are farther away; 1 - USUAL are by chance.
BATCH = 32
SIDE, SHOWN = 96, 4


def judge_inputs(audited: Audited, train: Side | None, judge: FeatureExtractor,
                 progress: Callable[[int, int], None]) -> Answer:
    """Whether the sources are as near to training inputs as these are to each other."""
    if train is None or len(train) < 20:
        why = "it is not known where they are" if train is None else f"there are {len(train)}, not 20"
        return not_tested(NAME, QUESTION, f"Not tested: inputs are compared with training inputs, and {why}.",
                          "Give --train with the data that the model was trained on.")
    train = train.take(MAX_TRAINING)
    sources = audited.sides.sources
    total = len(train) + len(sources)
    known = _features(train, judge, lambda done: progress(done, total))
    features = _features(sources, judge, lambda done: progress(len(train) + done, total))
    usual, _ = nearest_neighbors(known, known, exclude=np.arange(len(known)))
    distances, nearest = nearest_neighbors(features, known)
    threshold = float(np.quantile(usual, USUAL, method="higher"))
    strange = distances > threshold
    share = float(strange.mean())
    order = np.argsort(-distances)[:SHOWN].tolist()
    names = ", ".join(sources.names[i] for i in order[:3] if strange[i])
    return answer(
        NAME, QUESTION, (share, *proportion_interval(share, len(sources))), LIMIT, len(sources),
        finding=f"{int(strange.sum())} of {len(sources)} inputs are farther from their nearest training "
                f"input, by {judge.name}, than {USUAL:.0%} of training inputs are from the nearest other one"
                + (f", such as {names}." if names else "."),
        red="The model was not trained for these: look at the farthest ones on the sheet, prepare inputs as "
            "the training images were (size, background, channels), or train on such images.",
        table=[{"input": sources.names[i], "nearest training input": train.names[int(nearest[i])],
                "distance, of the usual": float(distances[i] / max(threshold, 1e-12))} for i in order],
        picture=make_grid([[_square(sources.rgb(i)), _square(train.rgb(int(nearest[i])))] for i in order]),
        caption="The farthest inputs, and the training inputs nearest to them.")


def _features(side: Side, judge: FeatureExtractor, progress: Callable[[int], None]) -> Array:
    found = []
    for start in range(0, len(side), BATCH):
        chosen = range(start, min(start + BATCH, len(side)))
        found.append(judge.extract([side.rgb(i) for i in chosen])[0].numpy())
        progress(chosen.stop)
    return np.concatenate(found)


def _square(image: Array) -> Array:
    """The middle square of an image for a sheet, by nearest pixels."""
    return resize(middle_square(image), (SIDE, SIDE), "nearest")
