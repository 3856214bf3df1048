"""The page on which people tell real images from fake ones: one file that needs no network and no server."""

from collections.abc import Mapping
from typing import Any

from i2i.report.page import assets, make_environment

SECONDS = 4         # Per image, countdown included; an estimate.


def count_images(settings: Mapping[str, Any]) -> tuple[int, int]:
    """How many images one person judges, and about how many minutes that takes."""
    images = settings["practice"] + settings["qualification"] + settings["blocks"] * settings["images"]
    return images, max(1, round(images * SECONDS / 60))


def render_study(study: Mapping[str, Any]) -> str:
    """The whole HTML document of a study of `i2i.evaluation.hype_study`."""
    settings = study["settings"]
    images, minutes = count_images(settings)
    return make_environment().get_template("hype.html").render(
        **assets("hype"), study=study, images=images, minutes=minutes, mask=settings["mask"],
        timed=settings["protocol"] == "time")
