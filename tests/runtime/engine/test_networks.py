"""Whole networks in every precision by TensorRT-RTX: ResNet, MobileNet, torchvision's ViT, a Transformer encoder,
attention written by hand.

Every kind of block and every change of stride is there, each as often as it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization.layers import layer_precision
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.runtime.engine.build import build_engine
from dlx_deploy.runtime.engine.settings import BuildSettings

from ...arrays import image_spec, quantize_model

pytestmark = pytest.mark.usefixtures("installed")
SIDE = 32


class Encoder(nn.Module):
    """Two layers of width 32 and 2 heads over 4 x 4 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        layer = nn.TransformerEncoderLayer(32, 2, 64, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)

    def forward(self, planes: Any) -> Any:
        tokens = self.patches(planes).flatten(2).transpose(1, 2)
        return self.head(self.encoder(tokens).mean(dim=1))


class ByHand(nn.Module):
    """Attention of width 32 and 2 heads over 4 x 4 patches, as many networks write it out."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.qkv = nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 96)
        self.proj, self.head = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, planes: Any) -> Any:
        tokens = self.patches(planes).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(-1, 64, 3, 2, 16).permute(2, 0, 3, 1, 4)
        weights = (q * 0.25 @ k.transpose(-2, -1)).softmax(-1)
        return self.head(self.proj((weights @ v).transpose(1, 2).reshape(-1, 64, 32)).mean(dim=1))


NETWORKS = {
    "resnet": lambda: models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4),
    "mobilenet": lambda: models.MobileNetV2(4, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]),
    "vit": lambda: models.VisionTransformer(SIDE, 8, 2, 2, 32, 64, num_classes=4),
    "transformer": Encoder,
    "attention by hand": ByHand,
}


@pytest.fixture(scope="module")
def installed() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install '.[tensorrt-rtx]'")


@pytest.fixture(scope="module", params=list(NETWORKS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = NETWORKS[request.param]().eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    path = tmp_path_factory.mktemp(request.param) / f"{request.param}.onnx"
    export_onnx(network, path, image_spec(SIDE, SIDE, 3, (0.5,) * 3, (0.25,) * 3, 20))
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_layer_computes_as_planned(source: Path, precision: str, tmp_path: Path) -> None:
    out, layers = source, layer_precision(load(source))
    if precision != "fp32":
        images = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
        out = tmp_path / "m.onnx"
        layers = quantize_model(
            source, out, images, QuantizationRequest("tensorrt", int8=precision == "int8", half=True)
        ).layers
    assert set(layers.values()) == {precision}
    asked = {name: kind for name, kind in layers.items() if kind != "fp32"}
    settings = BuildSettings(
        "tensorrt-rtx", precision, (1, 1, 4), layers=asked, compute_capabilities=("8.6", "8.9", "12.0")
    )
    table = build_engine(out.read_bytes(), settings).table  # raises where a layer came out wider
    computed = {
        node: layer.precision for layer in table.layers for node in layer.nodes if layer.kind in ("convolution", "gemm")
    }
    assert {computed[name] for name in layers} == {precision}
    allowed = {"fp32": {"fp32"}, "fp16": {"fp16"}, "int8": {"int8", "fp16"}}  # products of activations stay FP16
    assert set(table.counts()) <= allowed[precision]
