"""Which ONNX models can be the teacher, said before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.usable import Picture, chosen_output, external_files, layout_of, usable_facts
from dlx_deploy.graph.foreign.wire import Value

from ...foreign_models import foreign_net, saved


def custom(model: ModelProto) -> None:
    model.graph.node[1].domain = "com.microsoft"


def quantized(model: ModelProto) -> None:
    model.graph.node[1].op_type = "QLinearConv"


def half(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.float16), "w16"))


def of_strings(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def of_doubles(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def of_tokens(model: ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[2:]


def second_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1, 8, 8]))


def ancient(model: ModelProto) -> None:
    model.opset_import[0].version = 6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (custom, r"has custom operators: com\.microsoft\.Relu; rule: those of ONNX's own domain alone"),
        (quantized, r"is quantized already \(QLinearConv\); give the float32 model that it was made from"),
        (half, r"is in float16; give the float32 model"),
        (of_strings, r"reads x string\[N, 1, 8, 8\]; rule: images, float32"),
        (of_doubles, r"reads x float64\[N, 1, 8, 8\]; rule: images.*; cast inside the model"),
        (of_tokens, r"reads x float32\[N, 1\]; rule: images"),
        (second_input, r"has 2 inputs \(x float32\[N, 1, 8, 8\], z float32\[1, 1, 8, 8\]\); rule: one, of images"),
        (ancient, r"is of opset 6; rule: 7 to \d+; export it with another"),
    ],
)
def test_what_is_refused(tmp_path: Path, spoil: Callable[[ModelProto], None], message: str) -> None:
    model = foreign_net()
    usable_facts(saved(tmp_path / "m.onnx", model))
    spoil(model)
    with pytest.raises(ConfigError, match=message):
        usable_facts(saved(tmp_path / "m.onnx", model))


def external(folder: Path, location: str) -> Path:
    onnx.save(foreign_net(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    return saved(folder / "m.onnx", model)  # type: ignore[no-any-return]


def test_weights_beside_the_model_are_found(tmp_path: Path) -> None:
    assert external_files(external(tmp_path, "w.bin")) == ["w.bin"]
    assert external_files(saved(tmp_path / "one.onnx", foreign_net())) == []


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("gone.bin", r"its weights lie in 'gone\.bin', which is not beside it; copy both"),
        ("../w.bin", r"its weights lie in '\.\./w\.bin'; rule: a file in the model's own folder"),
        ("/etc/passwd", r"its weights lie in '/etc/passwd'; rule: a file in the model's own folder"),
        ("link.bin", r"its weights lie behind the link 'link\.bin'; rule: a plain file"),
    ],
)
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str, message: str) -> None:
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match=message):
        external_files(external(tmp_path, location))


@pytest.mark.parametrize(
    ("dims", "layout"),
    [
        ((None, 3, 8, 8), "NCHW"),
        ((1, 8, 8, 3), "NHWC"),
        ((None, None, None, 3), "NHWC"),
        ((None, 3, None, None), "NCHW"),
        ((None, None, None, None), "NCHW"),
    ],
)
def test_where_the_channels_are(dims: tuple[int | None, ...], layout: str) -> None:
    assert layout_of(Value("x", 1, dims), Picture(8, 8, 3), Path("m.onnx")) == layout


def test_a_layout_that_nothing_tells_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert layout_of(Value("x", 1, (None, 3, 3, 3)), Picture(3, 3, 3), Path("m.onnx")) == "NCHW"
    assert "does not say where its channels are; taken as NCHW" in caplog.text


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"reads x float32\[N, 3, 224, 224\], and the images are 8 x 8 of 3 channels"):
        layout_of(Value("x", 1, (None, 3, 224, 224)), Picture(8, 8, 3), Path("m.onnx"))


OUTPUTS = [
    Value("label", 8, (None,)),
    Value("features", 1, (None, 16)),
    Value("pooled", 1, (None, 10, 1, 1)),
    Value("aux", 1, (None, 10)),
]


def test_the_first_output_that_fits_answers_and_the_others_are_said(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen_output(OUTPUTS, "", (10,), Path("m.onnx")).name == "pooled"
    assert "'pooled' is what it answers (teacher.output); left out: label, features, aux" in caplog.text
    assert chosen_output(OUTPUTS, "aux", (10,), Path("m.onnx")).name == "aux"
    assert chosen_output([Value("y", 1, None)], "", (10,), Path("m.onnx")).name == "y"


@pytest.mark.parametrize(
    ("asked", "count", "message"),
    [
        ("logit", 10, r"teacher\.output is 'logit', and m\.onnx has no such output; it has: 'label', 'features'"),
        ("features", 10, r"gives features float32\[N, 16\], and the data ask for float32\[N, 10\]"),
        ("", 7, r"gives label string\[N\], .*, and the data ask for float32\[N, 7\]; a network must tell as many"),
    ],
)
def test_an_output_that_does_not_fit_is_refused(asked: str, count: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_output(OUTPUTS, asked, (count,), Path("m.onnx"))
