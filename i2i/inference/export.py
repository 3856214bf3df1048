"""Export a trained model for use without i2i, or as a smaller model file, and verify the file at once."""

import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.export import ExportedProgram

from i2i.config import VERSION
from i2i.errors import JobError, RequestError, one_line, require
from i2i.files import atomic_path, check_file
from i2i.images.format import Array
from i2i.inference.export_check import Arrays, Samples, generator_samples, translator_samples
from i2i.inference.export_example import example
from i2i.inference.export_graph import (
    Axes,
    Exportable,
    ExportableGenerator,
    ExportableTranslator,
    find_operation,
    trace,
)
from i2i.inference.model import Model, load
from i2i.runs import checkpoint

FORMATS = ("onnx", "pt2", "safetensors")
TOLERANCE = 1e-4            # Largest difference of any value in [-1, 1] from the original's.
HALF_TOLERANCE = 0.1        # With half-precision weights, whose rounding errors add up.
MAX_ONNX_BYTES = 2**31 - 2**20      # Of one protocol buffer, less the graph.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportResult:
    """A verified file, the largest difference from the original's images, and a program that uses it.

    Attributes:
        samples: what was compared.
        example: Python without i2i; of a model file, with it.
    """

    path: Path
    size: int
    difference: float
    samples: str
    example: str


def export(model: Model, out: str | Path, format: str = "", *, direction: str = "ab", pixels: bool = False,
           half: bool = False) -> ExportResult:
    """Write a model to a file and compare what that makes with what the model makes.

    Args:
        out: the file; by its name of format "onnx", "pt2" or "safetensors", unless that is given.
        direction: "ab", or "ba" in models that learned both.
        pixels: images are (N, H, W, C) as files hold them (uint8 …); else (N, C, H, W) floats in [-1, 1].
        half: half-precision weights, in a model file ("safetensors").

    Raises:
        RequestError: if the model cannot be exported; the message names the layer.
        JobError: if the file cannot be written, or makes other images; it is not left behind.
    """
    path = Path(out)
    format = _check_request(path, format, pixels=pixels, half=half)
    if format == "safetensors":
        tensors = model.modules.state_dict()
        tensors = checkpoint.in_half(tensors) if half else tensors
        return _write(path, lambda part: checkpoint.save(part, tensors, {"kind": "model", **model.header}),
                      partial(_run_model, model, direction), _samples(model, direction, pixels=False),
                      HALF_TOLERANCE if half else 0.0, f'import i2i\n\nmodel = i2i.load("{path}")\n')
    module = _exportable(model, direction, pixels=pixels)
    samples = _samples(model, direction, pixels=pixels)
    inputs = {name: torch.from_numpy(array) for name, array in samples.samples[1].inputs.items()}
    program = trace(module, inputs)
    text = example(model, module, direction, path, pixels=pixels)
    if format == "pt2":
        return _write(path, partial(_save_program, program), _run_program, samples, TOLERANCE, text,
                      module.output_format)
    data = _to_onnx(program, module, inputs, _metadata(model, direction))
    return _write(path, partial(Path.write_bytes, data=data), _run_onnx, samples, TOLERANCE, text,
                  module.output_format)


def _check_request(path: Path, format: str, *, pixels: bool, half: bool) -> str:
    """The format; RequestError for options that do not go together or packages that are missing."""
    suffix = path.suffix.lower().removeprefix(".")
    require(not format or format in FORMATS, "--format", format, ", ".join(FORMATS))
    require(suffix in FORMATS if not format else suffix == format, "--out", path,
            f"a name that ends in .{format or ', .'.join(FORMATS)}")
    require(not half or suffix == "safetensors", "--half", f"with .{suffix}", "with .safetensors")
    require(not pixels or suffix != "safetensors", "--pixels", f"with .{suffix}", "with .onnx or .pt2")
    check_file("--out", str(path))
    if missing := [name for name in PACKAGES if suffix == "onnx" and not importlib.util.find_spec(name)]:
        raise RequestError(f"exporting to ONNX needs {', '.join(missing)}: pip install 'i2i-toolkit[onnx]'")
    return suffix


def _exportable(model: Model, direction: str, *, pixels: bool) -> Exportable:
    steps = model.recipe.family.steps
    if steps != 1:
        raise RequestError(f"this {model.header['recipe']['name']} model calls its network "
                           f"{'for each pixel' if steps == 'pixels' else 'many times'} to make an image, and "
                           "a graph would hold each call; accepted: models of one call, or --format "
                           "safetensors")
    if not model.directions:
        require(direction == "ab", "--direction", direction, "none, as this model makes images from noise")
        return ExportableGenerator(model, pixels=pixels)
    side = model.sides(direction)[0]
    if pixels and model.formats[side].clahe:
        raise RequestError(f"--pixels: the CLAHE that images of side {side} go through cannot be exported; "
                           "accepted: no --pixels, and CLAHE before the exported model")
    return ExportableTranslator(model, direction, pixels=pixels)


