"""The tab Generate: images, interpolations, mixed styles, walks and inversions of a model from noise."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from i2i.cli.studio.parts import OPTIONS, Choices, by_hand, errors_shown, report, whole_number
from i2i.cli.studio.workspace import Workspace, collect, reason, shown
from i2i.errors import JobError, RequestError

IMPORTS = "from pathlib import Path\n\nfrom i2i import load\n"


def build(workspace: Workspace) -> Choices:
    """Build the tab; returns where names are chosen, and from which."""
    names = list(workspace.models(translate=False))
    with gr.Row():
        model = gr.Dropdown(names, value=names[0], label="Model", elem_id="generator")
        classes = gr.Dropdown(list(workspace.models()[names[0]].classes), multiselect=True, value=[],
                              label="Classes (none: all in turns)")
        seed = gr.Textbox("0", label="Seed")
        truncation = gr.Slider(-1, 1.5, 1, step=0.05, label="Truncation", elem_id="truncation")
    common = [model, classes, seed, truncation]
    with gr.Tabs():
        with gr.Tab("Images"):
            n = gr.Slider(1, 256, 16, step=1, label="Images", elem_id="n")
            add_job(workspace, "Generate", images, [*common, n], gallery=True)
        with gr.Tab("Interpolate"):
            columns = gr.Slider(2, 16, 8, step=1, label="Steps")
            rows = gr.Slider(1, 16, 1, step=1, label="Rows; from 2 on the plane between four images")
            add_job(workspace, "Interpolate", interpolate, [*common, columns, rows])
        with gr.Tab("Arithmetic"):
            terms = [gr.Textbox(value, label=label) for value, label in (
                ("1", "Seed of A"), ("2", "Minus seed of B"), ("3", "Plus seed of C"))]
            strength = gr.Slider(-2, 2, 1, step=0.1, label="Weight of C - B", elem_id="strength")
            add_job(workspace, "Add", arithmetic, [*common, *terms, strength])
        with gr.Tab("Mix"):
            wide, high = (gr.Slider(1, 10, 4, step=1, label=label) for label in ("Columns", "Rows"))
            layers = gr.Textbox("", label="Layers of the column's style (empty: the finer half)")
            add_job(workspace, "Mix styles", mix, [*common, wide, high, layers])
        with gr.Tab("Walk"):
            frames = gr.Slider(8, 240, 48, step=8, label="Frames")
            stops = gr.Slider(2, 12, 4, step=1, label="Images it passes")
            add_job(workspace, "Walk", walk, [*common, frames, stops])
        with gr.Tab("Invert"):
            files = gr.File(file_count="multiple", type="filepath", label="Images to find", elem_id="targets")
            steps = gr.Slider(10, 500, 100, step=10, label="Steps")
            starts = gr.Slider(1, 32, 8, step=1, label="Points to start from")
            add_job(workspace, "Invert", invert, [*common, files, steps, starts], gallery=True)
    model.change(lambda name: gr.Dropdown(choices=list(workspace.models()[name].classes), value=[]), model,
                 classes, **OPTIONS)
    return [(model, lambda: list(workspace.models(translate=False)))]


def add_job(workspace: Workspace, title: str, plan: Callable[..., Any], inputs: Sequence[Any], *,
            gallery: bool = False) -> Any:
    """A button that runs what `plan` says, and what it makes: images, a file to keep, the lines by hand."""
    button = gr.Button(title, variant="primary")
    view = gr.Gallery(label=title, columns=8, object_fit="contain", elem_classes="pixels") if gallery else \
        gr.Image(label=title, interactive=False, elem_classes="pixels")
    kept = gr.File(label="To keep: with how each image was made", interactive=False)
    said, lines = gr.HTML(report()), gr.HTML(by_hand())

    @errors_shown
    def run(*values: Any) -> list[Any]:
        folder = workspace.new_folder()
        words, hand, python, out = plan(folder, *values)
        outcome = workspace.run(words)
        if not out.exists() or (outcome.code and not gallery):
            raise (RequestError if outcome.code == 2 else JobError)(reason(outcome))
        found, file = results(out, folder)
        return [found if gallery else found[0], str(file), report(outcome.text), by_hand(shown(hand), python)]

    button.click(run, list(inputs), [view, kept, said, lines], show_progress_on=view, **OPTIONS)
    return view


def results(out: Path, folder: Path) -> tuple[list[str], Path]:
    """The images that a command made, and a file that holds them all."""
    from i2i.cli.studio.workspace import pack
    if out.is_file():
        return [str(out)], out
    found = [str(path) for path in sorted(out.rglob("*")) if path.suffix in (".png", ".webp", ".jpg")]
    return found, pack(out, folder / f"{out.name}.zip")


def options_of(classes: Sequence[str], seed: str, truncation: float) -> tuple[list[str], dict[str, Any]]:
    """What all jobs have, as options and as Python arguments."""
    number = whole_number("seed", seed) or 0
    values: dict[str, Any] = {"classes": ",".join(classes) or None, "truncation": truncation,
                              "seed": number}
    defaults = {"classes": None, "truncation": 1, "seed": 0}
    given = {key: value for key, value in values.items() if value != defaults[key]}
    return [word for key, value in given.items() for word in (f"--{key}", str(value))], given


def arguments(given: dict[str, Any]) -> str:
    """Keyword arguments as they are typed, after others."""
    return "".join(f", {key}={value!r}" for key, value in given.items())


def images(folder: Path, model: str, classes: Sequence[str], seed: str, truncation: float, n: int) -> Any:
    """`i2i generate`: the words, those to type, the Python lines, and what they make."""
    more, given = options_of(classes, seed, truncation)
    python = (f"{IMPORTS}from i2i.inference.generate import generate_set\n"
              "from i2i.inference.generation_plan import plan_generation\n\n"
              f"model = load({model!r})\nplan = plan_generation({model!r}, model{arguments(given)})\n"
              f"generate_set(model, plan, Path('made'), {n})")
    out = folder / "made"
    return ["generate", model, "--out", str(out), "--n", str(n), *more], \
        ["generate", model, "--out", "made", "--n", str(n), *more], python, out


def sheet_job(folder: Path, verb: str, file: str, model: str, words: list[str], call: str,
              save: str = "") -> Any:
    """The same of `i2i explore`, of which `call` makes the rows of a sheet."""
    python = (f"{IMPORTS}from i2i.inference import animation, explore\n\nmodel = load({model!r})\n"
              f"{save or f'animation.save_sheet(Path({file!r}), explore.sheet({call}))'}")
    return ["explore", verb, model, "--out", str(folder / file), *words], \
        ["explore", verb, model, "--out", file, *words], python, folder / file


def interpolate(folder: Path, model: str, classes: Sequence[str], seed: str, truncation: float, columns: int,
                rows: int) -> Any:
    """`i2i explore interpolate`."""
    more, given = options_of(classes, seed, truncation)
    plane = rows if rows > 1 else None
    return sheet_job(folder, "interpolate", "interpolated.png", model,
                     ["--grid", f"{columns}x{rows}" if plane else str(columns), *more],
                     f"explore.interpolate(model, {columns}, {plane}{arguments(given)})")


def arithmetic(folder: Path, model: str, classes: Sequence[str], _: str, truncation: float, a: str, b: str,
               c: str, strength: float) -> Any:
    """`i2i explore arithmetic`; its seeds take the place of the common one."""
    seeds = [whole_number("seed", each) or 0 for each in (a, b, c)]
    more, given = options_of(classes, "0", truncation)
    return sheet_job(folder, "arithmetic", "sum.png", model,
                     ["--seeds", ",".join(map(str, seeds)), "--strength", str(strength), *more],
                     f"explore.arithmetic(model, 5, strength={strength}, seeds={seeds}{arguments(given)})")


def mix(folder: Path, model: str, classes: Sequence[str], seed: str, truncation: float, columns: int,
        rows: int, layers: str) -> Any:
    """`i2i explore mix`."""
    more, given = options_of(classes, seed, truncation)
    words = ["--layers", layers.strip()] if layers.strip() else []
    given |= {"layers": layers.strip()} if words else {}
    return sheet_job(folder, "mix", "mixed.png", model, ["--grid", f"{columns}x{rows}", *words, *more],
                     f"explore.mix(model, {columns}, {rows}{arguments(given)})")


def walk(folder: Path, model: str, classes: Sequence[str], seed: str, truncation: float, frames: int,
         stops: int) -> Any:
    """`i2i explore walk`."""
    more, given = options_of(classes, seed, truncation)
    save = (f"images = explore.walk(model, {frames}, stops={stops}{arguments(given)})\n"
            f"animation.save_animation(Path('walk.gif'), map(explore.frame, images), {frames}, "
            "animation.DEFAULT_FPS)")
    return sheet_job(folder, "walk", "walk.gif", model,
                     ["--frames", str(frames), "--stops", str(stops), *more], "", save)


def invert(folder: Path, model: str, classes: Sequence[str], seed: str, truncation: float,
           files: Sequence[str] | None, steps: int, starts: int) -> Any:
    """`i2i explore invert`."""
    if not files:
        raise RequestError("there is no image yet: drop one")
    source = collect([Path(file) for file in files], folder / "in")
    more, given = options_of(classes, seed, 1)
    out, search = folder / "inverted", ["--steps", str(steps), "--starts", str(starts), *more]
    name = "images" if source.name == "in" else source.name
    python = (f"{IMPORTS}from i2i.inference.inversion import invert_images\n\n"
              f"invert_images(load({model!r}), [{name!r}], Path('inverted'), steps={steps}, starts={starts}"
              f"{arguments(given)})")
    out.mkdir()
    return ["explore", "invert", model, str(source), "--out", str(out), *search], \
        ["explore", "invert", model, name, "--out", "inverted", *search], python, out
