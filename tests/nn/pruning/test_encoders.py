"""Encoders that others wrote, for texts and images: whole heads and feed-forward channels go, for good."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import nn

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.models.inputs import ImageInput, InputSpec, TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.pruning.channels import prune_channels
from dlx_deploy.nn.pruning.costs import count_macs
from dlx_deploy.nn.weights.network import Architecture, build, load_model, save_model

from ...arrays import check_parity, quantize_model, run_onnx, text_spec
from .networks import silenced

TEXTS, IMAGES = TokenInput(64, 16), ImageInput(3, 16, 16)
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 24, "pad_token_id": 0, "embedding_size": 16, "image_size": 16, "patch_size": 8,
}  # fmt: skip
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
TIMM = {"embed_dim": 32, "depth": 2, "num_heads": 4, "patch_size": 8}


def architecture(kind: str) -> Architecture:
    """``kind``: one of transformers, or timm's."""
    if kind.startswith("timm:"):
        pytest.importorskip("timm")
        return Architecture(model=kind, arguments=TIMM, classes=3, input=IMAGES)
    transformers = pytest.importorskip("transformers")
    sizes = {**SIZES, **(DISTILBERT if kind == "distilbert" else {})}
    config = transformers.AutoConfig.for_model(kind, **sizes).to_dict()
    spec: InputSpec = IMAGES if kind == "vit" else TEXTS
    return Architecture(model="hf:away", arguments={"config": config}, classes=3, input=spec)


def network(of: Architecture) -> nn.Module:
    """Every layer has a bias of distinct numbers, as ``silenced`` needs."""
    torch.manual_seed(0)
    model = build_model(of.model, of.arguments, of.classes, of.input).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)
    return model


def reads(spec: InputSpec) -> Any:
    return spec if isinstance(spec, TokenInput) else tuple(spec.example(2).shape)


@pytest.mark.parametrize(
    ("kind", "attentions"),
    [
        *(("bert", 2), ("roberta", 2), ("electra", 2), ("distilbert", 2), ("albert", 1)),
        *(("vit", 2), ("timm:vit_tiny_patch16_224", 2)),
    ],
)
def test_heads_and_channels_go_and_the_artifact_rebuilds_them(kind: str, attentions: int, tmp_path: Path) -> None:
    of = architecture(kind)
    model = network(of)
    pruned, report = prune_channels(model, reads(of.input), 0.45)
    assert 0.4 <= report.reduction < 0.6
    assert list(report.heads.values()) == [2] * attentions
    assert count_macs(pruned, of.input.example(1)) == report.macs_after
    assert sum(now.inputs == 32 for now in report.channels.values()) >= 2 * attentions  # of both kinds, in each layer
    inputs = of.input.drawn(4)
    with torch.no_grad():
        expected = silenced(model, pruned)(inputs)
        assert torch.allclose(pruned(inputs), expected, atol=1e-5)
        assert not torch.allclose(model(inputs), expected, atol=1e-3)
        save_model(tmp_path, pruned, replace(of, pruned=report.channels, heads=report.heads))
        loaded, read = load_model(tmp_path)
        assert read.heads == report.heads
        assert torch.equal(loaded(inputs), pruned(inputs))
    again, twice = prune_channels(loaded, reads(of.input), 0.2)
    assert set(twice.heads.values()) == {1}
    assert again(inputs).shape == (4, 3)


def test_the_weakest_heads_go() -> None:
    of = architecture("bert")
    model = network(of)
    with torch.no_grad():
        for layer in model.get_submodule("network.bert.encoder.layer"):  # type: ignore[attr-defined]
            for part in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
                part.weight[8:16] /= 9
            layer.attention.output.dense.weight[:, 8:16] /= 9
    pruned, report = prune_channels(model, TEXTS, 0.2)
    assert list(report.heads.values()) == [3, 3]
    stay = [*range(8), *range(16, 32)]
    for name in report.heads:
        for part in ("query", "key", "value"):
            seen, whole = (network.get_submodule(f"{name}.{part}") for network in (pruned, model))
            assert torch.equal(seen.weight, whole.weight[stay])  # type: ignore[arg-type,index]


