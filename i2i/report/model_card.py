"""The page of a model on a hub: what it is, how it is used, and what was tested."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from i2i.errors import RequestError
from i2i.report.data_card import DataCard, make_card
from i2i.report.page import make_environment
from i2i.report.run_contents import read_run

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,40}")


@dataclass
class ModelCard:
    """What the page shows."""

    repo: str                       # USER/NAME.
    recipe: str
    translates: bool
    facts: Mapping[str, str]
    license: str = ""               # As the hub abbreviates it, such as mit.
    picture: str = ""               # Name of a file beside the page.
    tests: DataCard | None = None


def check_license(license: str) -> None:
    """RequestError unless this can be the hub's name of a license."""
    if license and not LICENSE.fullmatch(license):
        raise RequestError(f"--license {license} is no name of a license on the Hub; accepted: names such as "
                           "mit, apache-2.0, cc-by-4.0, other")


def read_tests(run: Path | None, results: Sequence[Path]) -> DataCard | None:
    """What was tested, by the result files in a run folder and further ones; None outside of one."""
    if run is None:
        if results:
            raise RequestError(f"--results {results[0]} is for a run folder; accepted: i2i push RUN …")
        return None
    card = make_card(run, read_run(run), results)
    card.not_tested = {kind: command.replace(str(run), "RUN") for kind, command in card.not_tested.items()}
    return card


def render_model_card(card: ModelCard) -> str:
    """The page as Markdown, with the metadata that the Hugging Face Hub reads."""
    template = make_environment().get_template("model.md")
    return template.render(card=card).encode(errors="backslashreplace").decode()
