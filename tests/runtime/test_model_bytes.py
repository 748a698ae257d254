"""A model is what its own bytes say: nothing is read from the folder that somebody happens to stand in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.runtime import model_bytes
from dlx_deploy.runtime.archive import INDEX, to_json, write_archive
from dlx_deploy.runtime.errors import InputError, PackageError
from dlx_deploy.runtime.main import main
from dlx_deploy.runtime.model_bytes import check_model_bytes
from dlx_deploy.runtime.package import _entry, assemble, parse_package
from dlx_deploy.runtime.verify import teacher_predictions


def external(name: str = "secret") -> TensorProto:
    """A tensor of 4 floats that lives in secret.bin."""
    tensor = TensorProto(name=name, dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    return tensor


def model_with(*nodes: onnx.NodeProto, **graph: Any) -> ModelProto:
    return helper.make_model(onnx.GraphProto(name="g", node=nodes, **graph))


def attribute(**value: Any) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Constant", output=["c"], attribute=[AttributeProto(name="value", **value)])


def inside(depth: int, graph: onnx.GraphProto) -> ModelProto:
    for _ in range(depth):
        graph = onnx.GraphProto(node=[onnx.NodeProto(op_type="If", attribute=[AttributeProto(name="then", g=graph)])])
    return helper.make_model(graph)


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def sparse() -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=numpy_helper.from_array(np.ones(1, np.float32)), indices=external())


def in_training() -> ModelProto:
    model = model_with()
    model.training_info.add().algorithm.initializer.append(external())
    return model


def in_a_function() -> ModelProto:
    model = model_with()
    model.functions.add(name="f", domain="own", node=[attribute(t=external())])
    return model


def in_a_default_of_a_function() -> ModelProto:
    model = model_with()
    model.functions.add(name="f", domain="own", attribute_proto=[AttributeProto(name="value", t=external())])
    return model


PLACES: dict[str, Callable[[], ModelProto]] = {
    "initializer": lambda: model_with(initializer=[external()]),
    "sparse initializer": lambda: model_with(sparse_initializer=[sparse()]),
    "constant": lambda: model_with(attribute(t=external())),
    "list of constants": lambda: model_with(attribute(tensors=[TensorProto(), external()])),
    "sparse constant": lambda: model_with(attribute(sparse_tensor=sparse())),
    "sparse constants": lambda: model_with(attribute(sparse_tensors=[sparse()])),
    "branch": lambda: inside(1, onnx.GraphProto(initializer=[external()])),
    "list of graphs": lambda: model_with(attribute(graphs=[onnx.GraphProto(initializer=[external()])])),
    "deep branch": lambda: inside(20, onnx.GraphProto(initializer=[external()])),
    "training": in_training,
    "function": in_a_function,
    "default of a function": in_a_default_of_a_function,
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_a_tensor_can_be(place: str) -> None:
    with pytest.raises(PackageError, match=r"x\.dlx: the weights 'secret' are in the file 'secret\.bin', which a pack"):
        check_model_bytes(PLACES[place]().SerializeToString(), "x.dlx")


def test_either_half_of_external_data_is_enough() -> None:
    entries = external()
    entries.ClearField("data_location")
    location = external()
    location.ClearField("external_data")
    with pytest.raises(PackageError, match=r"in the file 'secret\.bin'"):
        check_model_bytes(model_with(initializer=[entries]).SerializeToString(), "x")
    with pytest.raises(PackageError, match="the weights 'secret' are outside the model"):
        check_model_bytes(model_with(initializer=[location]).SerializeToString(), "x")


def test_every_message_that_can_hold_a_tensor_is_walked() -> None:
    """The table is that of onnx.proto: a field through which a tensor is reached and which it lacks is a hole."""
    names = {"model": onnx.ModelProto, "training": onnx.TrainingInfoProto, "graph": onnx.GraphProto}
    names |= {"function": onnx.FunctionProto, "node": onnx.NodeProto, "attribute": onnx.AttributeProto}
    names |= {"sparse": onnx.SparseTensorProto, "tensor": onnx.TensorProto}
    of_type = {kind.DESCRIPTOR.full_name: name for name, kind in names.items()}
    for name, kind in names.items():
        wanted = {
            f.number: of_type[f.message_type.full_name]
            for f in kind.DESCRIPTOR.fields
            if f.message_type is not None and f.message_type.full_name in of_type
        }
        walked = {n: child for n, child in model_bytes.CHILDREN[name].items() if child != "property"}
        assert walked == wanted, name


def test_an_explicit_default_location_is_no_external_data() -> None:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "w")
    tensor.data_location = TensorProto.DEFAULT
    check_model_bytes(model_with(initializer=[tensor]).SerializeToString(), "x")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            helper.make_node("EPContext", [], [], domain="com.microsoft", embed_mode=0),
            "node of type EPContext, which",
        ),
        (helper.make_node("PythonOp", [], [], domain="com.microsoft"), "node of type PythonOp"),
        (helper.make_node("Plug", [], [], domain="trt.plugins"), r"operators of 'trt\.plugins', which ONNX Runtime do"),
        (helper.make_node("Own", [], [], domain="a\x1b[2J"), r"operators of 'a\\x1b\[2J'"),
    ],
)
def test_operators_from_elsewhere(node: onnx.NodeProto, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        check_model_bytes(model_with(node).SerializeToString(), "x")
    with pytest.raises(PackageError, match=message):
        check_model_bytes(inside(3, onnx.GraphProto(node=[node])).SerializeToString(), "x")


def test_functions_of_the_model_s_own_are_no_strangers() -> None:
    model = model_with(helper.make_node("Twice", ["x"], ["y"], domain="own"))
    model.functions.add(name="Twice", domain="own")
    check_model_bytes(model.SerializeToString(), "x")


def test_other_formats_and_options_in_the_model() -> None:
    with pytest.raises(PackageError, match=r"is in ONNX Runtime's own format \(\.ort\); must be ONNX"):
        check_model_bytes(b"\x20\0\0\0ORTM" + bytes(50), "x")
    model = model_with()
    helper.set_model_props(model, {"harmless": "1", "ort_config": "{}"})
    with pytest.raises(PackageError, match="the model has the property 'ort_config', session options"):
        check_model_bytes(model.SerializeToString(), "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x3a\x05\x00", "cut short"),
        (b"\x3a\xff\xff\xff\xff\x0f", "cut short"),
        (b"\x3a\x80", "cut short"),
        (b"\x08" + b"\xff" * 11, "a number of more than 10 bytes"),
        (b"\x88" * 6, "a number of more than 5 bytes"),
        (b"\x00\x01", "field number 0"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x38\x01", "field 7 of a model has wire type 0"),
    ],
)
def test_bytes_that_are_no_model(data: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=rf"x: ONNX Runtime .* the model: it is no ONNX model \({message}"):
        check_model_bytes(data, "x")


def test_the_walk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = b""
    for field in (6, 5, 1) * 40:  # a graph of an attribute of a node of a graph of …, which protobuf does not write
        deep = bytes([field << 3 | 2]) + varint(len(deep)) + deep
    with pytest.raises(PackageError, match="nested more than 100 deep"):
        check_model_bytes(b"\x3a" + varint(len(deep)) + deep, "x")
    monkeypatch.setattr(model_bytes, "MAX_FIELDS", 50)
    with pytest.raises(PackageError, match="more than 50 fields"):
        check_model_bytes(inside(20, onnx.GraphProto()).SerializeToString(), "x")
    monkeypatch.setattr(model_bytes, "MAX_BYTES", 10)
    with pytest.raises(PackageError, match="the model has 20 bytes; one ONNX model has at most 10"):
        check_model_bytes(bytes(20), "x")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(PLACES)), st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_model_is_refused_or_holds_what_protobuf_reads(place: str, position: int, byte: int) -> None:
    """The walk and protobuf itself agree: where the walk is content, protobuf sees no external data either."""
    data = bytearray(PLACES[place]().SerializeToString())
    data[position % len(data)] = byte
    try:
        check_model_bytes(bytes(data), "x")
    except PackageError:
        return
    try:
        model = ModelProto.FromString(bytes(data))
    except Exception:  # protobuf refuses more than the walk, which looks at no text and no number
        return
    assert "secret.bin" not in [entry.value for tensor in tensors(model) for entry in tensor.external_data]


def tensors(message: Any) -> list[TensorProto]:
    """Every tensor in a message of protobuf."""
    if isinstance(message, TensorProto):
        return [message]
    found = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if hasattr(value, "__len__") else [value]:
                found += tensors(one)
    return found


def outside(model: bytes, name: str = "secret.bin") -> bytes:
    """``model`` with its first weights said to be in a file."""
    loaded = ModelProto.FromString(model)
    tensor = loaded.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=name)
    return bytes(loaded.SerializeToString())


def test_a_package_with_external_data_is_refused_before_any_session(
    files: dict[str, bytes], contents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Even where the file lies in the working folder, and by every command."""
    model = outside(files["model.onnx"])
    meta = {**parse_package(files, "x").meta}
    meta["files"] = {**meta["files"], "model.onnx": _entry(model)}
    write_archive(tmp_path / "x.dlx", {**files, "model.onnx": model, INDEX: to_json(meta)})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(len(files["model.onnx"])))
    for command in (["info"], ["selftest"], ["bench"], ["predict", "a.png"], ["engine"]):
        assert main(command, "x.dlx") == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "x.dlx: the weights 'weights' are in the file 'secret.bin'" in captured.err
    with pytest.raises(PackageError, match="the new package: the weights 'weights' are in the file"):
        assemble(replace(contents, model=model))


def test_a_teacher_with_external_data_is_refused(tmp_path: Path, data: Any, helpers: Any) -> None:
    (tmp_path / "teacher.onnx").write_bytes(outside(helpers.tiny_model()))
    with pytest.raises(InputError, match=r"teacher\.onnx: the weights 'weights' are in the file 'secret\.bin'"):
        teacher_predictions(tmp_path / "teacher.onnx", data[0])
