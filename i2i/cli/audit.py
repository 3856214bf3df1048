"""i2i audit."""

import io
from pathlib import Path
from typing import Annotated, Any

import typer

from i2i.cli.evaluate import Features, Weights
from i2i.cli.leaks import choose_judges
from i2i.cli.options import NO_JSON, Device, Json, MaxPixels, Model, Plugins, option, output_option
from i2i.cli.progress import ProgressBars
from i2i.errors import RequestError
from i2i.files import location_of

LIGHTS = ("yellow", "red")


def audit(
    model: Model,
    data: Annotated[str | None, option(
        "DIR|ZIP|NAME", "What to translate: data with both sides, or a folder of sources; by default what "
        "the model was trained on.")] = None,
    split: Annotated[str | None, option("test|val|train", "By default the first there is.")] = None,
    direction: Annotated[str, option("ab|ba", "ba: from b to a, in models that learned both.")] = "ab",
    train: Annotated[str | None, option(
        "DIR|ZIP|NAME", "What the model was trained on; by default what it says itself.")] = None,
    n: Annotated[int, option("N", "How many images at most, evenly spaced.", "--n", "--number", min=1)] = 64,
    html: Annotated[str | None, output_option("FILE.html|URL", "Write a page with pictures.")] = None,
    json_output: Json = NO_JSON,
    fail_on: Annotated[str | None, option(
        "yellow|red", "Exit code 1 if a light is this or worse.")] = None,
    features: Features = None, weights: Weights = None, max_pixels: MaxPixels = None,
    seed: Annotated[int, option(None, "Of noise.", min=0)] = 0, device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Audit a translator: hidden information, colors, structure, unknown inputs, stability."""
    from i2i.data.sources import same_location
    from i2i.evaluation.audit import audit as audit_model
    from i2i.evaluation.audit import fails
    from i2i.evaluation.audit_images import check_translates, open_sides
    from i2i.inference.model import load
    _check(html, fail_on)
    loaded = load(model, device)
    check_translates(loaded, model)
    known = loaded.header.get("data") or ""
    where = data or known
    if not where:
        raise RequestError(f"{model} does not say what it was trained on; give --data")
    sides = open_sides(loaded, where, split=split, direction=direction, max_pixels=max_pixels,
                       own=bool(known) and same_location(where, known))
    inputs, notes = _open_training(loaded, train, direction, max_pixels)
    with ProgressBars() as bars:
        judges, request = choose_judges(features, weights, device, loaded.header.get("feature_networks", {}),
                                        seed=seed, progress=bars.update)
        result = audit_model(loaded, sides, judges, request, n=n, direction=direction, train=inputs)
    outcome = {"model": model, "data": str(where)} | result.outcome()
    outcome["warnings"] += notes
    _print(result, outcome)
    json_output.write(outcome)
    if html is not None:
        _write_page(html, result, outcome)
    if fail_on is not None and fails(result.light, fail_on):
        raise typer.Exit(1)


def _check(html: str | None, fail_on: str | None) -> None:
    """RequestError for an unknown light or a file that cannot be written, before the work."""
    from i2i.files import check_file
    from i2i.report import check_page
    if fail_on not in (None, *LIGHTS):
        raise RequestError(f"--fail-on {fail_on} is not known; accepted: {' or '.join(LIGHTS)}")
    if html is not None:
        check_page(Path(html), "--html")
        check_file("--html", html)


def _open_training(model: Any, train: str | None, direction: str,
                   max_pixels: int | None) -> tuple[Any, list[str]]:
    """The sources that a model was trained on, or why they cannot be had."""
    from i2i.evaluation.audit_images import open_sides
    where = train or model.header.get("data")
    if not where:
        return None, []
    try:
        return open_sides(model, where, split=None if train else "train", direction=direction, own=not train,
                          training=True, max_pixels=max_pixels).sources, []
    except RequestError as error:
        if train:
            raise
        return None, [f"training inputs: {error}"]


def _print(result: Any, outcome: dict[str, Any]) -> None:
    """The lights, what is behind them and what to do, on paper as on a terminal."""
    import sys
    print(f"{outcome['n']} images of {outcome['data']} ({outcome['split']}), {outcome['direction']}")
    for each in result.answers:
        number = f" [{each.number()}]" if each.number() else ""
        print(f"{each.light.upper():<10}  {each.question}  {each.finding}{number}")
        if each.advice and each.light != "green":
            print(f"{'':<10}  -> {each.advice}")
    for warning in outcome["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)


def _write_page(path: str, result: Any, outcome: dict[str, Any]) -> None:
    from PIL import Image

    from i2i.report import write_audit
    pictures = {}
    for each in result.answers:
        if each.picture is not None:
            buffer = io.BytesIO()
            Image.fromarray(each.picture).save(buffer, "png")
            pictures[each.name] = (buffer.getvalue(), each.picture.shape[1], each.picture.shape[0])
    facts = [outcome["model"], outcome["recipe"], outcome["direction"],
             f"{outcome['n']} images of {outcome['data']} ({outcome['split']})"]
    answers = [plain | {"number": each.number(), "caption": each.caption}
               for plain, each in zip(outcome["answers"], result.answers, strict=True)]
    size = write_audit(path, Path(outcome["model"]).resolve().name, facts, answers, pictures,
                       outcome["warnings"])
    print(f"{location_of(Path(path))} ({size / 1e6:.1f} MB)")
