"""timm's and Hugging Face's networks, where these packages are installed; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.models.external import hf_config
from dlx_deploy.nn.models.inputs import ImageInput, TokenInput
from dlx_deploy.nn.models.pretrained import pretrained_state
from dlx_deploy.nn.models.registry import build_model, check_output
from dlx_deploy.nn.training.transfer import layer_groups, load_with_new_head
from dlx_deploy.nn.weights.network import Architecture, load_model, save_model

from ...arrays import check_parity, class_logits, image_spec, run_onnx, text_spec

IMAGES = ImageInput(1, 32, 32)
TOKENS = TokenInput(64, 20)


@pytest.mark.parametrize(("name", "millions"), [("resnet10t", 5.44), ("vit_tiny_patch16_224", 5.72)])
def test_timm(name: str, millions: float, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    model = build_model(f"timm:{name}", {}, 5, IMAGES)
    check_output(model, class_logits(5), IMAGES)
    with torch.device("meta"):
        published = build_model(f"timm:{name}", {}, 1000, ImageInput(3, 224, 224))
    assert round(sum(p.numel() for p in published.parameters()) / 1e6, 2) == millions
    model(torch.randn(2, 1, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    spec = image_spec(32, 32, 1, (0.5,), (0.5,))
    export_onnx(model, tmp_path / "m.onnx", spec)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 1), np.uint8)
    assert check_parity(tmp_path / "m.onnx", model, spec, images, 1e-3).vacuous == ()
    assert any("5" in str(list(p.shape)) for n, p in model.named_parameters() if n in layer_groups(model)[0])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, num_labels=7,
        max_position_embeddings=24,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_hugging_face(bert: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments = {"config": hf_config(str(bert))}
    model = build_model(f"hf:{bert}", arguments, 3, TOKENS)
    check_output(model, class_logits(3), TOKENS)
    layer = 4 * (32 * 32 + 32) + 2 * 32 * 48 + 48 + 32 + 4 * 32
    embeddings = (64 + 24 + 2) * 32 + 2 * 32
    assert sum(p.numel() for p in model.parameters()) == embeddings + 2 * layer + 32 * 32 + 32 + 3 * 33
    model(torch.ones(2, 5, dtype=torch.int64)).sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing
    model.eval()
    short = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[5, 6, 7, 0, 0, 0]])
    assert torch.allclose(model(short), model(padded), atol=1e-5)
    save_model(tmp_path / "a", model, Architecture(model="hf:away", arguments=arguments, classes=3, input=TOKENS))
    loaded, _ = load_model(tmp_path / "a")
    assert torch.equal(loaded(short), model(short))
    spec = text_spec(max_length=20, pad_id=0)
    export_onnx(model, tmp_path / "m.onnx", spec)
    tokens = np.random.default_rng(0).integers(1, 64, (9, 20)).astype(np.int32)
    tokens[3:, 11:] = 0
    assert check_parity(tmp_path / "m.onnx", model, spec, tokens, 1e-3).vacuous == ()
    alone = run_onnx(tmp_path / "m.onnx", tokens[3:4, :11].copy(), exact_qdq=False, pad_id=0)
    assert alone == pytest.approx(run_onnx(tmp_path / "m.onnx", tokens, exact_qdq=False, pad_id=0)[3:4], abs=1e-5)


def test_a_pretrained_network_gets_a_new_head(bert: Path) -> None:
    torch.manual_seed(1)
    model = build_model(f"hf:{bert}", {}, 3, TOKENS)
    origin, state = pretrained_state("hf:source", "DEFAULT", bert)
    load_with_new_head(model, state, origin)
    name = "network.bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(model.state_dict()[name], state[name])
    groups = [group[0].split(".")[1] for group in layer_groups(model)]
    assert groups[0] == "classifier"
    assert len(groups) == 5  # classifier, pooler, two layers, embeddings


def test_what_does_not_fit(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 64 tokens and the data's tokenizer 65, a tokenizer that does not match"):
        build_model(f"hf:{bert}", {}, 3, TokenInput(65, 20))
    with pytest.raises(ConfigError, match=r"takes at most 24 tokens; data\.max_length is 25: lower it"):
        build_model(f"hf:{bert}", {}, 3, TokenInput(64, 25))
    with pytest.raises(ConfigError, match="pads with token 0 and the data with 3, a tokenizer that does not match"):
        build_model(f"hf:{bert}", {}, 3, TokenInput(64, 20, 3))
    arguments = {"config": {**hf_config(str(bert)), "model_type": "roberta"}}
    with pytest.raises(ConfigError, match=r"takes at most 23 tokens; data\.max_length is 24: lower it"):
        build_model("hf:roberta", arguments, 3, TokenInput(64, 24))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((ConfigError, EnvironmentMissing), match=r"model 'hf:.*'"):
        build_model(f"hf:{tmp_path}", {}, 3, TOKENS)
    with pytest.raises(ConfigError, match="for 'hf:x' it must be 'DEFAULT'"):
        pretrained_state("hf:x", "V1")
    with pytest.raises(ConfigError, match=r"model 'transformer' is for texts, and the data are images; .*: resnet"):
        build_model("transformer", {}, 3, IMAGES)
    with pytest.raises(ConfigError, match=r"model 'resnet20' is for images, and the data are texts; .*: transformer,"):
        build_model("resnet20", {}, 3, TOKENS)


@pytest.mark.parametrize("name", ["tiny_vit_5m_224", "shvit_s1"])
def test_a_timm_network_with_patches_and_no_size(name: str) -> None:
    """They take images of any size; a size that is forced on them is an unexpected argument."""
    pytest.importorskip("timm")
    spec = ImageInput(1, 64, 64)
    check_output(build_model(f"timm:{name}", {}, 3, spec), class_logits(3), spec)


def test_an_unknown_timm_network() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="timm has no model 'resnet18x'; it has"):
        build_model("timm:resnet18x", {}, 3, IMAGES)


@pytest.mark.parametrize(("package", "model", "spec"), [("timm", "timm:x", IMAGES), ("transformers", "hf:x", TOKENS)])
def test_a_missing_package(package: str, model: str, spec: object, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentMissing, match=rf"model '{model}' needs {package}.*pip install "):
        build_model(model, {}, 3, spec)  # type: ignore[arg-type]