def test_a_pruned_encoder_is_exported_and_quantized(tmp_path: Path) -> None:
    of = architecture("bert")
    model, report = prune_channels(network(of), TEXTS, 0.45)
    assert report.heads
    path, spec = tmp_path / "m.onnx", text_spec(max_length=16, pad_id=0, length="dynamic")
    export_onnx(model, path, spec)
    tokens = TEXTS.drawn(6).numpy().astype(np.int32)
    assert check_parity(path, model, spec, tokens, 1e-3).vacuous == ()
    quantize_model(path, tmp_path / "q.onnx", tokens, QuantizationRequest(style="cpu"), pad_id=0)
    exact, rounded = (run_onnx(tmp_path / f"{n}.onnx", tokens, exact_qdq=False, pad_id=0) for n in ("m", "q"))
    assert np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()


def test_heads_that_do_not_belong_to_the_network_are_refused() -> None:
    of = architecture("bert")
    attention = "network.bert.encoder.layer.0.attention.self"
    for heads, message in (
        ({"conv9": 2}, "heads of 'conv9' is 2; the model has no heads there: it belongs to another"),
        ({attention: 5}, f"heads of '{attention}' is 5; the model has 4 heads there"),
        ({attention: 0}, "is 0; the model has 4 heads there"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(replace(of, heads=heads))


def test_heads_with_a_bias_of_their_own_stay() -> None:
    """Of Swin: the bias would have to lose places too."""
    pytest.importorskip("timm")
    arguments = {"embed_dim": 16, "depths": (2,), "num_heads": (2,), "window_size": 4, "patch_size": 2}
    model = build_model("timm:swin_tiny_patch4_window7_224", arguments, 3, IMAGES).eval()
    pruned, report = prune_channels(model, (2, 3, 16, 16), 0.2)
    assert not report.heads
    assert report.left["layers.0.blocks.0.attn.qkv"] == "add in 'layers.0.blocks.0.attn'"
    assert pruned(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


class Written(nn.Module):
    """One attention over the rows of an image, as users write it."""

    def __init__(self, attribute: str, width: int) -> None:
        super().__init__()
        self.attribute, self.width, self.out = attribute, width, nn.Linear(32, 32)
        setattr(self, attribute, 4)
        self.parts, self.head = nn.ModuleList(nn.Linear(48, 32) for _ in range(3)), nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images.transpose(1, 2).flatten(2)  # [N, 16, 48]
        heads = getattr(self, self.attribute)
        query, key, value = (part(rows).view(len(rows), 16, heads, self.width).transpose(1, 2) for part in self.parts)
        seen = (query @ key.transpose(2, 3)).softmax(3) @ value
        out: torch.Tensor = self.head(self.out(seen.transpose(1, 2).flatten(2)).mean(1))
        return out


@pytest.mark.parametrize(
    ("attribute", "width", "why"),
    [
        ("heads", 8, None),
        ("number", 8, r"it does not compute \(RuntimeError: shape"),
        ("number", -1, "its answers are .* of the largest off"),  # as many heads, of another width: a silent fault
    ],
)
def test_heads_of_a_users_attention_go_where_it_says_how_many_in_a_usual_name(
    attribute: str, width: int, why: str | None
) -> None:
    torch.manual_seed(0)
    model = Written(attribute, width).eval()
    pruned, report = prune_channels(model, (2, 3, 16, 16), 0.2 if why is None else 0.1)
    assert report.heads == ({"": 3} if why is None else {})
    assert pruned.get_submodule("parts.0").weight.shape[0] == (24 if why is None else 32)
    assert why is None or re.match(why, report.left["parts.0"])
    assert getattr(model, attribute) == 4


def test_what_cannot_be_pruned() -> None:
    class Counts(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens.float()[:, :3]

    with pytest.raises(StageFailed, match=r"no multiply-accumulates are counted in this Counts"):
        prune_channels(Counts(), TEXTS, 0.2)
    with pytest.raises(StageFailed, match=r"the network does not run on a batch of shape \[2, 16\]"):
        prune_channels(nn.Linear(16, 2), TEXTS, 0.2)
    with pytest.raises(StageFailed, match=r"prune\.reduce_macs is 0\.99; with round_to = 8, keep_trunk = true at most"):
        prune_channels(network(architecture("bert")), TEXTS, 0.99)
