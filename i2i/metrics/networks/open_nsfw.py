"""Yahoo's Open NSFW: a thin ResNet-50 trained on other pictures than ImageNet's, run by ONNX Runtime."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2i.errors import RequestError
from i2i.metrics.networks.base import FeatureNetwork
from i2i.metrics.weights import catalog_entry, find_weights
from i2i.registry import register

POOLED, LOGITS = "/Cast_306_output_0", "/Cast_308_output_0"     # Values of the graph that it does not return.
GRAPH, OUTPUT, NAME = 7, 12, 1          # Fields of ModelProto, GraphProto and ValueInfoProto in onnx.proto.


@register("feature_network", "open-nsfw")
class OpenNSFW(FeatureNetwork):
    """Yahoo's Open NSFW (ResNet-50-thin), 1024 features; needs i2i-toolkit[judges].

    It has no feature maps: nothing is trained with it, which makes it a judge of what is.
    """

    name, size, num_features = "open-nsfw", 224, 1024
    mean, std = (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")     # Its official builds would send some.
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError:
            raise RequestError(f"{self.name} runs in ONNX Runtime, which is not installed: "
                               "pip install 'i2i-toolkit[judges]'") from None
        path = find_weights(self.name) if path is None else path
        model = catalog_entry(self.name).check(path).read_bytes()
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session: Any = onnxruntime.InferenceSession(with_outputs(model, POOLED, LOGITS), options,
                                                         providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.weights, self.layers, self.default_layers = catalog_entry(self.name).sha256, {}, ()
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        bgr = x.float().cpu().flip(1).permute(0, 2, 3, 1).contiguous()
        features, logits = self.session.run([POOLED, LOGITS], {self.input: bgr.numpy()})
        return torch.from_numpy(features), torch.from_numpy(logits)


def with_outputs(model: bytes, *names: str) -> bytes:
    """An ONNX model that also returns these values: parsers merge what is appended to a message."""
    for name in names:
        model += message(GRAPH, message(OUTPUT, message(NAME, name.encode())))
    return model


def message(field: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes shorter than 128."""
    return bytes([field << 3 | 2, len(content)]) + content
