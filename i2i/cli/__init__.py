"""The command line.  Commands import what they need when they run, so that --help needs no torch."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer

from i2i.errors import I2IError, Unverified, printable

# Newer Typers carry a click of their own, older ones use the package; the ancestors of what it exports are
# right in both.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
_ClickException: type[Exception] = _UsageError.__bases__[0]
_HELP = {"help_option_names": ["-h", "--help"]}


class App(typer.Typer):
    """A Typer application whose errors are one line each, with exit code 2 (wrong request) or 1 (failed
    job)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit."""
        sys.exit(self.run(sys.argv[1:]))

    def run(self, words: list[str]) -> int:
        """Run one command line.  -> exit code"""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                # File names may hold bytes that are no text.
                stream.reconfigure(errors="backslashreplace")
        try:
            command = typer.main.get_command(self)
            with _our_warnings_in_one_line():
                return int(command.main(words or ["--help"], prog_name="i2i", standalone_mode=False) or 0)
        except _ClickException as error:
            message = str(getattr(error, "format_message", error.__str__)())
            # A group of commands without a command: its help, as i2i alone prints its own.
            if message.startswith("Usage:"):
                print(message)
                return 0
            return _fail(message, 2)
        except I2IError as error:
            return _fail(str(error), error.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            return _fail("interrupted", 130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except MemoryError:
            return _fail("out of memory; a smaller batch or size needs less", 1)
        except (RuntimeError, ImportError) as error:
            known = _known(error)
            if known is None:
                raise
            return _fail(known, 1)


@contextmanager
def _our_warnings_in_one_line() -> Iterator[None]:
    """`warning: …`, without a path of ours and a line of code; those of other packages stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Unverified)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                 file: TextIO | None = None,
                 line: str | None = None) -> None:
            if issubclass(category, Unverified):
                print(f"warning: {printable(str(message))}", file=sys.stderr)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _fail(message: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")      # As launchers tell each process.
    print("error: " + (f"process {rank}: " if rank != "0" else "")
          + printable(" ".join(message.split("\n"))), file=sys.stderr)
    return code


def _known(error: Exception) -> str | None:
    """One line for failures that are the machine's, not the program's."""
    text = str(error)
    if "torchvision::nms does not exist" in text:
        return ("torch and torchvision are from different builds (operator torchvision::nms does not exist); "
                "install them together: pip install --force-reinstall torch torchvision")
    if "out of memory" in text or "can't allocate memory" in text:
        return f"out of memory; train.batch_size, generator.width or data.size must be smaller ({text.splitlines()[0][:120]})"
    return None


app = App(help="Train, run and judge image-to-image translation and image generation.", add_completion=False,
          pretty_exceptions_enable=False, rich_markup_mode=None, context_settings=_HELP)


def _version(wanted: bool) -> None:
    if wanted:
        import i2i
        print(i2i.__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool,
                             typer.Option("--version", callback=_version, is_eager=True,
                                          help="Print the version and exit.")] = False) -> None:
    pass


