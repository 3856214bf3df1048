"""The studio's page: its tabs, and how it looks."""

from functools import partial
from typing import Any

import gradio as gr

from i2i.cli.studio import generate_tab, judge_tab, runs_tab, translate_tab
from i2i.cli.studio.parts import OPTIONS, Choices
from i2i.cli.studio.workspace import Workspace

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
CSS = """
pre { font-family: var(--font-mono); font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere }
.lines { display: flex; flex-wrap: wrap; gap: 1rem }
.lines figure { flex: 1 1 18rem; margin: 0; min-width: 0 }
.lines figcaption { color: var(--body-text-color-subdued); font-size: .85rem }
.lines pre { user-select: all; padding: .6rem; border: 1px solid var(--border-color-primary);
  border-radius: var(--radius-sm); background: var(--block-background-fill) }
.runs { overflow-x: auto }
.runs table { width: 100%; border-collapse: collapse; font-size: .9rem }
.runs :is(th, td) { text-align: left; padding: .35rem .6rem; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important }
.runs td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.runs .alarm { color: var(--error-text-color); font-weight: 600 }
.frames { display: flex; flex-wrap: wrap; gap: 1rem }
.frames iframe { flex: 1 1 20rem; min-width: 0; height: 80vh; border: 1px solid var(--border-color-primary);
  border-radius: var(--radius-sm) }
#slider img, #spread img, #image img, .pixels img { image-rendering: pixelated }
footer { display: none !important }
"""
HEAD = """<script>
setInterval(async () => {       // Reports are loaded anew when their runs go on.
  for (const frame of document.querySelectorAll("iframe[data-version]")) {
    const answer = await fetch(frame.dataset.version).catch(() => null);
    const version = answer?.ok ? await answer.json() : frame.dataset.shown;
    if (frame.dataset.shown !== version) frame.contentWindow.location.reload();
    frame.dataset.shown = version;
  }
}, 2000);
</script>"""


def make_theme() -> Any:
    """A theme with fonts of the system: none is loaded."""
    return gr.themes.Default(font=FONTS, font_mono=MONO)


def offered(choices: Choices) -> Any:
    """The dropdowns of a tab with what is there now."""
    found = [gr.Dropdown(choices=names()) for _, names in choices]
    return found if len(found) > 1 else found[0]


def make_page(workspace: Workspace) -> Any:
    """The page with all tabs."""
    with gr.Blocks(title="i2i studio", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown("# i2i studio")
        with gr.Tabs(selected="runs" if workspace.runs() else "translate"):
            for name, tab in (("Runs", runs_tab), ("Translate", translate_tab), ("Generate", generate_tab),
                              ("Judge", judge_tab)):
                with gr.Tab(name, id=name.lower()) as shown:
                    choices = tab.build(workspace)
                boxes, refresh = [box for box, _ in choices], partial(offered, choices)
                for event in (shown.select, page.load):
                    event(refresh, None, boxes, show_progress="hidden", **OPTIONS)
    return page.queue(default_concurrency_limit=4, max_size=100)
