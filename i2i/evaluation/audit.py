"""What does a translator hide, change or not stand?  Questions, each with a traffic light."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from i2i.config import VERSION
from i2i.errors import printable
from i2i.evaluation.audit_answers import LIGHTS, Answer, worst_light
from i2i.evaluation.audit_content import judge_colors, judge_edges, judge_inversion, judge_layout
from i2i.evaluation.audit_hidden import find_hidden
from i2i.evaluation.audit_images import MAX_SIDE, Side, Sides, translate_sides
from i2i.evaluation.audit_inputs import judge_inputs
from i2i.evaluation.audit_stability import judge_batch, judge_noise, judge_shift
from i2i.evaluation.request import EvaluationRequest
from i2i.inference.model import Model
from i2i.metrics.feature_networks import FeatureExtractor, frozen_network

INTERVAL = ("95 %, for these images and this model: Student's t, of ratios by linearization, of "
            "shares Wilson's; of colors for four comparisons")


@dataclass(frozen=True)
class Audit:
    """The answers, and what they were found with."""

    answers: tuple[Answer, ...]
    facts: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def light(self) -> str:
        """The worst light."""
        return worst_light(self.answers)

    def outcome(self) -> dict[str, Any]:
        """As JSON data, without pictures."""
        answers = [{key: value for key, value in asdict(each).items() if key not in ("picture", "caption")}
                   for each in self.answers]
        return self.facts | {"light": self.light, "interval": INTERVAL, "answers": answers,
                             "warnings": list(self.warnings)}


def audit(model: Model, sides: Sides, judges: Sequence[FeatureExtractor], request: EvaluationRequest, *,
          n: int = 64, direction: str = "ab", train: Side | None = None) -> Audit:
    """Ask all questions of a translator.

    Args:
        sides: the sources, and images of the target side if there are any.
        judges: feature networks; the first compares inputs, the first with feature maps layouts.
        request: seed and progress.
        n: how many sources at most, evenly spaced.
        train: the sources that the model was trained on.

    Raises:
        RequestError: if the model makes images from noise or does not translate that way, or there are
            too few images.
        JobError: if an image cannot be read.
    """
    model.sides(direction)
    stage = partial(partial, request.progress)
    audited = translate_sides(model, sides, n, direction, stage("translated"))
    layout = next((judge.name for judge in judges if frozen_network(judge.name).layers), "random")
    answers = (
        find_hidden(audited, request.seed, stage("changed")), judge_colors(audited), judge_inversion(audited),
        judge_edges(audited), judge_layout(audited, layout),
        judge_inputs(audited, train, judges[0], stage(f"{judges[0].name}: inputs")),
        judge_shift(audited), judge_noise(audited, request.seed), judge_batch(audited))
    larger = sum(max(side.shape[-2:]) == MAX_SIDE for side in audited.sources)
    notes = [f"of {larger} of {len(audited)} images, at least {MAX_SIDE} pixels on a side, the middle was "
             "audited"] if larger else []
    converted = [printable(line) for name in ("sources", "targets") if (side := getattr(sides, name))
                 for line in side.converted.lines(name)]
    facts = {"recipe": model.header["recipe"]["name"], "images": model.header.get("images"),
             "direction": direction, "split": sides.split, "n": len(audited), "targets": len(audited.targets),
             "paired": sides.paired, "judges": {judge.name: judge.weights for judge in judges},
             "seed": request.seed, "i2i": VERSION}
    return Audit(answers, facts, (*request.warnings, *sides.notes, *notes, *converted))


def fails(light: str, limit: str) -> bool:
    """Whether a light is as bad as a limit, or worse."""
    return light in LIGHTS[:3] and LIGHTS.index(light) >= LIGHTS.index(limit)
