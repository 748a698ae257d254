"""Hugging Face's image classifiers, tiny and with random weights, from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlx_deploy.config import Data, Teacher
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.models.external import hf_config
from dlx_deploy.nn.models.families import family_of
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.names import check_name
from dlx_deploy.nn.models.registry import build_model, check_output
from dlx_deploy.nn.weights.network import load_model
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.registry import load_stage
from dlx_deploy.tasks import prepare

from ...arrays import check_parity, class_logits, image_spec

SPEC = ImageInput(3, 32, 32)
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
KINDS: dict[str, dict[str, Any]] = {
    "vit": {**VIT, "image_size": 64, "patch_size": 8},
    "convnext": {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "swin": {
        "image_size": 64,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "window_size": 4,
    },
}


def saved(folder: Path, kind: str, **changes: Any) -> Any:
    """The classifier of a ``kind`` whose files are in ``folder``."""
    transformers: Any = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**KINDS[kind], **changes})
    model = transformers.AutoModelForImageClassification.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", [k if k == "swin" else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])
def test_a_kind_is_built_and_exported(kind: str, tmp_path: Path) -> None:
    saved(tmp_path / kind, kind)
    model = build_model(f"hf:{tmp_path / kind}", {"config": hf_config(str(tmp_path / kind))}, 5, SPEC).eval()
    check_output(model, class_logits(5), SPEC)
    spec = image_spec(32, 32, 3, (0.5,) * 3, (0.5,) * 3)
    export_onnx(model, tmp_path / "m.onnx", spec)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert check_parity(tmp_path / "m.onnx", model, spec, images, 1e-3).vacuous == ()


def test_a_type_that_several_classes_make_is_built_without_a_word_on_them(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    transformers.AutoConfig.for_model("deit", **VIT, image_size=32, patch_size=8).save_pretrained(tmp_path)
    assert transformers.AutoConfig.from_pretrained(tmp_path).architectures is None
    network = build_model(f"hf:{tmp_path}", {}, 4, SPEC)
    assert network(SPEC.drawn(2)).shape == (2, 4)


def test_a_name_is_of_the_family_that_reads_the_data(tmp_path: Path) -> None:
    assert [getattr(family_of("hf:x", reads), "builder", "") for reads in ("images", "texts", None)] == [
        "dlx_deploy.nn.models.hf_images:build_hf_images",
        "dlx_deploy.nn.models.external:build_hf",
        "dlx_deploy.nn.models.external:build_hf",
    ]
    for reads in ("images", "texts"):
        check_name("teacher", "hf:owner/name", reads, "classes", {})
    with pytest.raises(ConfigError, match="gives classes, and the data ask for masks"):
        check_name("teacher", "hf:owner/name", "images", "masks", {})


def test_what_is_no_image_classifier(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="transformers has no image classifier of type 'bert'"):
        build_model("hf:x", {"config": {"model_type": "bert", "vocab_size": 40}}, 5, SPEC)
    with pytest.raises(ConfigError, match=r"'vit' with \{'hidden_size': 'wide'\} is not a configuration"):
        build_model("hf:x", {"config": {"model_type": "vit", **VIT}, "hidden_size": "wide"}, 5, SPEC)
    with pytest.raises(ConfigError, match="does not build a 'vit' with this configuration"):
        build_model("hf:x", {"config": {"model_type": "vit", **VIT, "hidden_act": "loud"}}, 5, SPEC)


def test_a_finished_classifier_keeps_its_head(tmp_path: Path) -> None:
    own = saved(tmp_path / "hf", "resnet", num_channels=1, id2label={i: str(9 - i) for i in range(10)})
    prepare(Data(), tmp_path / "data", 0)
    pixels = open_data(tmp_path / "data").split("test")[0][:4]
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255
    inputs = {"data": tmp_path / "data", "source": tmp_path / "hf"}
    params = Teacher(model="hf:source", arguments={}, epochs=0, pretrained="DEFAULT")
    load_stage("teacher").run(Job(params=params, inputs=inputs, out=tmp_path / "out", threads=1))
    model, _ = load_model(tmp_path / "out" / "model")
    with torch.no_grad():  # its classes are numbers in the other order
        torch.testing.assert_close(model(images), own(pixel_values=images).logits.flip(1))