def _samples(model: Model, direction: str, *, pixels: bool) -> Samples:
    if not model.directions:
        return generator_samples(model)
    return translator_samples(model, direction, pixels=pixels)


def _write(path: Path, write: Callable[[Path], object], run: Callable[[Path, Arrays], Array],
           samples: Samples, tolerance: float, text: str, pixels: Any = None) -> ExportResult:
    """Write a file under a temporary name, verify it, and only then give it its name."""
    try:
        with atomic_path(path, sync=True) as part:
            write(part)
            size = part.stat().st_size
            try:
                difference = samples.difference(partial(run, part), pixels)
            except Exception as error:      # Whatever runs it raises its own.
                raise JobError(f"what was exported cannot be run on {samples.description}: "
                               f"{one_line(error)[:300]}; {path} was not written") from None
            if not difference <= tolerance:
                raise JobError(f"what was exported differs from the model by {difference:.2g} on "
                               f"{samples.description}, where {tolerance:g} is accepted; {path} was not "
                               "written")
    except OSError as error:
        raise JobError(f"{path} could not be written: {error.strerror or error}") from None
    return ExportResult(path, size, difference, samples.description, text)


# ------------------------------------------------------------------------------------------- torch.export

def _save_program(program: ExportedProgram, part: Path) -> None:
    with open(part, "wb") as file:
        torch.export.save(program, file)


def _run_program(part: Path, inputs: Arrays) -> Array:
    with torch.no_grad(), open(part, "rb") as file:
        module = torch.export.load(file).module()
        output: Tensor = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return output.numpy()


# ------------------------------------------------------------------------------------------- ONNX

def _metadata(model: Model, direction: str) -> dict[str, str]:
    """What the file says about itself: a few values, each as text."""
    more = {"classes": json.dumps(model.classes)} if model.classes else {}
    return {"i2i": VERSION, "recipe": model.header["recipe"]["name"], "direction": direction,
            "images": str(model.header.get("images", 0)), **more}


def _to_onnx(program: ExportedProgram, module: Exportable, inputs: Mapping[str, Tensor],
             metadata: Mapping[str, str]) -> bytes:
    size = sum(tensor.nbytes for tensor in module.networks.state_dict().values())
    require(size <= MAX_ONNX_BYTES, "--format", "onnx", f"pt2 for {size / 1e9:.1f} GB of weights; a file of "
            "ONNX holds 2 GB")
    try:
        with torch.no_grad():
            converted = torch.onnx.export(program, (), kwargs=dict(inputs), dynamo=True, verbose=False,
                                          input_names=list(module.axes), output_names=["output"])
    except Exception as error:
        raise RequestError(_explain(error, module, inputs)) from None
    assert converted is not None
    proto = converted.model_proto
    _name_dimensions(proto.graph, module.axes)
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return bytes(proto.SerializeToString())


def _name_dimensions(graph: Any, axes: Axes) -> None:
    """Replace the symbols of dimensions, such as s77, by their names."""
    symbols = {}
    for value in graph.input:
        for axis, name in axes[value.name].items():
            symbols[value.type.tensor_type.shape.dim[axis].dim_param] = name
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda found: symbols.get(found[0], found[0]), dim.dim_param)


def _explain(error: Exception, module: Exportable, inputs: Mapping[str, Tensor]) -> str:
    """Which layer calls the operation that ONNX does not have, from the chain of an exporter's errors."""
    texts = [str(error)]
    while error.__cause__ is not None:
        error = cast(Exception, error.__cause__)
        texts.append(str(error))
    operation = re.search(r"(?:torch\.ops\.|op='|<OpOverload[^a-z]*)(aten\.\w+(?:\.\w+)?)", "\n".join(texts))
    if operation is None:
        return f"this model cannot be exported to ONNX: {texts[-1].strip().splitlines()[0][:200]}"
    layer = find_operation(module, inputs, operation[1])
    return (f"{layer} cannot be exported to ONNX, which has no {operation[1]}; accepted: --format pt2, or a "
            "model without it")


def _run_onnx(part: Path, inputs: Arrays) -> Array:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # type: ignore[import-untyped]
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(part), options, providers=["CPUExecutionProvider"])
    output: Array = session.run(None, dict(inputs))[0]
    return output


# ------------------------------------------------------------------------------------------- model files

def _run_model(original: Model, direction: str, part: Path, inputs: Arrays) -> Array:
    model = load(part, "cpu")
    model.statistics = original.statistics
    if model.directions:
        return model(torch.from_numpy(inputs["image"]), direction=direction).numpy()
    model.set_truncation(float(inputs.get("truncation", 1.0)))
    label = inputs.get("label")
    return model.generate_from(torch.from_numpy(inputs["z"]),
                               None if label is None else torch.from_numpy(label)).numpy()
