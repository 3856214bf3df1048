"""Parts that the tabs share."""

import functools
import html
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from i2i.errors import I2IError, RequestError

# Dropdowns, and what is offered in each, which changes while the page is open.
Choices = list[tuple[Any, Callable[[], list[str]]]]
# Of events: they are no API, and several may wait for their turn.
OPTIONS: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 8}


def by_hand(command: str = "", python: str = "") -> str:
    """The command line and the Python lines that do what was done; a click selects one."""
    boxes = {"Command line": command, "Python": python}
    return "<div class='lines'>" + "".join(
        f"<figure><figcaption>{name}</figcaption><pre tabindex='0' role='region' aria-label='{name}'>"
        f"{html.escape(text)}</pre></figure>" for name, text in boxes.items() if text) + "</div>"


def report(text: str = "") -> str:
    """What a command printed, which screen readers say."""
    return f"<pre class='said' role='status' aria-label='What was done'>{html.escape(text)}</pre>"


def errors_shown(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or generator, whose errors that a user can act on become a notice on the page."""
    @contextmanager
    def noticed() -> Iterator[None]:
        try:
            yield
        except I2IError as error:
            raise gr.Error(str(error), print_exception=False) from None

    @functools.wraps(function)
    def wrapped(*values: Any) -> Any:
        with noticed():
            return function(*values)

    @functools.wraps(function)
    def streamed(*values: Any) -> Iterator[Any]:
        with noticed():
            yield from function(*values)
    return streamed if inspect.isgeneratorfunction(function) else wrapped


def whole_number(name: str, text: str) -> int | None:
    """A number from 0 on; None for nothing.  RequestError for anything else."""
    text = text.strip()
    if text and not (text.isascii() and text.isdecimal()):
        raise RequestError(f"{name} {text[:20]} is no number; accepted: 0, 1, 2, …")
    return int(text) if text else None
