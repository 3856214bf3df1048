"""i2i models."""


def models() -> None:
    """List the trained models that come with the package; their names stand for MODEL everywhere."""
    from i2i.inference.bundled_models import bundled_models
    for name, model in bundled_models().items():
        size = f"{model.file.stat().st_size / 1e6:.1f} MB"
        for left, text in ((name, model.purpose), (size, f"trained on {model.data}, {model.license}"),
                           ("", model.figures), ("", model.usage), ("", str(model.card))):
            print(f"{left:18}{text}")
