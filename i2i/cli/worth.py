"""i2i worth."""

import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from i2i.cli.options import NO_JSON, Device, Json, MaxPixels, Plugins, option
from i2i.cli.progress import ProgressBars
from i2i.errors import RequestError

BATCH = 64      # Images in an update.


Test = Annotated[str | None, option(
    "DIR|ZIP|NAME", "Labeled real images to test with; by default test or val of --real, else a quarter of "
                    "it.")]
Task = Annotated[str, option(
    "classify|translate", "translate: --fake translates --source, whose labels are carried along.")]
Sources = Annotated[str | None, option(
    "DIR|ZIP|NAME", "With --task translate: the labeled images that are translated.")]
Number = Annotated[int | None, option(
    "N", "How many images a model makes; by default what the largest ratio takes, up to 20,000.", "--n",
    "--number", min=1)]
Updates = Annotated[int, option(
    None, "Of every training; 0: 20 epochs of the real images, 1,000 to 3,000.", min=0)]
Size = Annotated[int | None, option(
    None, "Side that images are classified at; by default theirs, up to 64.", min=8)]


def worth(
    real: Annotated[str, option("DIR|ZIP|NAME", "Labeled real images, to train with.")],
    fake: Annotated[str, option("MODEL|DIR|ZIP", "Labeled fakes, or a model that makes them.")],
    test: Test = None, task: Task = "classify", source: Sources = None,
    direction: Annotated[str, option("ab|ba", "Of the translation.")] = "ab",
    out: Annotated[str, option("DIR", "For trainings, results.json and worth.svg; continued.")] = "worth",
    n: Number = None,
    shares: Annotated[str, option("PERCENT,…", "Shares of the real images to train with.")] = "10,25,50,100",
    ratios: Annotated[str, option("RATIO,…", "Fakes for each real image.")] = "1/4,1/2,1,2,4",
    seeds: Annotated[int, option(None, "Trainings of each kind.", min=2)] = 5,
    updates: Updates = 0, size: Size = None,
    backbone: Annotated[str, option(
        "NAME", "efficientnet-lite0 with its ImageNet weights, or a timm architecture; by default a small "
                "network.")] = "",
    weights: Annotated[str | None, option("FILE", "What the backbone starts from.")] = None,
    seed: Annotated[int, option(None, "Of the images that a model makes, and of held-out ones.", min=0)] = 0,
    dry_run: Annotated[bool, option(None, "Print the plan and exit.", "--dry-run")] = False,
    max_pixels: MaxPixels = None, json_output: Json = NO_JSON, device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Train classifiers with and without fakes, and say whether these help on real test images."""
    from i2i.evaluation.worth import measure_worth
    from i2i.evaluation.worth_fakes import FakeRequest
    from i2i.evaluation.worth_preparation import Preparation, describe_plan
    from i2i.evaluation.worth_trainings import Comparison
    from i2i.inference.device import best_device
    folder = _check_out(out)
    parts = _numbers("--shares", shares, 100), _numbers("--ratios", ratios, 100)
    request = FakeRequest(fake, task, source, direction, n, seed, device, max_pixels)
    model = request.open_model()
    with ProgressBars() as bars:
        prepared = Preparation(real, test, request, model, size=size, progress=bars.update)
        schedule = _schedule(len(prepared.real), updates, backbone, weights, str(best_device(device)))
        comparison = Comparison(schedule, tuple(map(float, parts[0])), parts[1], seeds, bars.update)
        plan = prepared.plan(comparison)
        print(describe_plan(plan))
        if dry_run:
            return json_output.write(plan)
        sets = prepared.sets(float(max(parts[1])), folder)
        outcome = measure_worth(sets, comparison, folder, task=task, warnings=prepared.warnings)
    _report(outcome, folder)
    json_output.write(outcome)


def _report(outcome: dict[str, Any], folder: Path) -> None:
    """Print the result and write its files."""
    from i2i.evaluation.worth import describe
    from i2i.evaluation.worth_plot import plot
    from i2i.files import to_json, write_text
    for line in describe(outcome):
        print(line)
    for line in outcome["warnings"]:
        print(f"warning: {line}", file=sys.stderr)
    write_text(folder / "results.json", to_json(outcome))
    write_text(folder / "worth.svg", plot(outcome))
    print(f"-> {folder / 'results.json'}, {folder / 'worth.svg'}")


def _check_out(out: str) -> Path:
    from i2i.data.sources import check_local
    from i2i.files import check_file
    check_local("--out", out)
    folder = Path(out)
    check_file("--out", str(folder / "results.json"))
    return folder


def _numbers(flag: str, text: str, most: int) -> tuple[Fraction, ...]:
    """Numbers such as 10 or 1/4, each once."""
    try:
        found = tuple(Fraction(each.strip()) for each in text.split(","))
    except (ValueError, ZeroDivisionError):
        found = ()
    if not found or len(set(found)) < len(found) or not all(0 < each <= most for each in found):
        raise RequestError(f"{flag} {text} cannot be used; accepted: numbers above 0 and up to {most}, each "
                           "once, such as 1/4,1,4")
    return found


def _schedule(images: int, updates: int, backbone: str, weights: str | None, device: str) -> Any:
    from i2i.evaluation.worth_classifier import Schedule
    from i2i.metrics.networks.timm_models import check_backbone
    if weights and not backbone:
        raise RequestError(f"--weights {weights} is for --backbone NAME")
    if weights and not Path(weights).is_file():
        raise RequestError(f"--weights {weights} does not exist")
    if backbone:
        check_backbone(backbone)
    return Schedule(updates or min(3000, max(1000, 20 * images // BATCH)), BATCH, backbone,
                    Path(weights) if weights else None, device)
