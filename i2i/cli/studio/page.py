"""The studio's page: its tabs, and how it looks."""

from typing import Any

import gradio as gr

from i2i.cli.studio import translate_tab
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
#slider img, #spread img, #image img { image-rendering: pixelated }
footer { display: none !important }
"""
HEAD = ""


def make_theme() -> Any:
    """A theme with fonts of the system: none is loaded."""
    return gr.themes.Default(font=FONTS, font_mono=MONO)


def make_page(workspace: Workspace) -> Any:
    """The page with all tabs."""
    with gr.Blocks(title="i2i studio", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown("# i2i studio")
        with gr.Tabs(), gr.Tab("Translate"):
            translate_tab.build(workspace)
    return page.queue(default_concurrency_limit=4, max_size=100)
