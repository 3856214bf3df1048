"""The tab Runs: how all stand, the reports of one or two while they train, stop and resume."""

import html
import subprocess
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import gradio as gr

from i2i.cli.studio.parts import OPTIONS, Choices, by_hand, errors_shown, report
from i2i.cli.studio.workspace import Outcome, Workspace, reason, shown
from i2i.errors import I2IError, JobError, RequestError
from i2i.report.run_status import read_status, version_of

EVERY = 2           # Seconds between two looks.
MAX_RUNS = 50       # That the table shows, the newest.
EARLY = 5           # Seconds in which a run that cannot be resumed says so.
COLUMNS = ("Run", "Recipe", "State", "Images", "Images/s", "Time left", "Verdict")


def build(workspace: Workspace) -> Choices:
    """Build the tab; returns where names are chosen, and from which."""
    names = list(workspace.runs())
    table = gr.HTML(table_of(workspace), elem_id="table")
    with gr.Row():
        run = gr.Dropdown(names, value=names[0] if names else None, label="Run", elem_id="run")
        other = gr.Dropdown(["", *names], value="", label="Beside it")
        stop = gr.Button("Save and stop")
        resume = gr.Button("Resume")
    said, lines = gr.HTML(report(), elem_id="run-said"), gr.HTML(by_hand())
    frames = gr.HTML(frames_of(workspace, names[:1]))
    gr.Timer(EVERY).tick(lambda: table_of(workspace), None, table, show_progress="hidden", **OPTIONS)
    for choice in (run, other):
        choice.change(lambda *chosen: frames_of(workspace, [name for name in chosen if name]), [run, other],
                      frames, **OPTIONS)

    @errors_shown
    def stop_run(name: str) -> tuple[str, str]:
        from i2i.training.interruption import interrupt
        pid = interrupt(find(workspace, name))
        return (report(f"{name} saves and stops"),
                by_hand(f"kill -INT {pid}", "from i2i.training.interruption import interrupt\n\n"
                                            f"interrupt({name!r})"))

    @errors_shown
    def resume_run(name: str) -> tuple[str, str]:
        words = ["train", "--resume", str(find(workspace, name))]
        start(workspace, words)
        return (report(f"{name} goes on, also when the studio ends"),
                by_hand(shown(words), f"from i2i import train\n\ntrain(resume={name!r})"))

    stop.click(stop_run, run, [said, lines], show_progress_on=said, **OPTIONS)
    resume.click(resume_run, run, [said, lines], show_progress_on=said, **OPTIONS)
    return [(run, lambda: list(workspace.runs())), (other, lambda: ["", *workspace.runs()])]


def find(workspace: Workspace, name: str) -> Any:
    """The folder of a run.  RequestError if it is not there."""
    runs = workspace.runs()
    if name not in runs:
        raise RequestError("choose a run first" if not name else f"{name} is not there any more")
    return runs[name]


def start(workspace: Workspace, words: list[str]) -> None:
    """Start a command that outlives the studio.  JobError with what it says if it fails at once."""
    log = workspace.new_folder() / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "i2i.cli", *words], stdin=subprocess.DEVNULL,
                                   stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    with suppress(subprocess.TimeoutExpired):
        if code := process.wait(EARLY):
            raise JobError(reason(Outcome(code, log.read_text(errors="replace"))))


def table_of(workspace: Workspace) -> str:
    """How the newest runs stand, as a table."""
    rows = []
    for name, path in list(workspace.runs().items())[:MAX_RUNS]:
        with suppress(I2IError, OSError):
            status = read_status(path)
            cells = (name, status.recipe, status.state,
                     f"{status.images:,} of {status.total:,}" if status.total else f"{status.images:,}",
                     f"{status.speed:,.1f}" if status.speed else "", duration(status.seconds_left),
                     status.sentence)
            kinds = ["", "", "", "number", "number", "number", "alarm" if status.collapsed else ""]
            rows.append("<tr>" + "".join(f"<td class='{kind}'>{html.escape(cell)}</td>"
                                         for kind, cell in zip(kinds, cells, strict=True)) + "</tr>")
    if not rows:
        return f"<p>There are no runs in {html.escape(str(workspace.folder.resolve()))} yet.</p>"
    head = "".join(f"<th scope='col'>{title}</th>" for title in COLUMNS)
    return ("<div class='runs' tabindex='0' role='region' aria-label='Runs'><table>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>")


def frames_of(workspace: Workspace, names: list[str]) -> str:
    """The reports of runs, side by side; the page's script loads them anew when there is something new."""
    runs = workspace.runs()
    return "<div class='frames'>" + "".join(
        f"<iframe title='Report of {html.escape(name, quote=True)}' src='/report?run={quote(name, safe='')}' "
        f"data-version='/report/version?run={quote(name, safe='')}' data-shown='{version_of(runs[name])}'>"
        "</iframe>" for name in dict.fromkeys(names) if name in runs) + "</div>"


def duration(seconds: float | None) -> str:
    """Hours and minutes, or seconds below a minute."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else (
        f"{minutes} min" if minutes else f"{seconds:.0f} s")