@app.command()
def train(
    words: Annotated[list[str] | None, typer.Argument(metavar="RECIPE [KEY=VALUE]...", show_default=False,
                     help="A recipe or preset (pix2pix, cyclegan, dcgan ... stylegan2-ada: i2i list preset) "
                          "and settings, e.g. "
                          "generator=resnet lambda_l1=50 train.batch_size=8 train.images=400k.")] = None,
    data: Annotated[str | None,
                    typer.Option(metavar="DIR|ZIP|MANIFEST|NAME",
                                 help="Images; by default a bundled data set.")] = None,
    out: Annotated[str | None,
                   typer.Option(metavar="RUN", help="The run folder; by default the next free runs/RECIPE. "
                                "A run of this very command that is not finished goes on.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length in epochs instead of train.images.")] = None,
    resume: Annotated[str | None,
                      typer.Option(metavar="RUN", help="Continue this run exactly where it was.")] = None,
    on_error: Annotated[str | None,
                        typer.Option("--on-error", metavar="stop|skip",
                                     help="At an image that cannot be read: stop (the default) or "
                                                 "go on without it, told and listed in RUN/skipped.jsonl.")] = None,
    on_collapse: Annotated[str | None,
                           typer.Option("--on-collapse", metavar="warn|stop|off",
                                        help="When the generator makes the same picture again "
                                                    "and again: warn (the default), stop with everything "
                                                    "saved, or do not look.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    auto: Annotated[bool,
                    typer.Option("--autotune",
                                 help="Measure first which precision, memory format, threads, workers ... "
                                      "are fastest here, and "
                                       "use those, but for what is given as a setting.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the whole plan and exit.")] = False,
) -> None:
    """Train a recipe; recipes, presets and settings are listed by `i2i list`."""
    from i2i.cli import training
    training.train(words or [], data=data, out=out, epochs=epochs, resume=resume, on_error=on_error,
                   on_collapse=on_collapse, device=device,
                   auto=auto, dry_run=dry_run)


@app.command()
def translate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file or a run folder.")],
    source: Annotated[str,
                      typer.Argument(metavar="INPUT", help="An image, a folder tree, a zip or zip/folder.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Where results go, under the inputs' names.")],
    direction: Annotated[str,
                         typer.Option(metavar="ab|ba",
                                      help="ba: from b to a, in models that learned both ways.")] = "ab",
    chain: Annotated[list[str] | None,
                     typer.Option(metavar="MODEL[:ba]",
                                  help="Refine the results by another model; may be given again.")] = None,
    half: Annotated[str | None,
                    typer.Option(metavar="left|right",
                                 help="Inputs are A|B strips: translate this half of each.")] = None,
    batch: Annotated[int, typer.Option(min=0, help="Images at once; 0 goes by their size.")] = 0,
    seed: Annotated[int | None,
                    typer.Option(min=0,
                                 help="Draw a dropout sample instead of the deterministic result.")] = None,
    statistics: Annotated[str | None,
                          typer.Option(metavar="running|image",
                                       help="Batch norm statistics; by default running.")] = None,
    suffix: Annotated[str,
                      typer.Option("--format", metavar="png|jpg|webp|bmp|tif|npy",
                                   help="File format; by default the input's.")] = "",
    skip_existing: Annotated[bool,
                             typer.Option("--skip-existing",
                                          help="Leave out what is in DIR already.")] = False,
    on_error: Annotated[str,
                        typer.Option("--on-error", metavar="skip|stop",
                                     help="What fails is told at the end, or ends the job.")] = "skip",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Translate images: any size in, exactly that size out."""
    from i2i.cli import translating
    translating.translate(model, source, out, direction=direction, chain=chain or [], half=half, batch=batch,
                          seed=seed,
                    statistics=statistics, suffix=suffix, skip_existing=skip_existing, on_error=on_error,
                          device=device)


@app.command()
def generate(
    model: Annotated[str,
                     typer.Argument(metavar="MODEL",
                                    help="A model file or a run folder, trained to make images from noise.")],
    out: Annotated[str,
                   typer.Option(metavar="DIR|ZIP",
                                help="Where images go; the same command goes on with what is there.")],
    n: Annotated[int | None,
                 typer.Option("--n", "--number", metavar="N",
                              help="How many.  Launchers may take --n for theirs.")] = None,
    classes: Annotated[str | None,
                       typer.Option(metavar="NAME,NAME|balanced",
                                    help="Classes that take turns; by default all.")] = None,
    truncation: Annotated[float | None,
                          typer.Option(help="Below 1: styles nearer to their mean, less variety. Style "
                                            "networks only.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed, other images; by default 0.")] = None,
    batch: Annotated[int | None,
                     typer.Option(min=0,
                                  help="Images at once; by default, and for 0, by their size.")] = None,
    suffix: Annotated[str | None,
                      typer.Option("--format", metavar="png|jpg|webp|bmp|tif|npy",
                                   help="File format; by default png.")] = None,
    only: Annotated[str | None,
                    typer.Option(metavar="INDEX,INDEX",
                                 help="Only these images, as they are among all.")] = None,
    like: Annotated[str | None,
                    typer.Option(metavar="DIR|ZIP",
                                 help="Everything as in what was generated there.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Make images from noise, in class folders and with a manifest from which each can be made again
    alone."""
    from i2i.cli import generating
    generating.generate(model, out, n=n, only=only, like=like, device=device, settings={
        "classes": classes, "truncation": truncation, "seed": seed, "batch": batch, "suffix": suffix})


explore_app = typer.Typer(help="Look at what a model from noise has learned: ways between images, mixed "
                               "styles, walks.", no_args_is_help=True,
                          rich_markup_mode=None, context_settings=_HELP)
app.add_typer(explore_app, name="explore")
_Noisy = Annotated[str,
                   typer.Argument(metavar="MODEL",
                                  help="A model file or a run folder, trained to make images from noise.")]
_Classes = Annotated[str | None,
                     typer.Option(metavar="NAME,NAME|balanced", help="Classes to show; by default all.")]
_Truncation = Annotated[float,
                        typer.Option(help="Below 1: styles nearer to their mean, less variety. Style "
                                          "networks only.")]
_Seed = Annotated[int, typer.Option(min=0, help="Another seed, other images.")]
_Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


@explore_app.command()
def interpolate(
    model: _Noisy,
    out: Annotated[str, typer.Option(metavar="FILE.png|jpg", help="The picture to write.")],
    grid: Annotated[str,
                    typer.Option(metavar="COLUMNS[xROWS]",
                                 help="With ROWS the plane between four images, else a row for each class.")] = "8",
    classes: _Classes = None, truncation: _Truncation = 1.0, seed: _Seed = 0, device: _Device = "auto",
) -> None:
    """The ways between images of a seed: on arcs in the noise, on lines in the styles of networks that have
    them."""
    from i2i.cli import exploring
    exploring.interpolate(model, out, grid=grid, classes=classes, truncation=truncation, seed=seed,
                          device=device)


@explore_app.command()
def mix(
    model: _Noisy,
    out: Annotated[str, typer.Option(metavar="FILE.png|jpg", help="The picture to write.")],
    grid: Annotated[str,
                    typer.Option(metavar="COLUMNSxROWS",
                                 help="How many images are mixed with how many.")] = "5x5",
    layers: Annotated[str | None,
                      typer.Option(metavar="FIRST-LAST",
                                   help="Layers that have the column's style; by default the finer half.")] = None,
    classes: _Classes = None, truncation: _Truncation = 1.0, seed: _Seed = 0, device: _Device = "auto",
) -> None:
    """Each row's image with the column's styles in some layers. Style networks only."""
    from i2i.cli import exploring
    exploring.mix(model, out, grid=grid, layers=layers, classes=classes, truncation=truncation, seed=seed,
                  device=device)


@explore_app.command()
def walk(
    model: _Noisy,
    out: Annotated[str,
                   typer.Option(metavar="FILE.gif|mp4|png|jpg",
                                help="A film that can run in circles; as png or jpg a strip.")],
    frames: Annotated[int, typer.Option(help="How many in all.")] = 96,
    fps: Annotated[int | None, typer.Option(help="Frames a second of a film; by default 24.")] = None,
    stops: Annotated[int, typer.Option(help="How many images it passes.")] = 4,
    classes: _Classes = None, truncation: _Truncation = 1.0, seed: _Seed = 0, device: _Device = "auto",
) -> None:
    """A closed walk past some images, for all classes at once."""
    from i2i.cli import exploring
    exploring.walk(model, out, frames=frames, fps=fps, stops=stops, classes=classes, truncation=truncation,
                   seed=seed, device=device)


@app.command()
def evaluate(
    model: Annotated[str | None,
                     typer.Argument(metavar="[MODEL]",
                                    help="A model file or a run folder; or give --real and --fake.")] = None,
    real: Annotated[str | None, typer.Option(metavar="DIR|ZIP|NAME", help="The reference set.")] = None,
    fake: Annotated[str | None, typer.Option(metavar="DIR|ZIP|NAME", help="The set to judge.")] = None,
    data: Annotated[str | None,
                    typer.Option(metavar="DIR|ZIP|NAME",
                                 help="Pairs; by default of the data the model was trained on.")] = None,
    split: Annotated[str, typer.Option(metavar="test|val|train", help="Which split.")] = "test",
    direction: Annotated[str | None,
                         typer.Option(metavar="ab|ba",
                                      help="ba: judge the way from b to a, of models that learned both.")] = None,
    sheet: Annotated[str | None,
                     typer.Option(metavar="FILE.png",
                                  help="Write a picture of a model's inputs, results and targets.")] = None,
    metrics: Annotated[str | None,
                       typer.Option(metavar="NAME,NAME",
                                    help="fd, fid, kid, is, precision_recall, density_coverage, diversity, "
                                         "color, "
                                                "fd_infinity; of pairs by name: l1, psnr, ssim, ms_ssim, "
                                                "lpips.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="METRIC.OPTION=VALUE",
                                                       help="Such as kid.subsets=50; see i2i list metric.")] = None,
    features: Annotated[str | None, typer.Option(metavar="inception|efficientnet-lite0|timm:NAME",
                                                 help="What is compared; by default inception where its "
                                                      "weights are.")] = None,
    weights: Annotated[str | None,
                       typer.Option(metavar="FILE|DIR",
                                    help="Weights of the features; by default the cache, then weights/.")] = None,
    resize: Annotated[str,
                      typer.Option(metavar="clean|legacy-pytorch|legacy-tf",
                                   help="How images are brought to the network's size.")] = "clean",
    bootstrap: Annotated[int, typer.Option(min=0, help="Rounds for the intervals; 0 for none.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images through the network at once.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of bootstrap samples and random pairs.")] = 0,
    cache: Annotated[bool,
                     typer.Option("--cache/--no-cache",
                                  help="Keep the features of the reference set for the next time.")] = True,
    against: Annotated[str | None,
                       typer.Option(metavar="FILE",
                                    help="An earlier --json; refused if it was measured otherwise.")] = None,
    json_file: Annotated[str | None,
                         typer.Option("--json", metavar="FILE",
                                      help="Write figures and protocol as JSON too.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Judge a set of images against a reference set, or a model's translations beside its inputs."""
    from i2i.cli import judging
    judging.evaluate(model, real=real, fake=fake, data=data, split=split, direction=direction, sheet=sheet,
                     options=judging.Options(
        metrics, settings or (), features, weights, resize, seed, bootstrap, batch, cache, against,
                         json_file, device))


data_app = typer.Typer(help="Data sets: look one over before training on it, and list those that come with "
                            "the package.", no_args_is_help=True,
                       rich_markup_mode=None, context_settings=_HELP)
app.add_typer(data_app, name="data")


@data_app.command("check")
def data_check(
    where: Annotated[str, typer.Argument(metavar="DIR|ZIP|NAME|MANIFEST", help="A data set.")],
    full: Annotated[bool, typer.Option("--full", help="Open every file, however many there are.")] = False,
    sample: Annotated[int | None,
                      typer.Option(min=1, metavar="N",
                                   help="Open about so many files; by default 20,000.")] = None,
    json_file: Annotated[str | None,
                         typer.Option("--json", metavar="FILE", help="Write everything as JSON too.")] = None,
) -> None:
    """Tell the layout and the command that trains on it, counts, and what is wrong; exit code 1 if a training
    would be stopped or spoilt."""
    from i2i.cli import data
    data.check(where, full=full, sample=sample, json_file=json_file)


@data_app.command("list")
def data_list() -> None:
    """The data sets that come with the package."""
    from i2i.cli import data
    data.list_bundled()


weights_app = typer.Typer(help="Weights of feature networks: what is known, what is here, and how to get the "
                               "rest.", no_args_is_help=True,
                          rich_markup_mode=None, context_settings=_HELP)
app.add_typer(weights_app, name="weights")


@weights_app.command("list")
def weights_list() -> None:
    """Every known file with its license, purpose and checksum, and where it lies."""
    from i2i.cli import judging
    judging.list_weights()


@weights_app.command("add")
def weights_add(
    files: Annotated[list[str],
                     typer.Argument(metavar="FILE...", help="Files that are known by their checksum.")],
    name: Annotated[str | None, typer.Option(help="Which weights it is meant to be.")] = None,
) -> None:
    """Copy files into the user's cache, after checking them."""
    from i2i.cli import judging
    judging.add_weights(files, name)


@weights_app.command("fetch")
def weights_fetch(
    wanted: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names from i2i weights list.")],
) -> None:
    """Download files into the user's cache, and check them."""
    from i2i.cli import judging
    judging.fetch_weights(wanted)


bench_app = typer.Typer(help="Measure what is claimed.", no_args_is_help=True, rich_markup_mode=None,
                        context_settings=_HELP)
app.add_typer(bench_app, name="bench")


@bench_app.command("modes")
def bench_modes(
    names: Annotated[list[str] | None,
                     typer.Argument(metavar="[ring|grid|stacked-mnist]...", show_default=False,
                                                      help="By default ring and grid.")] = None,
    only: Annotated[str | None,
                    typer.Option(metavar="REMEDY,REMEDY",
                                 help="By default all; the plain gan is always among them.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each remedy.")] = 10,
    out: Annotated[str,
                   typer.Option(metavar="DIR",
                                help="Results; the same command goes on with what is there.")] = "runs/modes",
    steps: Annotated[str | None,
                     typer.Option(metavar="N", help="Rounds of training instead of each test's own.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE",
                                                       help="A setting for all remedies, such as "
                                                            "generator.width=400.")] = None,
    mnist: Annotated[str | None,
                     typer.Option(metavar="DIR",
                                  help="The idx files of MNIST; by default Debian's dataset-fashion-mnist.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    docs: Annotated[str | None,
                    typer.Option(metavar="FILE.md",
                                 help="Put tables between the marks of this page, and plots beside it.")] = None,
    costs: Annotated[bool,
                     typer.Option("--costs/--no-costs",
                                  help="Time each remedy against the plain GAN, after the runs.")] = True,
    run: Annotated[bool,
                   typer.Option("--run/--no-run",
                                help="With --no-run only the tables of what is there.")] = True,
) -> None:
    """Mode collapse: how many modes of a known distribution each remedy covers, over seeds, and what it
    costs."""
    from i2i.cli import benching
    benching.modes(names or [], only=only, seeds=seeds, out=out, steps=steps, extra=settings or [],
                   mnist=mnist, jobs=jobs, docs=docs, costs=costs,
                   run=run)


@app.command()
def report(
    run: Annotated[str,
                   typer.Argument(metavar="RUN", help="A run folder, of a finished or a running training.")],
    out: Annotated[str | None,
                   typer.Option(metavar="FILE.html",
                                help="The file to write; by default RUN/report.html.")] = None,
) -> None:
    """One HTML file of a run: settings, curves, samples, best and worst pairs, verdict."""
    from i2i.cli import reporting
    reporting.report(run, out)


@app.command("import")
def import_(
    file: Annotated[str | None,
                    typer.Argument(metavar="FILE", show_default=False,
                                   help="A generator: of pytorch-CycleGAN-and-pix2pix "
                    "(.pth), or of stylegan2-ada-pytorch (.pkl, of which nothing is run, or its state dict "
                    "as .pth, .npz or .safetensors).")] = None,
    ab: Annotated[str | None,
                  typer.Option("--ab", metavar="FILE.pth",
                               help="With --ba: a CycleGAN's generator from A to B, G_A.")] = None,
    ba: Annotated[str | None,
                  typer.Option("--ba", metavar="FILE.pth", help="Its generator from B to A, G_B.")] = None,
    out: Annotated[str | None,
                   typer.Option(metavar="FILE",
                                help="The model file to write; by default FILE.safetensors or "
                                     "cyclegan.safetensors "
                                            "beside it.")] = None,
) -> None:
    """Make a model of ours from another project's checkpoint."""
    from i2i.cli import translating
    translating.convert_checkpoint(file, ab=ab, ba=ba, out=out)


@app.command()
def show(
    kind: Annotated[str | None,
                    typer.Argument(metavar="[KIND",
                                   help="preset, recipe, data, train, or a kind of piece, such as generator.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]]", help="One of them.")] = None,
) -> None:
    """List presets, recipes, their pieces and every setting: its default, what is accepted, what it does."""
    from i2i.cli import listing
    listing.list_components(kind, name)
