"""A model is what its own bytes say: nothing is read from the folder that somebody happens to stand in."""

from __future__ import annotations

import re
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

from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.commands.verify import teacher_outputs
from dlx_deploy.runtime.errors import InputError, PackageError
from dlx_deploy.runtime.package import model_bytes
from dlx_deploy.runtime.package.archive import INDEX, to_json, write_archive
from dlx_deploy.runtime.package.contents import _entry, assemble, parse_package
from dlx_deploy.runtime.package.model_bytes import check_model_bytes


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
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x0f", "wire type 7"),
        (b"\x0d\0\0\0", "cut short"),
        (b"\x09\0\0\0\0\0\0\0", "cut short"),
        (b"\x38\x01", "field 7 of a model has wire type 0"),
        (b"\x3d\0\0\0\0", "field 7 of a model has wire type 5"),
    ],
)
def test_bytes_that_are_no_model(data: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=rf"x: ONNX Runtime .* the model: it is no ONNX model \({message}"):
        check_model_bytes(data, "x")


def coded(number: int, value: int | bytes, wire: int = 2) -> bytes:
    """One field of protobuf: a number (wire type 0), bytes with their length (2), or fixed bytes (1 and 5)."""
    tag = varint(number << 3 | (0 if isinstance(value, int) else wire))
    if isinstance(value, int):
        return tag + varint(value)
    return tag + (varint(len(value)) if wire == 2 else b"") + value


LOCATION = coded(13, coded(1, b"location") + coded(2, b"secret.bin"))


@pytest.mark.parametrize(
    "before", [coded(100, b"1234", 5), coded(100, b"12345678", 1), coded(100, 300), coded(100, b"")]
)
def test_what_nobody_knows_is_stepped_over_by_its_own_length(before: bytes) -> None:
    """Unknown fields of every wire type: what follows them is read where it is, and what is whole is taken."""
    check_model_bytes(before, "x")
    check_model_bytes(before * 3, "x")
    graph = before + coded(5, before + coded(8, b"secret") + LOCATION)
    with pytest.raises(PackageError, match=r"the weights 'secret' are in the file 'secret\.bin'"):
        check_model_bytes(before + coded(7, graph), "x")


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (coded(8, b"secret") + coded(8, 5) + LOCATION, "'secret' are in the file 'secret.bin'"),
        (coded(8, b"secret") + coded(8, b"12345678", 1) + LOCATION, "'secret' are in the file 'secret.bin'"),
        (coded(8, b"secret") + coded(8, b"1234", 5) + LOCATION, "'secret' are in the file 'secret.bin'"),
        (coded(12, b"\xff") + coded(8, b"secret") + LOCATION, "'secret' are in the file 'secret.bin'"),
        (LOCATION + coded(13, 1) + coded(13, b"\xff" * 8, 1), "'' are in the file 'secret.bin'"),
        (coded(13, coded(1, b"offset") + coded(2, b"7")), "'' are outside the model"),
        (coded(13, coded(1, b"location") + coded(2, b"one") + coded(2, b"1234", 5)), "'' are in the file 'one'"),
        (coded(13, coded(1, b"location")), "'' are in the file ''"),
        (LOCATION.replace(b"secret", b"public") + LOCATION, "in the file 'secret.bin'"),
        (coded(14, 1), "'' are outside the model"),
        (coded(14, 256), "'' are outside the model"),
        (coded(14, b"1234", 5), "'' are outside the model"),
        (coded(8, b"n" * 300) + coded(14, 1), f"the weights {'n' * 200!r} are outside"),
    ],
)
def test_the_refused_weights_are_named(tensor: bytes, said: str) -> None:
    with pytest.raises(PackageError, match=re.escape(said)):
        check_model_bytes(coded(7, coded(5, tensor)), "x")


@pytest.mark.parametrize(
    "harmless",
    [
        coded(7, coded(5, coded(14, 0) + coded(8, b"w"))),
        coded(7, coded(1, coded(4, b"Relu") + coded(7, 1) + coded(4, 1) + coded(7, b"1234", 5))),
        coded(14, coded(1, b"harmless") + coded(2, b"ort_config")),
        coded(14, coded(2, b"ort_config")),
        coded(7, coded(1, coded(1, b"ort_config"))),
        coded(7, coded(13, coded(1, b"location"))),
        coded(7, coded(1, coded(7, b"own"))) + coded(25, coded(10, b"own")),
        coded(25, coded(10, b"own") + coded(7, coded(7, b"own"))),
    ],
)
def test_what_only_looks_like_it_is_taken(harmless: bytes) -> None:
    check_model_bytes(harmless, "x")


def test_the_last_tag_and_the_longest_numbers() -> None:
    """A tag has 32 bits, whatever the five bytes could hold; another number may have ten bytes."""
    hidden = coded(5, coded(8, b"secret") + LOCATION)
    tag = b"\xba\x80\x80\x80\x10"  # 7 << 3 | 2, and a bit that does not fit
    with pytest.raises(PackageError, match="the weights 'secret'"):
        check_model_bytes(tag + varint(len(hidden)) + hidden, "x")
    check_model_bytes(b"\x08" + b"\xff" * 9 + b"\x01", "x")
    check_model_bytes(b"\x08" + b"\x80" * 9 + b"\x00", "x")


def nested(messages: int) -> bytes:
    """A model of so many messages, one in the other: a graph of a node of an attribute of a graph of …"""
    data = b""
    for field in reversed([7, *(1, 5, 6) * messages][: messages - 1]):
        data = coded(field, data)
    return data


def test_the_bounds_themselves_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    check_model_bytes(nested(100), "x")
    with pytest.raises(PackageError, match="nested more than 100 deep"):
        check_model_bytes(nested(101), "x")
    monkeypatch.setattr(model_bytes, "MAX_FIELDS", 50)
    check_model_bytes(coded(7, coded(100, 1) * 24) * 2, "x")
    with pytest.raises(PackageError, match="more than 50 fields"):
        check_model_bytes(coded(7, coded(100, 1) * 24) * 2 + coded(100, 1), "x")
    monkeypatch.setattr(model_bytes, "MAX_BYTES", 3)
    check_model_bytes(coded(100, 1), "x")
    monkeypatch.setattr(model_bytes, "MAX_BYTES", 2)
    with pytest.raises(PackageError, match="the model has 3 bytes; one ONNX model has at most 2"):
        check_model_bytes(coded(100, 1), "x")


class Long(bytes):
    """No bytes, which say that there are ``size``."""

    size = 2**31

    def __len__(self) -> int:
        return self.size


def test_protobuf_s_own_limit_is_the_limit() -> None:
    with pytest.raises(PackageError, match="has 2147483648 bytes; one ONNX model has at most 2147483647"):
        check_model_bytes(Long(), "x")
    longest = Long()
    longest.size -= 1
    check_model_bytes(longest, "x")


def test_the_mark_of_the_other_format_counts_at_its_place_alone() -> None:
    check_model_bytes(coded(100, b"ORTM"), "x")
    check_model_bytes(coded(100, b"12ORTM"), "x")
    assert coded(100, b"1ORTM")[4:8] == b"ORTM"
    with pytest.raises(PackageError, match="own format"):
        check_model_bytes(coded(100, b"1ORTM"), "x")


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
    listed = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if hasattr(value, "__len__") else [value]:
                listed += tensors(one)
    return listed


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
        teacher_outputs(tmp_path / "teacher.onnx", helpers.tiny_task(), {"images": data[0]})
