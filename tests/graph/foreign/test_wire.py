"""What an ONNX file says of itself, read without onnx, is what onnx reads."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.wire import Value, read_facts

from ...foreign_models import foreign_net, saved


def test_the_facts_are_those_of_the_model(tmp_path: Path) -> None:
    model = foreign_net(11, batch=1, extra=True)
    helper.set_model_props(model, {"names": "['a']"})
    facts = read_facts(saved(tmp_path / "m.onnx", model))
    assert facts.opset == 11
    assert facts.inputs == [Value("x", TensorProto.FLOAT, (1, 1, 8, 8))]
    assert [str(value) for value in facts.outputs] == ["features float32[1, 16]", "logits_ float32[1, 10]"]
    assert dict(facts.operators) == {("", node.op_type): 1 for node in model.graph.node}
    assert dict(facts.weights) == {TensorProto.FLOAT: 3, TensorProto.INT64: 1}
    assert facts.metadata == {"names": "['a']"}
    assert not facts.external


def test_open_dimensions_weights_among_inputs_and_inner_graphs(tmp_path: Path) -> None:
    model = foreign_net(batch="n")
    weight = helper.make_tensor_value_info("conv.weight", TensorProto.FLOAT, [4, 1, 3, 3])
    model.graph.input.append(weight)  # as IR 3 has it
    inner = helper.make_graph([helper.make_node("Erf", ["a"], ["b"])], "inner", [weight], [weight])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    facts = read_facts(saved(tmp_path / "m.onnx", model))
    assert facts.inputs == [Value("x", TensorProto.FLOAT, (None, 1, 8, 8))]
    assert facts.operators["", "Erf"] == 2


def test_external_weights_are_named(tmp_path: Path) -> None:
    model = foreign_net()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert read_facts(tmp_path / "m.onnx").external == {"w.bin"}


@pytest.mark.parametrize("content", [b"", b"no model", b"\x3a\xff\xff\xff\x0f", b"\x08\xff" * 20, b"\x08\x07"])
def test_what_is_no_model_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ConfigError, match=r"m\.onnx: no ONNX model \(.*\); export it again"):
        read_facts(tmp_path / "m.onnx")


def test_a_file_cut_short_is_said_wherever_it_ends(tmp_path: Path) -> None:
    whole = foreign_net().SerializeToString()
    for end in range(20, len(whole) - 20, 97):
        (tmp_path / "m.onnx").write_bytes(whole[:end])
        with pytest.raises(ConfigError, match="no ONNX model"):
            read_facts(tmp_path / "m.onnx")


def test_a_nest_of_graphs_exhausts_no_stack(tmp_path: Path) -> None:
    def message(number: int, content: bytes) -> bytes:
        size, left = b"", len(content)
        while left > 0x7F:
            size, left = size + bytes([left & 0x7F | 0x80]), left >> 7
        return bytes([number << 3 | 2]) + size + bytes([left]) + content

    graph = b""
    for _ in range(2000):
        graph = message(1, message(5, message(6, graph)))  # a node's attribute
    (tmp_path / "m.onnx").write_bytes(message(7, graph))
    with pytest.raises(ConfigError, match="graphs are nested more than 16 deep"):
        read_facts(tmp_path / "m.onnx")


def test_a_number_without_end_is_not_read_to_the_end_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08" + b"\xff" * 5_000_000)
    with pytest.raises(ConfigError, match="has no end"):
        read_facts(tmp_path / "m.onnx")
