"""Attention of torch's own kind: put in parts that answer the same, so that heads go, for good."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.pruning.channels import prune_channels
from dlx_deploy.nn.pruning.costs import count_macs
from dlx_deploy.nn.weights.attention import SplitAttention, split_attention, why_whole
from dlx_deploy.nn.weights.network import Architecture, build, load_model, save_model

from ...arrays import check_parity, image_spec, quantize_model, run_onnx

SPEC = ImageInput(3, 16, 16)
SHAPE = (2, 3, 16, 16)
FILE = """
from torchvision.models import VisionTransformer
def make(num_classes):
    return VisionTransformer(16, 8, 2, 4, 32, 64, num_classes=num_classes)
"""


def seeded(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.normal_(0, fan**-0.5, generator=generator)
    return model.eval()


def vit() -> nn.Module:
    return seeded(VisionTransformer(16, 8, 2, 4, 32, 64, num_classes=3))


def attention_pairs() -> list[tuple[dict[str, Any], nn.MultiheadAttention]]:
    kinds = ({}, {"bias": False}, {"kdim": 6, "vdim": 10}, {"dropout": 0.5})
    options = [{**kind, "batch_first": first} for kind in kinds for first in (True, False)]
    return [(o, nn.MultiheadAttention(8, 2, **o).eval()) for o in options]


def masks(like: str) -> dict[str, Tensor]:
    """Of 3 queries and 5 keys in a batch of 2; no row is masked to the end."""
    causal = torch.ones(3, 5, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False] * 5, [False] * 2 + [True] * 3])
    each = torch.randn(4, 3, 5)
    return {
        "none": {},
        "bool": {"attn_mask": causal},
        "float": {"attn_mask": torch.randn(3, 5)},
        "each head": {"attn_mask": each},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": causal, "key_padding_mask": padding},
    }[like]  # type: ignore[return-value]


@pytest.mark.parametrize("like", ["none", "bool", "float", "each head", "padding", "both"])
def test_in_parts_it_answers_as_before(like: str) -> None:
    torch.manual_seed(0)
    for (options, whole), need in itertools.product(attention_pairs(), (True, False)):
        split = SplitAttention(copy.deepcopy(whole)).eval()
        sources = [torch.randn(2, n, width) for n, width in ((3, 8), (5, whole.kdim), (5, whole.vdim))]
        if not options["batch_first"]:
            sources = [source.transpose(0, 1) for source in sources]
        given = {**masks(like), "need_weights": need, "average_attn_weights": like != "float"}
        expected, seen = whole(*sources, **given), split(*sources, **given)
        assert seen[0].shape == expected[0].shape
        assert torch.allclose(seen[0], expected[0], atol=1e-6)
        assert (seen[1] is None) == (not need)
        assert not need or torch.allclose(seen[1], expected[1], atol=1e-6)
    alone = [torch.randn(n, 8) for n in (3, 5, 5)]
    one, other = nn.MultiheadAttention(8, 2).eval(), masks("bool" if like == "bool" else "none")
    expected, seen = one(*alone, **other), SplitAttention(copy.deepcopy(one))(*alone, **other)
    assert torch.allclose(seen[0], expected[0], atol=1e-6)
    assert seen[1].shape == expected[1].shape


def made(tmp_path: Path, source: str = FILE) -> Architecture:
    (tmp_path / "nets.py").write_text(source)
    return Architecture(model=f"{tmp_path / 'nets.py'}:make", classes=3, input=SPEC)


def deaf(model: nn.Module, pruned: nn.Module, layers: int) -> nn.Module:
    """``model`` with zeros where it reads what ``pruned`` has not, found by its weights."""

    def gone(whole: Tensor, left: Tensor) -> Tensor:
        lost = ~(whole[:, None] == left[None]).all(-1).any(-1)
        assert int(lost.sum()) == len(whole) - len(left)
        return lost

    silent = copy.deepcopy(model)
    with torch.no_grad():
        for i in range(layers):
            name = f"encoder.layers.encoder_layer_{i}."
            before, after = (dict(network.named_modules()) for network in (silent, pruned))
            whole, left = before[name + "self_attention"], after[name + "self_attention"]
            values = whole.in_proj_weight[2 * whole.embed_dim :]  # type: ignore[index,operator]
            whole.out_proj.weight[:, gone(values, left.v_proj.weight)] = 0  # type: ignore[union-attr,index,arg-type]
            hidden, fewer = before[name + "mlp.0"].weight, after[name + "mlp.0"].weight
            before[name + "mlp.3"].weight[:, gone(hidden, fewer)] = 0  # type: ignore[index,operator,arg-type]
    return silent


def test_heads_of_torchvisions_vit_go_and_the_artifact_rebuilds_them(tmp_path: Path) -> None:
    model, of = vit(), made(tmp_path)
    pruned, report = prune_channels(model, SHAPE, 0.45)
    names = tuple(f"encoder.layers.encoder_layer_{i}.self_attention" for i in range(2))
    assert report.split == names
    assert report.heads == dict.fromkeys(names, 2)
    assert count_macs(pruned, SPEC.example(1)) == report.macs_after
    assert 0.4 <= report.reduction < 0.6
    images = SPEC.drawn(4)
    kept = replace(of, pruned=report.channels, heads=report.heads, split=report.split)
    with torch.no_grad():
        save_model(tmp_path / "kept", pruned, kept)
        loaded, read = load_model(tmp_path / "kept")
        assert read.split == names
        assert torch.equal(loaded(images), pruned(images))
    again, twice = prune_channels(loaded, SHAPE, 0.2)
    assert twice.split == ()
    assert twice.heads == dict.fromkeys(names, 1)
    assert again(images).shape == (4, 3)


def test_what_stays_answers_as_the_whole_deaf_to_what_went() -> None:
    model, images = vit(), SPEC.drawn(4)
    pruned, _ = prune_channels(model, SHAPE, 0.45)
    with torch.no_grad():
        assert torch.allclose(pruned(images), deaf(model, pruned, 2)(images), atol=1e-5)
        assert not torch.allclose(pruned(images), model(images), atol=1e-2)


def test_attention_that_loses_nothing_stays_as_it_is() -> None:
    model = vit()
    pruned, report = prune_channels(model, SHAPE, 0.05)
    assert report.channels
    split = {name for name, module in pruned.named_modules() if isinstance(module, SplitAttention)}
    assert split == set(report.split) == set(report.heads)
    assert any(isinstance(module, nn.MultiheadAttention) for module in pruned.modules())


def test_a_pruned_vit_is_exported_and_quantized(tmp_path: Path) -> None:
    pruned, report = prune_channels(vit(), SHAPE, 0.45)
    assert report.split
    spec = image_spec(16, 16, 3, (0.5,) * 3, (0.5,) * 3)
    export_onnx(pruned, tmp_path / "m.onnx", spec)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    assert check_parity(tmp_path / "m.onnx", pruned, spec, images, 1e-3).vacuous == ()
    quantize_model(tmp_path / "m.onnx", tmp_path / "q.onnx", images, QuantizationRequest(style="cpu"))
    exact, rounded = (run_onnx(tmp_path / f"{n}.onnx", images, exact_qdq=False) for n in ("m", "q"))
    assert np.abs(exact - rounded).max() < 0.2 * np.abs(exact).max()


class Rows(nn.Module):
    """Attention over the rows of an image, as users write it; ``reads`` says what of its answer they read."""

    def __init__(self, attention: nn.Module, reads: str = "answer") -> None:
        super().__init__()
        self.stem, self.attention, self.head, self.reads = nn.Linear(48, 32), attention, nn.Linear(32, 3), reads

    def forward(self, images: Tensor) -> Tensor:
        rows = self.stem(images.transpose(1, 2).flatten(2))  # [N, 16, 32]
        out: Tensor = self.head(self._seen(rows).mean(1))
        return out

    def _seen(self, rows: Tensor) -> Tensor:
        seen: Tensor
        if isinstance(self.attention, nn.TransformerEncoder):
            padded = torch.arange(16).expand(len(rows), 16) >= 12
            seen = self.attention(rows, src_key_padding_mask=padded)
            return seen[:, :12] if self.reads == "real places" else seen
        if isinstance(self.attention, nn.TransformerEncoderLayer):
            seen = self.attention(rows)
            return seen
        mask = torch.ones(4 * len(rows), 16, 16).triu(1) if self.reads == "masked heads" else None
        seen, weights = self.attention(rows, rows, rows, attn_mask=mask, average_attn_weights=self.reads != "heads")
        if self.reads == "heads":
            return seen * weights.sum(1)[:, :, :1]
        return seen * weights[:, :, :1] if self.reads == "weights" else seen


def torchs(**options: Any) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(32, 4, batch_first=True, **options)


class Own(nn.MultiheadAttention):
    pass


def layer(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)


def encoder() -> nn.TransformerEncoder:
    return nn.TransformerEncoder(layer(), 2)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("model", "heads"),
    [
        (lambda: Rows(torchs()), ["attention"]),
        (lambda: Rows(torchs(bias=False)), ["attention"]),
        (lambda: Rows(layer()), ["attention.self_attn"]),
        (lambda: Rows(layer(norm_first=True)), ["attention.self_attn"]),
        (lambda: Rows(encoder(), "real places"), [f"attention.layers.{i}.self_attn" for i in range(2)]),
    ],
)
def test_heads_of_a_users_network_go(model: Callable[[], nn.Module], heads: list[str]) -> None:
    network = seeded(model())
    pruned, report = prune_channels(network, SHAPE, 0.3)
    assert list(report.heads) == heads
    assert count_macs(pruned, SPEC.example(1)) == report.macs_after
    assert torch.isfinite(pruned(SPEC.drawn(3))).all()
    assert pruned.train()(SPEC.drawn(3)).shape == (3, 3)


def test_what_torch_fuses_is_counted_as_what_it_is() -> None:
    whole = Rows(layer()).eval()
    split = copy.deepcopy(whole)
    split_attention(split, ["attention.self_attn"])
    rows = 16 * (48 * 32 + 4 * 32 * 32 + 2 * 32 * 64) + 32 * 3  # products of attention are not counted on a CPU
    assert count_macs(whole, SPEC.example(1)) == count_macs(split, SPEC.example(1)) == rows


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("model", "name", "why"),
    [
        (lambda: Rows(torchs(add_bias_kv=True)), "attention", "with add_bias_kv has a key and a value for all heads"),
        (lambda: Rows(torchs(add_zero_attn=True)), "attention", "with add_zero_attn adds a place to all heads"),
        (lambda: Rows(Own(32, 4, batch_first=True)), "attention", "Own is a kind of nn.MultiheadAttention of its own"),
        (lambda: Rows(torchs(), "weights"), "attention.q_proj", "its answers are .* of the network without these"),
        (lambda: Rows(torchs(), "heads"), "attention.q_proj", "all channels become one in the network itself"),
        (lambda: Rows(torchs(), "masked heads"), "attention.q_proj", "add in 'attention'"),
        # in evaluation torch sets what is padded to zero, where the weights are packed
        (lambda: Rows(encoder()), "attention.layers.0.self_attn", "split, its answers are .* off from those of before"),
    ],
)
def test_heads_that_something_holds_stay_and_it_is_said_why(
    model: Callable[[], nn.Module], name: str, why: str
) -> None:
    network = seeded(model())
    pruned, report = prune_channels(network, SHAPE, 0.0)
    assert not report.heads
    assert not report.split
    assert re.search(why, report.left[name])
    images = SPEC.drawn(3)
    assert torch.equal(pruned(images), network(images))


def test_weights_that_others_use_are_not_split() -> None:
    model = nn.ModuleDict({"one": torchs(), "other": torchs()})
    one, other = model["one"], model["other"]
    assert why_whole(one, model) == ""
    other.in_proj_weight = one.in_proj_weight
    assert why_whole(one, model) == "its weights are those of other.in_proj_weight too"
    twice = nn.ModuleList([one, one])
    assert why_whole(one, twice) == ""
    split_attention(twice, ["0"])
    assert twice[0] is twice[1]
    assert isinstance(twice[0], SplitAttention)


def test_attention_that_is_the_whole_network_stays() -> None:
    class Self(nn.MultiheadAttention):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, x, x)[0]

    _, report = prune_channels(seeded(Self(32, 4, batch_first=True)), (2, 16, 32), 0.0)
    assert report.left[""] == "it is the whole network"
    with pytest.raises(KeyError):
        split_attention(torchs(), [""])


def test_attention_that_does_not_belong_to_the_network_is_refused(tmp_path: Path) -> None:
    for name in ("conv9", "head", ""):
        with pytest.raises(ConfigError, match=f"split module '{name}' is no nn.MultiheadAttention of the model; it"):
            build(replace(made(tmp_path), split=(name,)))
