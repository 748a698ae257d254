"""A finished classifier's own order of classes is kept: its outputs are those of the data's classes, by name."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dlx_deploy.config import Data, Teacher, load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.models.inputs import ImageInput, TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.weights.class_match import order_of, same_classes
from dlx_deploy.nn.weights.class_order import class_names, named_by_config, reorder_head
from dlx_deploy.nn.weights.network import load_model
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.registry import load_stage
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import prepare

WEIGHTS = {"weight": torch.zeros(3, 2)}


@pytest.mark.parametrize(
    "more",
    [
        {"class_to_idx": {"owl": 0, "cat": 1, "dog": 2}},
        {"idx_to_class": {0: "owl", 1: "cat", 2: "dog"}},
        {"id2label": {"2": "dog", "0": "owl", "1": "cat"}},
        {"label2id": {"dog": 2, "owl": 0, "cat": 1}},
        {"classes": ["owl", "cat", "dog"]},
        {"meta": {"categories": ("owl", "cat", "dog")}},
        {"hyper_parameters": {"lr": 0.1, "class_names": ["owl", "cat", "dog"]}},
        {"args": argparse.Namespace(lr=0.1, classes=["owl", "cat", "dog"])},
        {"labels": torch.arange(3), "classes": 3, "class_names": ["owl", "cat", "dog"]},
    ],
)
def test_names_beside_the_weights(tmp_path: Path, more: dict[str, Any]) -> None:
    torch.save({"state_dict": WEIGHTS, **more}, tmp_path / "w.pt")
    assert class_names(tmp_path / "w.pt") == ["owl", "cat", "dog"]


@pytest.mark.parametrize(
    "more",
    [{}, {"id2label": {0: "LABEL_0", 1: "LABEL_1"}}, {"classes": ["a", "a"]}, {"class_to_idx": {"a": 0, "b": 5}}],
)
def test_names_that_say_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    torch.save({"state_dict": WEIGHTS, **more}, tmp_path / "w.pt")
    torch.save(WEIGHTS, tmp_path / "plain.pt")
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    assert [class_names(tmp_path / n) for n in ("w.pt", "plain.pt", "broken.pt", "none.safetensors")] == [None] * 4


def test_names_in_the_header_of_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors", {"format": "pt", "class_to_idx": '{"b": 0, "a": 1}'})
    assert class_names(tmp_path / "w.safetensors") == ["b", "a"]
    save_file(WEIGHTS, tmp_path / "w.safetensors", {"format": "pt"})
    assert class_names(tmp_path / "w.safetensors") is None


def test_names_in_the_configuration_that_lies_beside_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"architecture": "resnet10t", "num_classes": 2, "label_names": ["b", "a"]}')
    assert class_names(path) == ["b", "a"]
    for text in ("[1]", "{oops", '{"num_classes": 2}'):
        path.write_text(text)
        assert class_names(path) is None
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    config = load_config(None, [f"teacher.checkpoint='{tmp_path / 'w.safetensors'}'"])
    steps = {step.name: step for step in steps_for(config, load_target("jetson").profile)}
    assert steps["teacher"].inputs["names"] == path  # hashed: another order is another teacher
    assert set(steps["teacher"].inputs) <= set(load_stage("teacher").inputs)


def test_names_of_a_configuration() -> None:
    assert named_by_config({"config": {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}}}) == ["NEGATIVE", "POSITIVE"]
    assert named_by_config({"config": {"id2label": {0: "LABEL_0", 1: "LABEL_1"}}}) is None
    assert named_by_config({}) is None


@pytest.mark.parametrize(
    ("names", "classes", "order"),
    [
        (["owl", "cat"], ["cat", "owl"], [1, 0]),
        (["POSITIVE", "NEGATIVE"], ["negative", "positive"], [1, 0]),
        (["b", "a", "B"], ["B", "a", "b"], [2, 1, 0]),
        (["neg", "pos"], ["0", "1"], [0, 1]),
        (["1", "0"], ["0", "1"], [1, 0]),
        ([str(i) for i in range(11)], [str(i) for i in range(11)], list(range(11))),
    ],
)
def test_the_order_by_name(names: list[str], classes: list[str], order: list[int]) -> None:
    assert order_of(names, classes, "w.pt") == order


@pytest.mark.parametrize(
    ("names", "said"), [(["cat", "dog"], r"'owl' is not in it"), (["cat", "owl", "x"], r"it has 3, the data 2")]
)
def test_other_classes_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"w\.pt tells the classes .* apart, and the data cat, owl \({said}\); name"):
        order_of(names, ["cat", "owl"], "w.pt")
    assert not same_classes(names, ["cat", "owl"])
    assert same_classes(["OWL", "cat"], ["cat", "owl"])
    assert not same_classes(None, ["cat", "owl"])


class Sandwich(nn.Sequential):
    """Its head is no last module, and another layer has as many rows."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.Identity())


