"""ONNX of others' exporters behind our border: it answers as it did, for any batch."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.foreign.parity import Original
from dlx_deploy.graph.foreign.wire import Value
from dlx_deploy.graph.model import input_dims, load, opset
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export.foreign import Adopted, check_adopted, check_rows, read_foreign
from dlx_deploy.nn.export.spec import ExportSpec

from ...arrays import image_spec
from ...foreign_models import CLASSES, SIDE, foreign_net, saved
from ...onnx_fixtures import images, op_types


def spec(target: int = 17, classes: int = CLASSES, **kind: object) -> ExportSpec:
    return image_spec(SIDE, SIDE, 1, (0.3,), (0.4,), target, outputs={"logits": (classes,)}, **kind)


def adopted(
    folder: Path, model: ModelProto, wanted: ExportSpec, names: tuple[str, ...] = (), output: str = ""
) -> bytes:
    """The graph, held against the original."""
    foreign = read_foreign(saved(folder / "net.onnx", model), None, wanted, output)
    made = foreign.adopted(wanted, names, [chr(97 + i) for i in range(CLASSES)] if names else ())
    check_rows(made, wanted, 5)
    parity = check_adopted(made, wanted, Samples({"images": images(9)}), 1e-4)
    assert parity.relative < 1e-5
    return made.model


@pytest.mark.parametrize("target", [13, 17, 20])
@pytest.mark.parametrize("source", [9, 11, 17, 21])
def test_any_opset_becomes_the_targets(tmp_path: Path, source: int, target: int) -> None:
    model = load(adopted(tmp_path, foreign_net(source), spec(target)))
    assert opset(model) == target
    assert input_dims(model) == {"images": (None, SIDE, SIDE, 1)}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert [(out.name, out.type.tensor_type.shape.dim[1].dim_value) for out in model.graph.output] == [("logits", 10)]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_either_layout_and_a_fixed_batch(tmp_path: Path, layout: str, batch: int | str) -> None:
    graph = adopted(tmp_path, foreign_net(layout=layout, batch=batch), spec())
    assert input_dims(load(graph)) == {"images": (None, SIDE, SIDE, 1)}


def test_a_last_softmax_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = adopted(tmp_path, foreign_net(), spec())
    assert "softmax" not in caplog.text
    assert adopted(tmp_path, foreign_net(tail="Softmax"), spec()) == plain
    assert "net.onnx ends in a softmax, which is left out" in caplog.text


def test_probabilities_that_stay_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = foreign_net(tail="Softmax")
    model.graph.node.append(helper.make_node("Abs", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    adopted(tmp_path, model, spec())
    assert "answers probabilities, and they are taken for logits" in caplog.text


def test_the_output_that_is_asked_for(tmp_path: Path) -> None:
    model = foreign_net(extra=True, classes=16)
    first = adopted(tmp_path, model, spec(classes=16))
    last = adopted(tmp_path, model, spec(classes=16), output="logits_")
    assert "Gemm" in op_types(load(last))
    assert "Gemm" not in op_types(load(first))


def test_classes_are_brought_into_the_order_of_the_data(tmp_path: Path) -> None:
    names = tuple("bacdefghij")
    graph = load(adopted(tmp_path, foreign_net(), spec(), names))
    order = next(t for t in graph.graph.initializer if t.name == "logits.order")
    assert numpy_helper.to_array(order).tolist() == [1, 0, *range(2, 10)]
    assert "Gather" not in op_types(load(adopted(tmp_path, foreign_net(), spec(), tuple("abcdefghij"))))


def test_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"net\.onnx tells the classes x, b, .* apart, and the data a, b"):
        adopted(tmp_path, foreign_net(), spec(), tuple("xbcdefghij"))


@pytest.mark.parametrize(
    "text", ['["a", "b"]', "{0: 'a', 1: 'b'}", '{"1": "b", "0": "a"}', "['a', 'b']"], ids=["list", "repr", "json", "py"]
)
def test_names_in_the_metadata(tmp_path: Path, text: str) -> None:
    model = foreign_net()
    helper.set_model_props(model, {"names": text})
    assert read_foreign(saved(tmp_path / "m.onnx", model), None, spec(), "").class_names(None) == ("a", "b")


def test_names_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n\n")
    foreign = read_foreign(saved(tmp_path / "m.onnx", foreign_net()), None, spec(), "")
    assert foreign.class_names(tmp_path / "classes.txt") == ("a", "b")
    assert foreign.class_names(None) == ()


def test_weights_in_files_of_their_own(tmp_path: Path) -> None:
    onnx.save(foreign_net(), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    made = read_foreign(tmp_path / "m.onnx", tmp_path, spec(), "").adopted(spec(), (), ())
    assert made.model == adopted(tmp_path, foreign_net(), spec())


def test_control_flow_that_does_not_fold_is_refused(tmp_path: Path) -> None:
    model = foreign_net()
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(kind, ["logits_"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, kind in (("then", "Neg"), ("else", "Abs"))
    }
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["chosen"], **branches))
    model.graph.output[0].name = "chosen"
    assert "If" not in op_types(load(adopted(tmp_path, model, spec())))
    model.graph.node[-1].input[0] = "maybe"
    model.graph.node.insert(5, helper.make_node("ReduceMax", ["logits_"], ["top"], keepdims=0))
    model.graph.node.insert(6, helper.make_node("Cast", ["top"], ["maybe"], to=TensorProto.BOOL))
    with pytest.raises(ConfigError, match=r"net\.onnx: it has control flow \(If, node .*\) that depends on its input"):
        adopted(tmp_path, model, spec())


def test_a_batch_that_cannot_be_opened_is_said_with_the_size(tmp_path: Path) -> None:
    model = foreign_net(batch=1)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4, 8, 8), np.float32), "token"))
    model.graph.node.insert(2, helper.make_node("Concat", ["relu", "token"], ["both"], axis=3))
    model.graph.node[3].input[0] = "both"
    model.graph.node.insert(4, helper.make_node("Slice", ["pooled_", "from", "to", "axis"], ["pooled"]))
    model.graph.node[3].output[0] = "pooled_"
    for name, value in (("from", 0), ("to", 2), ("axis", 3)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    with pytest.raises(ConfigError, match=r"exported for batches of 1 alone, and cannot be opened.*export\.batch = 1"):
        adopted(tmp_path, model, spec())
    assert input_dims(load(adopted(tmp_path, model, spec(batch=1)))) == {"images": (1, SIDE, SIDE, 1)}


def test_a_graph_that_answers_otherwise_than_the_original_is_refused(tmp_path: Path) -> None:
    foreign = read_foreign(saved(tmp_path / "m.onnx", foreign_net()), None, spec(), "")
    made = foreign.adopted(image_spec(SIDE, SIDE, 1, (0.35,), (0.4,)), (), ())  # type: ignore[arg-type]
    with pytest.raises(StageFailed, match=r"answers otherwise on 9 samples: by .* of the largest value"):
        check_adopted(made, spec(), Samples({"images": images(9)}), 1e-3)


def test_a_model_that_cannot_run_as_it_came_is_said(tmp_path: Path) -> None:
    model = foreign_net()
    model.graph.initializer[1].dims[1] = 8
    model.graph.initializer[1].raw_data = model.graph.initializer[1].raw_data[: 4 * 8 * CLASSES]
    border = spec().border([Value("x", TensorProto.FLOAT, (None, 1, SIDE, SIDE))], tmp_path)
    with pytest.raises(ConfigError, match=r"it cannot be run as it came: ONNX Runtime .* cannot load"):
        check_rows(
            Adopted(b"", Original(model.SerializeToString(), "x", "logits_", None, False, ()), border, "m"), spec(), 5
        )


def test_an_answer_that_depends_on_its_neighbours_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    model = foreign_net(tail="Sub")
    model.graph.node[-1].input.append("mean")
    model.graph.node.insert(5, helper.make_node("ReduceMean", ["logits_"], ["mean"], axes=[0], keepdims=1))
    with pytest.raises(StageFailed, match="answers depend on the batch"):
        adopted(tmp_path, model, spec())
