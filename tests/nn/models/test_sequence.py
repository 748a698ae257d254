from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.passes.opset import lower
from dlx_deploy.nn.models.attention import Attention, FeedForward
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.models.sequence import EncoderLayer, SequenceClassifier, build_sequence_model

SPEC = TokenInput(vocabulary=50, max_length=24, pad_id=0)
SMALL: dict[str, Any] = {"depth": 2, "heads": 2, "width": 16, "feed_forward": 2.0}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("transformer", {"norm": "pre", "positions": "learned"}),
    ("transformer", {"norm": "post"}),
    ("efficient_transformer", {"attention": "softmax"}),
    ("efficient_transformer", {"attention": "linear", "positions": "learned"}),
]


def network(name: str, **arguments: Any) -> SequenceClassifier:
    return build_sequence_model(name, {**SMALL, **arguments}, 3, SPEC).eval()


def batch(*lengths: int, length: int | None = None) -> Tensor:
    """Random tokens of these lengths, padded on the right."""
    tokens = torch.randint(1, SPEC.vocabulary, (len(lengths), length or max(lengths)))
    for row, real in zip(tokens, lengths, strict=True):
        row[real:] = SPEC.pad_id
    return tokens


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_logits_of_any_length(name: str, arguments: dict[str, Any], dtype: torch.dtype) -> None:
    model = network(name, **arguments)
    for length in (1, 7, SPEC.max_length):
        logits = model(batch(length, max(length - 3, 1)).to(dtype))
        assert (logits.shape, logits.dtype) == ((2, 3), torch.float32)


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
def test_every_parameter_is_trained(name: str, arguments: dict[str, Any]) -> None:
    model = network(name, **arguments).train()
    model(batch(9, 4)).square().sum().backward()  # type: ignore[no-untyped-call]
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # Softmax does not see what is added to all its inputs, so the keys' biases get rounding errors at most.
    assert [n for n in still if not n.endswith("key.bias")] == []


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
def test_neither_padding_nor_the_rest_of_the_batch_counts(name: str, arguments: dict[str, Any]) -> None:
    model = network(name, **arguments)
    tokens = batch(9, 4, 12)
    expected = torch.cat([model(row[row != 0][None]) for row in tokens])
    wide = torch.nn.functional.pad(tokens, (0, 10), value=SPEC.pad_id)
    assert (model(tokens) - expected).abs().max() < 1e-5
    assert (model(wide) - expected).abs().max() < 1e-5
    assert (expected[0] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
def test_nothing_but_padding_is_no_nan(name: str, arguments: dict[str, Any]) -> None:
    model = network(name, **arguments).train()
    logits = model(batch(5, 0))
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(logits).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_transformer_is_that_of_torch(norm: str) -> None:
    model = network("transformer", norm=norm)
    theirs = nn.TransformerEncoderLayer(
        16, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm == "pre"
    )
    final = nn.LayerNorm(16) if norm == "pre" else None
    encoder = nn.TransformerEncoder(theirs, 2, norm=final, enable_nested_tensor=False)
    for ours, its in zip(model.layers, encoder.layers, strict=True):
        assert isinstance(ours, EncoderLayer)
        for p in ours.parameters():
            nn.init.normal_(p, std=0.3)
        projections = (ours.attention.query, ours.attention.key, ours.attention.value)
        state = {
            "self_attn.in_proj_weight": torch.cat([p.weight for p in projections]),
            "self_attn.in_proj_bias": torch.cat([p.bias for p in projections]),
        }
        pairs = {
            "self_attn.out_proj": "attention.out",
            "linear1": "feed_forward.up",
            "linear2": "feed_forward.down",
            "norm1": "norm1",
            "norm2": "norm2",
        }
        for key, name in pairs.items():
            layer = ours.get_submodule(name)
            state |= {f"{key}.{k}": v for k, v in layer.state_dict().items()}
        its.load_state_dict(state)
    tokens = batch(11, 6)
    padding = tokens == SPEC.pad_id
    table = torch.empty(11, 16)
    for position in range(11):
        for i in range(0, 16, 2):
            angle = position / 10_000 ** (i / 16)
            table[position, i], table[position, i + 1] = math.sin(angle), math.cos(angle)
    expected = encoder(model.embedding(tokens) * 4.0 + table, src_key_padding_mask=padding)
    assert (model.encode(tokens) - expected)[~padding].abs().max() < 1e-5
    means = torch.stack([row[~gone].mean(0) for row, gone in zip(expected, padding, strict=True)])
    assert (model(tokens) - model.head(means)).abs().max() < 1e-5


def test_linear_attention_is_that_of_its_paper() -> None:
    attention = Attention(16, 2, 8, kind="linear").eval()
    x, mask = torch.randn(1, 6, 16), torch.tensor([[True] * 4 + [False] * 2])
    query, key, value = (layer(x).view(6, 2, 8).double() for layer in (attention.query, attention.key, attention.value))

    def feature(v: Tensor) -> Tensor:
        return torch.where(v > 0, v + 1, v.exp())

    mixed = torch.zeros(6, 2, 8)
    query, key, value = query.detach(), key.detach(), value.detach()
    for h in range(2):
        for i in range(6):
            weights = [float(feature(query[i, h]) @ feature(key[j, h])) for j in range(4)]
            mixed[i, h] = sum(w * value[j, h] for j, w in enumerate(weights)) / sum(weights)
    assert (attention(x, mask) - attention.out(mixed.flatten(1))).abs().max() < 1e-5


def test_parameter_counts() -> None:
    # Vaswani et al. 2017, base: 512 wide, 8 heads, 2048 between.
    base = EncoderLayer(Attention(512, 8, 64), FeedForward(512, 2048), lambda: nn.LayerNorm(512), 0.1, True)
    assert params(base) == 4 * (512 * 512 + 512) + (512 * 2048 + 2048) + (2048 * 512 + 512) + 4 * 512 == 3_152_384
    layer = 4 * (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16) + 4 * 16
    ends = 50 * 16 + 16 * 3 + 3
    assert params(network("transformer", norm="post")) == 2 * layer + ends
    assert params(network("transformer", positions="learned")) == 2 * layer + ends + 2 * 16 + 24 * 16
    gated = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    for kind in ("softmax", "linear"):
        assert params(network("efficient_transformer", attention=kind)) == 2 * gated + ends + 16


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
@pytest.mark.parametrize("dynamic", [True, False])
def test_onnx_gives_the_same_logits(name: str, arguments: dict[str, Any], dynamic: bool, tmp_path: Path) -> None:
    model, path = network(name, **arguments), tmp_path / "model.onnx"
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=SPEC.max_length)}
    program = torch.onnx.export(
        model,
        (batch(9, 4).to(torch.int32),),
        dynamo=True,
        dynamic_shapes=(dims,) if dynamic else None,
        input_names=["tokens"],
        output_names=["logits"],
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    graph = lower(program.model_proto, 17)
    assert not {"IsNaN", "Loop", "If", "Attention", "NonZero"} & {n.op_type for n in graph.graph.node}
    onnx.save(graph, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batches = [batch(9, 4), batch(1), batch(*[SPEC.max_length] * 2, 3), batch(5, 0)] if dynamic else [batch(9, 2)]
    for tokens in batches:
        (got,) = session.run(None, {"tokens": tokens.numpy().astype(np.int32)})
        assert np.abs(got - model(tokens).detach().numpy()).max() < 1e-5


def test_too_long_a_sequence() -> None:
    with pytest.raises(ValueError, match=r"tokens are \[1, 25\]; at most 24 a sequence: truncate them"):
        network("transformer")(batch(25))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("transformr", {}, r"unknown sequence model 'transformr'; nearest valid name: 'transformer'"),
        ("transformer", {"dept": 2}, r"transformer: unknown argument 'dept' \(2\); nearest valid name: 'depth'"),
        ("transformer", {"attention": "linear"}, r"transformer: unknown argument 'attention'"),
        ("transformer", {"depth": True}, r"argument depth is True; must be a whole number from 1"),
        ("transformer", {"heads": 2.0}, r"argument heads is 2\.0; must be a whole number from 1"),
        ("transformer", {"dropout": 1}, r"argument dropout is 1; must be a number from 0 to below 1"),
        ("transformer", {"feed_forward": "4"}, r"argument feed_forward is '4'; must be a number above 0, at most 64"),
        ("transformer", {"norm": "mid"}, r"argument norm is 'mid'; must be 'pre' or 'post'"),
        ("efficient_transformer", {"attention": []}, r"argument attention is \[\]; must be 'softmax' or 'linear'"),
        ("transformer", {"width": 30}, r"transformer: argument width is 30; must be a multiple of heads, 4"),
    ],
)
def test_refused_arguments(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_sequence_model(name, arguments, 3, SPEC)
