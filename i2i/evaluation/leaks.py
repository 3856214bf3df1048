"""Does a model leak its training images?  Copies and memorization, beside the same of held-out images."""

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, NamedTuple, cast

import numpy as np

from i2i.data.image_set import ImageSet, ImageSetFacts
from i2i.evaluation import protocol
from i2i.evaluation.evaluate_sets import left_out_warnings, make_stamp, request_features
from i2i.evaluation.feature_extraction import set_facts
from i2i.evaluation.leak_scores import leak_scores, sample, share_score
from i2i.evaluation.leak_sets import ENOUGH_FAKES, ScannedSet, check_numbers, scan, without_overlap
from i2i.evaluation.request import EvaluationRequest
from i2i.files import temporary_folder
from i2i.images.convert import make_grid
from i2i.images.format import Array
from i2i.metrics.copies import BATCH, MAX_DIFFERENCE, RARE, CopyFinder, Match, copy_threshold, thumbnail
from i2i.metrics.feature_networks import FeatureExtractor
from i2i.metrics.intervals import Z95
from i2i.metrics.set_metrics import Score, SetFeatures, slug

MAX_COMPARED = 10_000       # Fakes and held-out images whose features are compared; copies are sought in all.
LISTED, ACROSS = 24, 4      # Nearest pairs in the result and on the sheet, and how many in a row.
SHEET_SIDE, FRAME = 96, 4
INTERVAL = ("95 %, for these training images: Wilson's of shares, DeLong's of the area, of the gap by the "
            "deviation of likelihoods")


class Copies(NamedTuple):
    """What the fakes are copies of."""

    matches: list[tuple[int, Match]]        # Index of a fake, and what it resembles; the nearest first.
    threshold: float                        # Of distances; what lies below it is a copy.
    chance: float                           # The share of images not seen in training that lie below it.
    score: Score
    held_out: Score


class Leaks(NamedTuple):
    """The result as JSON data, and the copies."""

    outcome: dict[str, Any]
    copies: Copies


def find_leaks(train: ImageSet, fake: ImageSet, test: ImageSet | None, judges: Sequence[FeatureExtractor],
               request: EvaluationRequest) -> Leaks:
    """Find copies of training images among fakes, and measure memorization by feature networks.

    Args:
        train: the images that the model was trained on.
        fake: what it made.
        test: images of the same kind that it has not seen.
        judges: the feature networks.
        request: seed, batch size, cache and progress.

    Raises:
        RequestError: if there are too few images, or the held-out ones are training images.
    """
    check_numbers(train=train, fake=fake, test=test)
    warnings = list(request.warnings)
    with temporary_folder() as folder:
        scanned = {name: scan(images, folder / name, _stage(request, name, images))
                   for name, images in (("train", train), ("fake", fake), ("test", test)) if images}
        held_out = without_overlap(scanned["test"], scanned["train"], warnings.append) if test else None
        copies = find_copies(scanned["train"], scanned["fake"], held_out, request)
        warnings += _copy_warnings(copies, held_out)
        chosen = {"train": train, "fake": fake.take(sample(len(fake), MAX_COMPARED, request.seed))}
        if held_out:
            chosen["test"] = held_out.images.take(sample(len(held_out), MAX_COMPARED, request.seed))
        if len(chosen["fake"]) < len(fake):
            warnings.append(f"features of {MAX_COMPARED:,} of {len(fake):,} fakes are compared; all are "
                            "searched for copies")
        facts = {name: set_facts(images, batch_size=request.batch_size)
                 for name, images in (chosen | {"fake": fake}).items()}
        scores, others = {"copies": copies.score}, {"copies": copies.held_out}
        for judge in judges:
            notes = list[str]()
            features = _features(chosen, facts, judge, request, warnings.append)
            found = leak_scores(features["train"], features["fake"], features.get("test"), seed=request.seed,
                                warn=notes.append)
            warnings += [f"{judge.name}: {note}" for note in notes]
            for column, new in zip((scores, others), found, strict=True):
                column |= {f"{name}_{slug(judge.name)}": score for name, score in new.items()}
    warnings += [line.replace("reals", "training images") for line in
                 protocol.warnings(facts["fake"], facts["train"], {"leaks"})]
    warnings += left_out_warnings(*filter(None, (train, fake, test)))
    compared = facts.get("test")
    options = {"test": compared.content if compared else "none", "n_test": compared.n if compared else 0}
    stamp = make_stamp(facts["fake"], facts["train"], judges, {"leaks": options}, request.seed, 0)
    outcome = protocol.result(scores, stamp, facts["fake"], warnings)
    outcome |= {"interval": INTERVAL, "held_out": protocol.scores_as_data(others), "chance": copies.chance,
                "threshold": copies.threshold, "nearest": _nearest(copies, train, fake)}
    return Leaks(outcome, copies)


