"""i2i models."""

import textwrap
from dataclasses import asdict

from i2i.cli.options import NO_JSON, Json

WIDTH = 92          # Characters of a line beside the name.


def models(json_output: Json = NO_JSON) -> None:
    """List the trained models that come with the package; their names stand for MODEL everywhere."""
    from i2i.inference.bundled_models import bundled_models
    for name, model in bundled_models().items():
        size = f"{model.file.stat().st_size / 1e6:.1f} MB"
        for left, text in ((name, model.purpose), (size, f"trained on {model.data}, {model.license}"),
                           ("", model.figures), ("", model.usage), ("", str(model.card))):
            lines = textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False)
            print(f"{left:18}{lines[0]}", *lines[1:], sep=f"\n{'':18}")
    json_output.write({"models": [
        asdict(model) | {"file": str(model.file), "bytes": model.file.stat().st_size}
        for model in bundled_models().values()]})
