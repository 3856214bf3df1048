"""i2i export."""

from dataclasses import asdict
from typing import Annotated

from i2i.cli.options import NO_JSON, Json, Model, Plugins, option


def export(
    model: Model,
    out: Annotated[str, option("FILE", "The file to write: .onnx, .pt2 or .safetensors.")],
    format: Annotated[str | None, option(
        "onnx|pt2|safetensors", "ONNX, torch.export, or a model file; by default by FILE's name.")] = None,
    direction: Annotated[str, option(
        "ab|ba", "ba: from b to a, in models that learned both ways.")] = "ab",
    pixels: Annotated[bool, option(
        None, "Images in and out as files hold them: (N, H, W, C) of uint8 (uint16, float32); otherwise "
              "(N, C, H, W) of floats in [-1, 1].", "--pixels")] = False,
    half: Annotated[bool, option(None, "Of .safetensors: weights in half precision.", "--half")] = False,
    statistics: Annotated[str | None, option(
        "running|image", "Batch norm statistics; by default running.")] = None,
    json_output: Json = NO_JSON, plugin: Plugins = None,
) -> None:
    """Export a model for use without i2i, and verify that the file makes the images of the model."""
    from i2i.files import check_file
    from i2i.inference import export as exporting
    from i2i.inference.model import load
    check_file("--out", out)
    loaded = load(model, "cpu")
    if statistics is not None:
        loaded.statistics = statistics
    result = exporting.export(loaded, out, format or "", direction=direction, pixels=pixels, half=half)
    print(f"{result.path} ({result.size / 1e6:.1f} MB), verified with {result.samples}: the largest "
          f"difference is {result.difference:.2g}, where images are -1 to 1")
    print(f"\n{result.example}", end="")
    json_output.write(asdict(result) | {"path": str(result.path)})
