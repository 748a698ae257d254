"""ONNX for texts behind one input of tokens: the mask is where they are no padding, and it answers as it did."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import input_dims, load, max_length
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export.foreign import check_adopted, check_rows, read_foreign
from dlx_deploy.nn.export.spec import TextSpec

from ...foreign_models import foreign_net, saved
from ...stages.support.planning import planned, texts

PAD, LONGEST, WORDS, WIDTH = 1, 12, 9, 6
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def text_net(
    names: tuple[str, ...] = NAMES, masked: bool = True, length: int | str = "length", kind: int = TensorProto.INT64
) -> ModelProto:
    """The mean of the embeddings of the tokens that the mask keeps, and two logits of it."""
    random = np.random.default_rng(0)
    weights = {
        "words": random.normal(size=(WORDS, WIDTH)),
        "types": random.normal(size=(2, WIDTH)),
        "head": random.normal(size=(WIDTH, 2)),
    }
    shared = {"behind": np.array([2]), "along": np.array([1])}
    nodes = [helper.make_node("Gather", ["words", names[0]], ["embedded"], name="words")]
    last = "embedded"
    if len(names) > 2:
        nodes.append(helper.make_node("Gather", ["types", names[2]], ["kinds"]))
        nodes.append(helper.make_node("Add", [last, "kinds"], ["summed"]))
        last = "summed"
    if masked:
        nodes += [
            helper.make_node("Cast", [names[1]], ["kept"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["kept", "behind"], ["broad"]),
            helper.make_node("Mul", [last, "broad"], ["those"]),
            helper.make_node("ReduceSum", ["those", "along"], ["total"], keepdims=0),
            helper.make_node("ReduceSum", ["kept", "along"], ["count"], keepdims=1),
            helper.make_node("Div", ["total", "count"], ["mean"]),
        ]
    else:
        nodes.append(helper.make_node("ReduceMean", [last], ["mean"], axes=[1], keepdims=0))
    nodes.append(helper.make_node("MatMul", ["mean", "head"], ["scores"], name="head"))
    graph = helper.make_graph(
        nodes,
        "texts",
        [helper.make_tensor_value_info(name, kind, ["batch", length]) for name in names],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
        + [numpy_helper.from_array(value, name) for name, value in shared.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def spec(length: Literal["dynamic", "fixed"] = "dynamic") -> TextSpec:
    return TextSpec(LONGEST, PAD, {"logits": (2,)}, opset=17, length=length)


def rows(count: int = 20) -> Samples:
    drawn = np.random.default_rng(3)
    tokens = drawn.integers(2, WORDS, (count, LONGEST), dtype=np.int32)
    tokens[np.arange(LONGEST) >= drawn.integers(1, LONGEST + 1, (count, 1))] = PAD
    return Samples({"tokens": tokens}, {"tokens": PAD})


def adopted(folder: Path, model: ModelProto, wanted: TextSpec) -> ModelProto:
    made = read_foreign(saved(folder / "net.onnx", model), None, wanted, "").adopted(wanted, ("a", "b"), ("a", "b"))
    check_rows(made, wanted, 5)
    assert check_adopted(made, wanted, rows(), 1e-5).relative < 1e-6
    return load(made.model)


@pytest.mark.parametrize("names", [NAMES, NAMES[:2], ("ids", "mask")])
@pytest.mark.parametrize("length", ["dynamic", "fixed"])
@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_one_input_of_tokens_takes_the_place_of_all(
    tmp_path: Path, names: tuple[str, ...], length: Literal["dynamic", "fixed"], kind: int
) -> None:
    graph = adopted(tmp_path, text_net(names, kind=kind), spec(length))
    assert input_dims(graph) == {"tokens": (None, LONGEST if length == "fixed" else None)}
    assert graph.graph.input[0].type.tensor_type.elem_type == TensorProto.INT32
    assert max_length(graph) == (LONGEST if length == "dynamic" else 0)


def test_padding_that_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"answers depend on the batch: row .* gets other logits"):
        adopted(tmp_path, text_net(NAMES[:1], masked=False), spec())


def test_metadata_of_the_file_says_nothing_of_lengths(tmp_path: Path) -> None:
    model = text_net()
    helper.set_model_props(model, {"max_length": "many"})
    assert max_length(adopted(tmp_path, model, spec())) == LONGEST


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (text_net(length=7), r"reads input_ids int64\[N, 7\], texts of 7 tokens alone; set data\.max_length = 7 and"),
        (
            text_net(("input_ids", "attention_mask", "position_ids")),
            r"'position_ids' is not known; rule: input_ids",
        ),
        (text_net(("attention_mask", "mask")), r"reads attention_mask .*; 'mask' is not known; rule: input_ids"),
        (
            text_net(kind=TensorProto.FLOAT),
            r"reads input_ids float32\[N, N\].*; the data are texts, so rule: token ids",
        ),
        (foreign_net(), r"reads x float32\[N, 1, 8, 8\]; the data are texts, so rule: token ids int64\[N, L\]"),
    ],
)
def test_other_inputs_are_refused(tmp_path: Path, model: ModelProto, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_foreign(saved(tmp_path / "net.onnx", model), None, spec(), "")


def test_a_plan_asks_for_the_tokenizer_and_for_texts(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", text_net())
    given = [*texts(tmp_path / "data")[:2], f"teacher.model={path}"]
    with pytest.raises(
        ConfigError, match=r"data\.tokenizer is '.*', and net\.onnx was trained with a tokenizer of its"
    ):
        planned(tmp_path, *given)
    (tmp_path / "t.json").write_text("{}")
    assert planned(tmp_path, *given, f"data.tokenizer={tmp_path / 't.json'}", target="rpi5").steps
    pictures = [f"teacher.model={path}", "data.mean=[0.5]", "data.std=[0.5]"]
    with pytest.raises(
        ConfigError, match=r"reads input_ids .*, tokens of texts, and the data are images; give data of"
    ):
        planned(tmp_path, *pictures)
