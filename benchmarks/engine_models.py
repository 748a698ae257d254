"""The networks of the engine benchmarks and GPU tests, exported and planned in each precision; random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization.layers import layer_precision
from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.spec import ExportSpec
from dlx_deploy.runtime.engine.settings import BuildSettings

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "PRECISIONS", "images", "network", "planned", "settings"]

PRECISIONS = ("fp32", "fp16", "int8")
OPSET = 20
MAX_BATCH = 16


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        made: nn.Module = getattr(torchvision.models, name)(weights=None)
        return made

    return make


def _transformer() -> nn.Module:
    """A small encoder (4 layers, width 128, 4 heads) over 4 x 4 patches of a 32 x 32 image."""
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 128, 4, 4)
            layer = nn.TransformerEncoderLayer(128, 4, 256, activation="gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
            self.head = nn.Linear(128, 10)

        def forward(self, planes: Any) -> Any:
            tokens = self.patches(planes).flatten(2).transpose(1, 2)  # (N, 64, 128)
            return self.head(self.encoder(tokens).mean(dim=1))

    return Encoder()


MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    "resnet18": (_torchvision("resnet18"), 224),
    "mobilenet_v2": (_torchvision("mobilenet_v2"), 224),
    "vit_b_16": (_torchvision("vit_b_16"), 224),
    "transformer_encoder": (_transformer, 32),
}
"""Name → how it is made, and the side of its images."""


def network(name: str) -> Any:
    """The network with fixed random weights, in eval mode; a head of zeros is drawn again so that logits differ."""
    import torch

    torch.manual_seed(0)
    made = MODELS[name][0]().eval()
    for parameter in made.parameters():
        if parameter.ndim == 2 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return made


def images(name: str, count: int) -> np.ndarray:
    """uint8[count, S, S, 3], NHWC: smooth random pictures, as noise alone looks all the same to a network."""
    side = MODELS[name][1]
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(side // 8, axis=1).repeat(side // 8, axis=2)


def planned(name: str, precision: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """The ONNX of ``name`` in ``precision`` (INT8 with FP16 elsewhere), and what each layer asks for."""
    source, out = folder / f"{name}.onnx", folder / f"{name}-{precision}.onnx"
    if not source.exists():
        side = MODELS[name][1]
        spec = ExportSpec(side, side, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), {"logits": (None,)}, OPSET)
        export_onnx(network(name), source, spec)
    if precision == "fp32":
        return source, layer_precision(load(source))
    request = QuantizationRequest("tensorrt", int8=precision == "int8", half=True)
    return out, dict(quantize_model(source, out, Samples({"images": images(name, 16)}), request).layers)


def settings(flavour: str, precision: str, layers: dict[str, str]) -> BuildSettings:
    """What the builder is told: batches of 1 to 16, tuned for 1."""
    asked = {layer: kind for layer, kind in layers.items() if kind != "fp32"}
    return BuildSettings(flavour, precision, (1, 1, MAX_BATCH), layers=asked)
