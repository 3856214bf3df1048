"""i2i hype: build, score."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from i2i.cli.application import command_group
from i2i.cli.options import NO_JSON, Device, Json, MaxPixels, Plugins, argument, option, output_option
from i2i.cli.progress import ProgressBars
from i2i.errors import JobError, RequestError

app = command_group("People tell fake images from real ones: build a page for them, and score what they send "
                    "back.")
LARGE = 50_000_000      # Bytes.


@app.command()
def build(
    real: Annotated[str, option("DIR|ZIP|NAME", "Real images: test, val or train, the first with enough.")],
    fake: Annotated[list[str], option(
        "MODEL|DIR|ZIP", "What a model made, or a model that makes images from noise; can be repeated: each "
                         "person judges one model, drawn by chance.", "--fake")],
    qualifying: Annotated[str | None, option(
        "DIR|ZIP", "Fakes of other models for practice and qualification; by default of all --fake.")] = None,
    out: Annotated[str, output_option("FILE.html|URL", "The page to write.")] = "hype.html",
    protocol: Annotated[str, option(
        "infinity|time", "infinity: the share of errors without a time limit; time: the exposure at which "
                         "75 % are right.")] = "infinity",
    images: Annotated[int | None, option(
        "N", "Images that one person judges; of a block for time. By default 100, for time 150.")] = None,
    qualification: Annotated[int, option("N", "Images before the test; 65 % must be right. 0: none.")] = 100,
    practice: Annotated[int, option("N", "Images with feedback before everything else.")] = 10,
    pool: Annotated[int, option(
        "N", "Images of each set in the page, from which each person's are drawn.", min=1)] = 300,
    side: Annotated[int, option("N", "Make images smaller that have more pixels on a side.", min=16)] = 256,
    seed: Annotated[int, option(None, "Of the choice of images, and of those a model makes.", min=0)] = 0,
    max_pixels: MaxPixels = None, json: Json = NO_JSON, device: Device = "auto", plugin: Plugins = None,
) -> None:
    """Write one HTML file on which people tell real images from fake ones (HYPE)."""
    from i2i.data.image_set import open_image_set
    from i2i.evaluation import hype_study as study
    from i2i.evaluation.leak_sets import open_fakes
    from i2i.files import check_file, location_of, write_text
    from i2i.report.hype_page import count_images, render_study
    check_file("--out", out)
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"--out {out} must end in .html")
    settings = study.make_settings(protocol, images, qualification, practice)
    names = _names(fake)
    needs = study.images_needed(settings, len(fake), qualifying is not None)
    reals, split = study.open_reals(real, needs[0], max_pixels)
    with ExitStack() as stack:
        bars = stack.enter_context(ProgressBars())
        sets = [stack.enter_context(open_fakes(each, max(pool, needs[1]), device=device, seed=seed,
                                               max_pixels=max_pixels, progress=bars.update))[0]
                for each in fake]
        easy = open_image_set(qualifying, "--qualifying", max_pixels=max_pixels) if qualifying else None
        made = study.make_study((Path(real).name, reals), list(zip(names, sets, strict=True)), easy, settings,
                                pool=pool, side=side, seed=seed, progress=bars.update)
    write_text(Path(out), page := render_study(made))
    shown, minutes = count_images(settings)
    _describe(made, f"{len(reals):,} in {split}", location_of(Path(out)), len(page.encode()))
    print(f"a person judges {shown} images in about {minutes} minute{'s' * (minutes > 1)}")
    json.write({
        "bytes": len(page.encode()), "size": [made["width"], made["height"]], "images": shown,
        "minutes": minutes, "real": {"page": len(made["real"]), split: len(reals)},
        "fake": {each["name"]: len(each["images"]) for each in made["fakes"]}})


def _names(fakes: list[str]) -> list[str]:
    """What results are listed under.  RequestError if two are the same."""
    names = [Path(each).resolve().name.removesuffix(".zip").removesuffix(".safetensors") for each in fakes]
    if len(set(names)) < len(names):
        raise RequestError(f"--fake {', '.join(names)}: two have the same name, which results are listed "
                           "under; accepted: folders with different names")
    return names


def _describe(study: Mapping[str, Any], reals: str, out: str, size: int) -> None:
    fakes = [f"{len(each['images'])} of {each['name']}" for each in study["fakes"]]
    print(f"{out} ({size / 1e6:.1f} MB): {len(study['real'])} real images ({reals}), {', '.join(fakes)}; "
          f"{study['width']}x{study['height']} pixels")
    if study["settings"]["qualification"] and not study["qualifying"] and len(fakes) == 1:
        print("warning: people qualify by fakes of the model that they judge, so those who cannot tell it "
              "from real do not count; give fakes of other models with --qualifying", file=sys.stderr)
    if size > LARGE:
        print(f"warning: {size / 1e6:.0f} MB are slow to open on a phone; --pool and --side make the page "
              "smaller", file=sys.stderr)


@app.command()
def score(
    files: Annotated[list[str], argument("FILE...", "Results that people sent back, or folders of them.")],
    json_output: Json = NO_JSON,
) -> None:
    """Merge results: scores of models with intervals, errors on real and on fake images, comparisons."""
    from i2i.evaluation.hype_results import choose_sessions, merge_sessions, read_session
    paths = [path for file in map(Path, files) for path in (sorted(file.glob("*.json")) if file.is_dir()
                                                            else [file])]
    sessions, damaged = [], []
    for path in dict.fromkeys(paths):
        try:
            sessions.append(read_session(path))
        except RequestError as error:
            damaged.append(str(error))
    kept, notes = choose_sessions(sessions)
    outcome = merge_sessions(kept, [*damaged, *notes])
    for line in outcome["left_out"]:
        print(f"left out: {line}", file=sys.stderr)
    if not kept:
        raise RequestError(f"{', '.join(files)}: no complete result among {len(paths)} files; accepted: JSON "
                           "files of a page of i2i hype build")
    _print(outcome)
    json_output.write(outcome)
    if damaged:
        raise JobError(f"{len(damaged)} of {len(paths)} files could not be used")


def _print(outcome: Mapping[str, Any]) -> None:
    """A table of models; errors and HYPE infinity in percent, HYPE time in milliseconds."""
    width = max(len("model"), *(len(row["model"]) for row in outcome["results"]))
    print(f"{'protocol':10}{'model':{width}}{'people':>8}" + "".join(
        f"{title:>26}" for title in ("score", "fake taken for real", "real taken for fake")))
    for row in outcome["results"]:
        cells = (_cell(row["score"], row["protocol"] == "time"), _cell(row["error_fake"]),
                 _cell(row["error_real"]))
        print(f"{row['protocol']:10}{row['model']:{width}}{row['people']:>8}"
              + "".join(f"{cell:>26}" for cell in cells))
    for comparison in outcome["comparisons"]:
        print(comparison["sentence"])
    for line in outcome["warnings"]:
        print(f"warning: {line}", file=sys.stderr)


def _cell(figure: Mapping[str, Any], milliseconds: bool = False) -> str:
    value, low, high = (None if figure[key] is None else figure[key] * (1 if milliseconds else 100)
                        for key in ("value", "low", "high"))
    unit, digits = ("ms", 0) if milliseconds else ("%", 1)
    interval = "" if low is None else f" ({low:.{digits}f} … {high:.{digits}f})"
    return f"{value:.{digits}f} {unit}{interval}"
