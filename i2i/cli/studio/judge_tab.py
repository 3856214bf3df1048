"""The tab Judge: sets against sets, nearest pairs, a synthetic-data card, and pages for human judges."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from i2i.cli.studio.parts import OPTIONS, Choices, by_hand, errors_shown, report
from i2i.cli.studio.workspace import Workspace, reason, shown, shown_python
from i2i.errors import JobError, RequestError

JUDGES = ("efficientnet-lite0", "open-nsfw", "inception", "random")


def build(workspace: Workspace) -> Choices:
    """Build the tab; returns where names are chosen, and from which."""
    with gr.Row():
        real = gr.Dropdown(workspace.data(), label="Real images", elem_id="real")
        fake = gr.Dropdown(fakes(workspace), label="Fake images, or a model from noise", elem_id="fake")
    with gr.Tabs():
        with gr.Tab("Two sets"):
            judges = gr.CheckboxGroup(JUDGES, label="Judges (none: those that can be had)", elem_id="judges")
            add_job(workspace, "Evaluate", evaluate, [real, fake, judges])
        with gr.Tab("Nearest pairs"):
            add_job(workspace, "Find copies", leaks, [real, fake], gr.Image(
                label="Nearest pairs, fakes on the left", interactive=False, elem_classes="pixels"))
        with gr.Tab("Data card"):
            run = gr.Dropdown(list(workspace.runs()), label="Run", info="With the JSON files in its folder")
            add_job(workspace, "Write the card", card, [run], gr.Markdown())
        with gr.Tab("People (HYPE)"):
            images = gr.Slider(10, 200, 100, step=2, label="Images that a person judges")
            add_job(workspace, "Make the page", hype, [real, fake, images], gr.File(
                label="The page, which needs no network", interactive=False))
    return [(real, workspace.data), (fake, lambda: fakes(workspace)), (run, lambda: list(workspace.runs()))]


def fakes(workspace: Workspace) -> list[str]:
    """What can be judged as fake."""
    return [*workspace.data(), *workspace.models(translate=False)]


def add_job(workspace: Workspace, title: str, plan: Callable[..., Any], inputs: Sequence[Any],
            view: Any = None) -> None:
    """A button that runs what `plan` says as a process, and shows what it prints as it comes."""
    button, said, lines = gr.Button(title, variant="primary"), gr.HTML(report()), gr.HTML(by_hand())

    @errors_shown
    def run(*values: Any) -> Iterator[list[Any]]:
        folder = workspace.new_folder()
        words, hand, out = plan(workspace, folder, *values)
        outcome, rest = None, [gr.skip()] * bool(view)
        yield [report("at work …"), by_hand(shown(hand), shown_python(hand)), *rest]
        for outcome in workspace.stream(words):
            yield [report(outcome.text), gr.skip(), *rest]
        if outcome is None or (outcome.code and (out is None or not out.exists())):
            raise (RequestError if outcome and outcome.code == 2 else JobError)(
                reason(outcome) if outcome else "nothing was printed")
        if view is not None and out is not None:
            made = out.read_text(errors="replace") if out.suffix == ".md" else str(out)
            said_last = gr.skip()
            if out.suffix == ".html" and workspace.link:
                workspace.judged = out
                said_last = report(f"{outcome.text}\nfor others on the network: {workspace.link}")
            yield [said_last, gr.skip(), made]

    button.click(run, list(inputs), [said, lines, *[view] * bool(view)], show_progress_on=said, **OPTIONS)


def check(workspace: Workspace, real: str | None, fake: str | None) -> None:
    """RequestError unless both are offered."""
    for name, offered in ((real, workspace.data()), (fake, fakes(workspace))):
        if name not in offered:
            raise RequestError("choose real and fake images first" if not name else
                               f"{name[:60]} is not offered")


def evaluate(workspace: Workspace, folder: Path, real: str, fake: str, judges: Sequence[str]) -> Any:
    """`i2i evaluate`: the words, those to type, and the file that they write."""
    check(workspace, real, fake)
    if fake not in workspace.data():
        raise RequestError(f"{fake} is a model; generate a set with it first, or ask for its nearest pairs")
    words = ["evaluate", "--real", real, "--fake", fake]
    words += ["--features", ",".join(judges)] if judges else []
    return words, words, None


def leaks(workspace: Workspace, folder: Path, real: str, fake: str) -> Any:
    """The words of `i2i leaks` to run and to type, and the sheet of nearest pairs that it writes."""
    check(workspace, real, fake)
    words = ["leaks", "--train", real, "--fake", fake, "--sheet"]
    return [*words, str(folder / "pairs.png")], [*words, "pairs.png"], folder / "pairs.png"


def card(workspace: Workspace, folder: Path, run: str | None) -> Any:
    """`i2i report --data-card`."""
    if run not in workspace.runs():
        raise RequestError("choose a run first")
    words = ["report", run, "--data-card", "--out"]
    return [*words, str(folder / "report.html")], [*words, "report.html"], folder / "data-card.md"


def hype(workspace: Workspace, folder: Path, real: str, fake: str, images: int) -> Any:
    """`i2i hype build`."""
    check(workspace, real, fake)
    words = ["hype", "build", "--real", real, "--fake", fake, "--images", str(images), "--out"]
    return [*words, str(folder / "hype.html")], [*words, "hype.html"], folder / "hype.html"