def conv_head() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class TwoHeads(nn.Module):
    """Dense logits that are the sum of two heads, as LRASPP's; ``boxes``: and the sizes of something else."""

    def __init__(self, boxes: bool = False) -> None:
        super().__init__()
        self.low, self.high, self.boxes = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, 2, 1), boxes

    def forward(self, x: torch.Tensor) -> Any:
        logits = self.low(x) + nn.functional.interpolate(self.high(x), x.shape[2:])
        return (logits.mean((2, 3)), x.mean((1, 2))) if self.boxes else logits


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet8": lambda: build_model("resnet8", {"width": 0.5}, 4, ImageInput(3, 8, 8)),
    "vit": lambda: build_model("vit", {"width": 16, "depth": 1, "heads": 2, "patch": 4}, 4, ImageInput(3, 8, 8)),
    "linear": Sandwich,
    "convolution": conv_head,
    "dense": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Upsample(scale_factor=2)),
    "two heads": TwoHeads,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_is_reordered_and_nothing_else(name: str) -> None:
    torch.manual_seed(0)
    model, images, order = NETWORKS[name]().eval(), torch.rand(5, 3, 8, 8), [2, 0, 3, 1]
    before = model(images)
    reorder_head(model, ImageInput(3, 8, 8), order, "w.pt")
    torch.testing.assert_close(model(images), before[:, order])


def test_of_several_outputs_those_that_have_the_classes_are_reordered() -> None:
    torch.manual_seed(0)
    model, images, order = TwoHeads(boxes=True).eval(), torch.rand(5, 3, 8, 8), [2, 0, 3, 1]
    logits, sizes = model(images)
    reorder_head(model, ImageInput(3, 8, 8), order, "w.pt")
    torch.testing.assert_close(model(images), (logits[:, order], sizes))


def test_hugging_face_s_heads_are_reordered() -> None:
    pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    for kind in ("bert", "roberta"):
        torch.manual_seed(0)
        config = {"model_type": kind, "vocab_size": 32, "pad_token_id": 0, "max_position_embeddings": 24, **small}
        model = build_model("hf:none", {"config": config}, 3, TokenInput(32, 12)).eval()
        tokens = torch.randint(1, 32, (4, 12))
        before = model(tokens)
        reorder_head(model, TokenInput(32, 12), [1, 2, 0], "w.pt")
        torch.testing.assert_close(model(tokens), before[:, [1, 2, 0]])


def test_a_network_without_such_a_layer() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.rand(2, 192))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.rows.T

    with pytest.raises(ConfigError, match=r"w\.pt has its classes in another order than the data, and no linear layer"):
        reorder_head(Odd(), ImageInput(3, 8, 8), [1, 0], "w.pt")


