"""Tiny networks of Hugging Face's families, random weights, from a local folder: built, exported, costed, quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.analysis.cost import layer_costs, model_summary
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.models.external import hf_config
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.models.registry import build_model, check_output
from dlx_deploy.nn.weights.network import Architecture, refuse_unkeepable

from ...arrays import check_parity, class_logits, quantize_model, run_onnx, text_spec

LENGTH, WIDTH, HIDDEN = 12, 16, 24
SPEC = TokenInput(40, LENGTH)
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": HIDDEN,
    "max_position_embeddings": 32,
    "dim": WIDTH,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": HIDDEN,
    "embedding_size": WIDTH,
}
# The products of one encoder layer: four projections, queries by keys by values, two feed-forward layers.
LAYER = LENGTH * (4 * WIDTH * WIDTH + 2 * LENGTH * WIDTH + 2 * WIDTH * HIDDEN)
FAMILIES = (
    "bert", "distilbert", "roberta", "xlm-roberta", "albert", "electra", "mobilebert", "modernbert", "deberta-v2",
    "mpnet", "camembert", "deberta", "roformer", "ernie",
)  # fmt: skip
FAST = ("bert", "modernbert")
"""The others take a minute together."""


@pytest.fixture
def source(tmp_path: Path) -> Any:
    transformers = pytest.importorskip("transformers")

    def make(kind: str, **changes: Any) -> dict[str, Any]:
        config = transformers.AutoConfig.for_model(kind, vocab_size=40, pad_token_id=0, **{**SIZES, **changes})
        config.save_pretrained(tmp_path / kind)
        return {"config": hf_config(str(tmp_path / kind))}

    return make


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_is_built_and_kept(kind: str, source: Any) -> None:
    torch.manual_seed(0)
    arguments = source(kind)
    model = build_model("hf:away", arguments, 3, SPEC)
    check_output(model, class_logits(3), SPEC)
    refuse_unkeepable(model, Architecture(model="hf:away", arguments=arguments, classes=3, input=SPEC))
    short = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[5, 6, 7, 0, 0, 0]])
    with torch.no_grad():
        assert torch.allclose(model.eval()(short), model(padded), atol=1e-5)


@pytest.mark.parametrize("kind", [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in FAMILIES])
def test_a_family_of_dynamic_length_is_exported_costed_and_quantized(kind: str, source: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("hf:away", source(kind), 3, SPEC).eval()
    path, spec = tmp_path / "m.onnx", text_spec(max_length=LENGTH, pad_id=0, length="dynamic")
    export_onnx(model, path, spec)
    tokens = np.random.default_rng(0).integers(1, 40, (6, LENGTH)).astype(np.int32)
    tokens[3:, 7:] = 0
    assert check_parity(path, model, spec, tokens, 1e-3).vacuous == ()
    summary = model_summary(path)
    assert min(cost.macs for cost in layer_costs(path)) >= 0
    if kind == "bert":
        assert summary.macs == LAYER + WIDTH * WIDTH + WIDTH * 3  # with the pooler and the classifier
    assert summary.macs >= LAYER
    quantize_model(path, tmp_path / "q.onnx", tokens, QuantizationRequest(style="cpu", dynamic=True), pad_id=0)
    assert model_summary(tmp_path / "q.onnx").macs == summary.macs
    assert run_onnx(tmp_path / "q.onnx", tokens, exact_qdq=False, pad_id=0).shape == (6, 3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("t5", r"'hf:away': a 't5' is an encoder with a decoder, whose classifier .*give an encoder"),
        ("bart", r"a 'bart' is an encoder with a decoder"),
        ("fnet", r"a 'fnet' takes no attention mask, so that padding would change its answers"),
        ("vit", r"transformers has no sequence classifier of type 'vit'$"),
    ],
)
def test_a_family_that_cannot_be_used_is_refused_for_its_reason(kind: str, message: str, source: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model("hf:away", {"config": {**source(kind)["config"], "vocab_size": 40}}, 3, SPEC)


def test_what_transformers_refuses_is_told_in_its_words(source: Any) -> None:
    arguments = source("bert", hidden_act="nonsense")
    with pytest.raises(ConfigError, match=r"does not build a 'bert' with this configuration: KeyError: .*nonsense"):
        build_model("hf:away", arguments, 3, SPEC)
