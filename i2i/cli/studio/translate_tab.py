"""The tab Translate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from i2i.cli.studio.parts import OPTIONS, Choices, by_hand, errors_shown, report, whole_number
from i2i.cli.studio.translation import Translation
from i2i.cli.studio.workspace import Workspace, collect, pack, shown
from i2i.errors import RequestError

VIEWABLE = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}       # By browsers.
CANVAS = 320            # Pixels of the sketch pad, which is made as small as the images of training.
MAX_SAMPLES = 32


def build(workspace: Workspace) -> Choices:
    """Build the tab; returns where names are chosen, and from which."""
    names = list(workspace.models(translate=True))
    with gr.Row():
        model = gr.Dropdown(names, value=names[0], label="Model", elem_id="model")
        direction = gr.Radio(["ab", "ba"], value="ab", label="Direction", elem_id="direction")
        chain = gr.Dropdown(chain_names(workspace), value=[], multiselect=True, label="Then translate by")
    with gr.Row():
        (image, one), (files, many), (sketch, drawn) = build_inputs()
        with gr.Column():
            slider = gr.ImageSlider(type="filepath", label="Before and after", interactive=False,
                                    height=CANVAS, elem_id="slider")
            spread = gr.Image(label="Spread of the samples; white is 64 levels", visible=False,
                              interactive=False, elem_id="spread")
            result = gr.File(label="Result", interactive=False, elem_id="result")
            said = gr.HTML(report(), elem_id="said")
    with gr.Accordion("Samples and memory", open=False), gr.Row():
        seed = gr.Textbox("", label="Seed", info="Empty: the same result each time", elem_id="seed")
        samples = gr.Slider(1, MAX_SAMPLES, 1, step=1, label="Samples", info="Two or more: their spread, too")
        tile = gr.Textbox("", label="Rows computed at once", info="Empty: all that fit in memory")
    lines = gr.HTML(by_hand())
    settings, shows = [model, direction, chain, tile, seed, samples], [slider, spread, result, said, lines]
    model.change(lambda name: gr.Radio(list(workspace.models()[name].directions), value="ab"), model,
                 direction, **OPTIONS)

    @errors_shown
    def translate_files(paths: Sequence[str], *values: Any) -> list[Any]:
        return translate(workspace, [Path(path) for path in paths or ()], *values)

    @errors_shown
    def translate_image(path: str | None, *values: Any) -> list[Any]:
        return translate(workspace, [Path(path)] if path else [], *values)

    @errors_shown
    def translate_sketch(editor: Any, *values: Any) -> list[Any]:
        return translate(workspace, [save_sketch(workspace, editor, values[0])], *values)

    one.click(translate_image, [image, *settings], shows, show_progress_on=said, **OPTIONS)
    many.click(translate_files, [files, *settings], shows, show_progress_on=said, **OPTIONS)
    drawn.click(translate_sketch, [sketch, *settings], shows, show_progress_on=said, **OPTIONS)
    return [(model, lambda: list(workspace.models(translate=True))), (chain, lambda: chain_names(workspace))]


def build_inputs() -> list[tuple[Any, Any]]:
    """What is translated, each with its button: an image, several files, a sketch."""
    with gr.Column(), gr.Tabs():
        with gr.Tab("Image"):
            image = gr.Image(sources=["upload", "webcam", "clipboard"], type="filepath", height=CANVAS,
                             image_mode=None, label="Image to translate", elem_id="image")
            one = gr.Button("Translate", variant="primary")
        with gr.Tab("Files"):
            files = gr.File(file_count="multiple", type="filepath", label="Images, or a zip of them",
                            elem_id="files")
            many = gr.Button("Translate all", variant="primary")
        with gr.Tab("Sketch"):
            brush = gr.Brush(default_size=8, colors=["#000000"], color_mode="fixed")
            sketch = gr.Sketchpad(type="pil", image_mode="RGBA", brush=brush, fixed_canvas=True,
                                  canvas_size=(CANVAS, CANVAS), layers=False, label="Outline to color",
                                  elem_id="sketch")
            drawn = gr.Button("Translate the sketch", variant="primary")
    return [(image, one), (files, many), (sketch, drawn)]


def chain_names(workspace: Workspace) -> list[str]:
    """What can follow a model: NAME, or NAME:ba for those that translate back."""
    return [name if way == "ab" else f"{name}:{way}"
            for name, each in workspace.models(translate=True).items() for way in each.directions]


def translate(workspace: Workspace, files: Sequence[Path], model: str, direction: str, chain: Sequence[str],
              tile: str, seed: str, samples: int) -> list[Any]:
    """Translate, and show before and after, the spread, a file, the report and the lines that do the same."""
    if not files:
        raise RequestError("there is no image yet: drop one, or take or paste one")
    folder = workspace.new_folder()
    source = collect(files, folder / "in")
    job = Translation(model, direction, tuple(chain), tile.strip(), whole_number("seed", seed), int(samples))
    outcome, results, spreads = job.run(workspace, source, folder)
    single = results[0] if len(files) == len(results) == 1 and source.suffix != ".zip" else None
    outputs = folder / "translated"
    file = single or pack(outputs, folder / "translated.zip")
    where = [source.name if source.name != "in" else "images", "translated", "spread"]
    return [
        (viewable(source, folder), viewable(single, folder)) if single else None,
        gr.Image(viewable(spreads[0], folder) if spreads and single else None,
                 visible=bool(spreads and single)),
        str(file), report(outcome.text), by_hand(shown(job.words(*where)), job.python(*where))]


def viewable(path: Path, folder: Path) -> str:
    """An image that browsers show: the file, or a PNG of 8 bits."""
    if path.suffix.lower() in VIEWABLE:
        return str(path)
    from PIL import Image

    from i2i.data.image_set import open_image_set
    target = folder / f"view-{path.parent.name}-{path.stem}.png"
    Image.fromarray(open_image_set(str(path), "the image").read(0)).save(target)
    return str(target)


def save_sketch(workspace: Workspace, editor: Any, model: str) -> Path:
    """What was drawn, on white, in the size of the model's training images."""
    from PIL import Image
    drawing = (editor or {}).get("composite")
    if drawing is None or drawing.getbbox() is None:
        raise RequestError("nothing is drawn yet")
    paper = Image.new("RGBA", drawing.size, "white")
    paper.alpha_composite(drawing.convert("RGBA"))
    height, width = workspace.models()[model].size
    path = workspace.new_folder() / "sketch.png"
    paper.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(path)
    return path