NET = """
from torch import nn

def make(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and light pictures, and a network that tells them apart; its first output is light."""
    root = tmp_path_factory.mktemp("finished")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 0), ("light", 150)):
        (root / "train" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(level, level + 100, (4, 4, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "train" / name / f"{i}.png")
    prepare(Data(kind="imagefolder", path=str(root), height=4, validation_fraction=0.3), root / "data", 0)
    (root / "net.py").write_text(NET)
    return root


def top1(finished: Path, tmp_path: Path, content: dict[str, Any], **more: Any) -> float:
    """The validation accuracy of the network as it is, of a checkpoint with its weights and ``content``."""
    weights = {"2.weight": torch.tensor([[1.0] * 3, [-1.0] * 3]), "2.bias": torch.zeros(2)}
    torch.save({"state_dict": weights, **content}, tmp_path / "w.pt")
    params = Teacher(model="model.py:make", arguments={}, checkpoint=".pt", epochs=0, **more)
    inputs = {"data": finished / "data", "source": finished / "net.py", "checkpoint": tmp_path / "w.pt"}
    if (tmp_path / "config.json").exists():
        inputs["names"] = tmp_path / "config.json"
    metrics = load_stage("teacher").run(Job(params=params, inputs=inputs, out=tmp_path / "out", threads=1))
    return float(metrics["validation_top1"])


def test_the_teacher_answers_by_name(finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert top1(finished, tmp_path, {}) == 0
    assert "w.pt names no classes: its outputs are taken in the order of the data's, dark, light" in caplog.text
    assert top1(finished, tmp_path, {"class_to_idx": {"light": 0, "dark": 1}}) == 1
    assert top1(finished, tmp_path, {}, classes=("light", "dark")) == 1
    assert top1(finished, tmp_path, {"classes": ["a", "b"]}, classes=("light", "dark")) == 1
    (tmp_path / "config.json").write_text('{"id2label": {"0": "Light", "1": "Dark"}}')
    assert top1(finished, tmp_path, {}) == 1
    with pytest.raises(ConfigError, match=r"w\.pt tells the classes light, grey apart, and the data dark, light"):
        top1(finished, tmp_path, {"classes": ["light", "grey"]})
    with pytest.raises(ValueError, match=r"classes is \['light'\] and checkpoint is not set; rule: with it"):
        Teacher(classes=("light",))


def test_hugging_face_s_finished_classifier_keeps_its_head(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    rows = "".join(f"text {i},{'negative' if i % 2 else 'positive'}\n" for i in range(40))
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}")
    prepare(Data(kind="text", path=str(tmp_path / "t.csv"), vocabulary=300, max_length=24), tmp_path / "data", 0)
    data = open_data(tmp_path / "data")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=data.header.vocabulary, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40, id2label={0: "POSITIVE", 1: "NEGATIVE"}, label2id={"POSITIVE": 0, "NEGATIVE": 1},
    )  # fmt: skip
    own = transformers.BertForSequenceClassification(config).eval()
    own.save_pretrained(tmp_path / "hf")
    tokens = torch.tensor(data.split("test")[0][:4], dtype=torch.long)
    answers = own(input_ids=tokens, attention_mask=(tokens != data.header.pad_id).long()).logits
    assert data.classes == ("negative", "positive")
    inputs = {"data": tmp_path / "data", "source": tmp_path / "hf", "checkpoint": tmp_path / "hf" / "model.safetensors"}
    cases: list[tuple[dict[str, str], list[str]]] = [
        ({"pretrained": "DEFAULT"}, ["data", "source"]),
        ({"checkpoint": ".safetensors"}, list(inputs)),
    ]
    for more, given in cases:
        params = Teacher(model="hf:source", arguments={}, epochs=0, **more)  # type: ignore[arg-type]
        job = Job(params=params, inputs={name: inputs[name] for name in given}, out=tmp_path / given[-1], threads=1)
        load_stage("teacher").run(job)
        model, _ = load_model(job.out / "model")
        torch.testing.assert_close(model(tokens), answers[:, [1, 0]])