def _nearest(copies: Copies, train: ImageSet, fake: ImageSet) -> list[dict[str, Any]]:
    """All copies, and the nearest of the others if these are few, as JSON data."""
    listed = max(LISTED, sum(match.distance < copies.threshold for _, match in copies.matches))
    return [{"fake": fake.names[i], "train": train.names[match.index], "distance": match.distance,
             "how": str(match), "copy": match.distance < copies.threshold}
            for i, match in copies.matches[:listed]]


def _features(sets: Mapping[str, ImageSet], facts: Mapping[str, ImageSetFacts], judge: FeatureExtractor,
              request: EvaluationRequest, warn: Callable[[str], None]) -> dict[str, Array]:
    """The features of each set; all but those of fakes are kept for the next time."""
    found = {name: request_features(images, judge, request, f"{judge.name}: {name}",
                                    None if name == "fake" else facts[name], warn)
             for name, images in sets.items()}
    return {name: cast(SetFeatures, each).features for name, each in found.items()}


def _stage(request: EvaluationRequest, name: str, images: Sized) -> Callable[[int], None]:
    return lambda done: request.progress(name, done, len(images))


def find_copies(train: ScannedSet, fake: ScannedSet, held_out: ScannedSet | None,
                request: EvaluationRequest) -> Copies:
    """Find the training image that each fake is most nearly a copy of, and what counts as a copy.

    Without held-out images, training images are compared with the others.
    """
    finder = CopyFinder(train.thumbnails)
    own = sample(len(train), MAX_COMPARED, request.seed)
    reference = held_out or train.take(own)

    def search(stage: str, images: ScannedSet, exclude: Array | None = None) -> list[Match]:
        found: list[Match] = []
        for i in range(0, len(images), BATCH):
            found += finder.find(np.asarray(images.thumbnails[i:i + BATCH]),
                                 None if exclude is None else exclude[i:i + BATCH])
            request.progress(stage, len(found), len(images))
        return found

    found = search("copies: held-out", reference, None if held_out else own)
    usual = np.array([match.distance for match in found])
    matches = search("copies: fakes", fake)
    threshold, chance = copy_threshold(usual, MAX_DIFFERENCE)
    score = share_score(np.array([match.distance for match in matches]) < threshold, "lower",
                        f"by chance {chance:.2g}")
    return Copies(sorted(enumerate(matches), key=lambda each: each[1].distance), threshold, chance, score,
                  share_score(usual < threshold))


def _copy_warnings(copies: Copies, held_out: ScannedSet | None) -> list[str]:
    """What there are too few images for, and how many would do."""
    warnings = []
    if held_out is None:
        warnings.append("there are no held-out images (--test DIR, or test/ in the training data): training "
                        "images compared with each other say what is near, and memorization short of copying "
                        "is not seen")
    if copies.chance > RARE:
        unseen = round(1 / copies.chance)
        warnings.append(f"{unseen - 1} {'held-out' if held_out else 'training'} images to compare with: 1 in "
                        f"{unseen} unseen images counts as a copy; 99 would make that 1 in 100")
    value, low, high = copies.score.value, copies.score.low or 0, copies.score.high or 1
    n = len(copies.matches)
    if not value and n < ENOUGH_FAKES:
        warnings.append(f"none of {n} fakes is a copy, but up to {high:.1%} of all may be; {ENOUGH_FAKES} "
                        "would bound that by 1 %")
    elif low <= copies.chance < value:
        enough = math.ceil(Z95**2 * value * (1 - value) / (value - copies.chance)**2)
        warnings.append(f"{value:.1%} of {n} fakes are copies and {copies.chance:.1%} are by chance: "
                        f"too few to see a difference; at the same shares {max(enough, n + 1):,} would do")
    return warnings


def describe_copies(outcome: dict[str, Any]) -> str:
    """How many fakes are copies, and whether that is more than by chance, as a sentence."""
    score, n, chance = outcome["results"]["copies"], outcome["stamp"]["n_fake"], outcome["chance"]
    copies, verdict = round(score["value"] * n), "more than" if score["low"] > chance else "no more than"
    return (f"{copies:,} of {n:,} fakes are copies of training images ({score['value']:.1%}, 95 % interval "
            f"{score['low']:.1%} … {score['high']:.1%}): {verdict} by chance, {chance:.1%}")


def pair_sheet(train: ImageSet, fake: ImageSet, copies: Copies) -> Array:
    """The fakes that are most nearly copies, each beside its training image; copies have a red frame."""
    tiles = []
    for i, match in copies.matches[:LISTED]:
        both = [thumbnail(fake.read(i), SHEET_SIDE), thumbnail(train.read(match.index), SHEET_SIDE)]
        tile = np.full((SHEET_SIDE + 2 * FRAME, 2 * SHEET_SIDE + 3 * FRAME, 3), 255, np.uint8)
        tile[:] = (220, 30, 30) if match.distance < copies.threshold else (235, 235, 235)
        for k, image in enumerate(both):
            x = FRAME + k * (SHEET_SIDE + FRAME)
            tile[FRAME:-FRAME, x:x + SHEET_SIDE] = image
        tiles.append(tile)
    return make_grid([tiles[i:i + ACROSS] for i in range(0, len(tiles), ACROSS)], gap=8)
