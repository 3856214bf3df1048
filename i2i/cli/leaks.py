"""i2i leaks."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from i2i.cli.evaluate import Cache, Features, Weights, print_results
from i2i.cli.options import NO_JSON, Device, Json, MaxPixels, Plugins, option, output_option
from i2i.cli.progress import ProgressBars
from i2i.errors import RequestError


def leaks(
    train: Annotated[str, option("DIR|ZIP|NAME", "What the model was trained on.")],
    fake: Annotated[str, option("MODEL|DIR|ZIP", "What it made, or a model that makes images from noise.")],
    test: Annotated[str | None, option(
        "DIR|ZIP|NAME", "Images that it has not seen; by default test or val of --train.")] = None,
    n: Annotated[int | None, option(
        "N", "How many images a model makes; by default as many as it was trained on, 400 to 5,000.", "--n",
        "--number", min=1)] = None,
    sheet: Annotated[str | None, output_option(
        "FILE.png|URL", "Write an image of the nearest pairs, fakes on the left.")] = None,
    fail_over: Annotated[float | None, option(
        "SHARE", "Exit code 1 if more than this share of the fakes are copies, such as 0.02.",
        min=0, max=1)] = None,
    features: Features = None, weights: Weights = None, max_pixels: MaxPixels = None,
    batch: Annotated[int, option(None, "Images per batch.", min=1)] = 32,
    seed: Annotated[int, option(None, "Of the images that a model makes, and of random samples.", min=0)] = 0,
    cache: Cache = True, json_output: Json = NO_JSON, device: Device = "auto", plugin: Plugins = None,
) -> None:
    """Find copies of training images among fakes, and measure memorization beside that of held-out images."""
    from PIL import Image

    from i2i.evaluation import leaks as leaking
    from i2i.evaluation.leak_sets import number_generated, open_fakes, open_training_set
    from i2i.files import check_file, write_atomically
    check_file("--sheet", sheet)
    known, held_out = open_training_set(train, test, max_pixels)
    count = number_generated(fake, n, len(known))
    with ProgressBars() as bars, open_fakes(fake, count, device=device, seed=seed, max_pixels=max_pixels,
                                            progress=bars.update) as (fakes, trained_with):
        judges, request = choose_judges(features, weights, device, trained_with, seed=seed, batch_size=batch,
                                  cache=cache, progress=bars.update)
        outcome, copies = leaking.find_leaks(known, fakes, held_out, judges, request)
        picture = Image.fromarray(leaking.pair_sheet(known, fakes, copies)) if sheet else None
    print_results(outcome, {"": outcome["results"], "held-out": outcome["held_out"]})
    print(leaking.describe_copies(outcome))
    for pair in outcome["nearest"][:5]:
        if pair["copy"]:
            print(f"  {pair['fake']} is {pair['train']}, {pair['how']}")
    json_output.write(outcome)
    if sheet and picture:
        write_atomically(Path(sheet), partial(picture.save, format="png"))
    if fail_over is not None and outcome["results"]["copies"]["value"] > fail_over:
        raise typer.Exit(1)


def choose_judges(features: str | None, weights: str | None, device: str, trained_with: Mapping[str, str],
            **settings: Any) -> tuple[list[Any], Any]:
    """Two feature networks by default, and the request."""
    from i2i.evaluation.request import EvaluationRequest, choose_features
    from i2i.inference.device import best_device
    from i2i.metrics.judges import default_judges, partiality_warnings
    folder = Path(weights) if weights else None
    if folder is not None and not folder.exists():
        raise RequestError(f"--weights {weights} does not exist")
    listed = features or (None if folder and folder.is_file() else
                          ",".join(default_judges(trained_with, folder)[:2]))
    judges = choose_features(listed, folder, "clean", str(best_device(device)), trained_with)
    notes = partiality_warnings({judge.name: judge.weights for judge in judges}, trained_with)
    return judges, EvaluationRequest((), False, weights=folder, warnings=tuple(notes), **settings)
