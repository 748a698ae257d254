"""Packages as configurations of DeepStream's nvinfer: the graph is run, the configuration read back."""

from __future__ import annotations

import configparser
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from dlx_deploy.bundles import deepstream
from dlx_deploy.bundles.bundle import BundleView, export_bundle
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.runtime.package.contents import PackageContents
from dlx_deploy.runtime.tasks.framing import BGR, CROP, LETTERBOX, Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.tasks.classes import Classes
from tests.bundles.packages import classes, masks, texts, written
from tests.runtime.conftest import LABELS, SHAPE, metadata, tiny_model


def exported(tmp_path: Path, contents: PackageContents) -> BundleView:
    return export_bundle(written(tmp_path, contents), "deepstream", tmp_path / "ds")


def properties(view: BundleView) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(view.folder / "config_infer_primary.txt")
    assert parser.sections() == ["property"]
    return dict(parser["property"])


def as_nvinfer_feeds(images: np.ndarray, keys: dict[str, str]) -> np.ndarray:
    """Planes as nvinfer makes them of frames of the network's size: scale * (pixel - offset)."""
    offsets = np.array([float(one) for one in keys["offsets"].split(";")], np.float32)
    planes = float(keys["net-scale-factor"]) * (images.astype(np.float32) - offsets)
    return np.ascontiguousarray(planes.transpose(0, 3, 1, 2), np.float32)


def answered(view: BundleView, images: np.ndarray) -> np.ndarray:
    keys = properties(view)
    session = ort.InferenceSession(view.folder / keys["onnx-file"])
    (planes,) = session.get_inputs()
    assert planes.shape[1:] == [int(n) for n in keys["infer-dims"].split(";")]
    (found,) = session.run([keys["output-blob-names"]], {planes.name: as_nvinfer_feeds(images, keys)})
    return np.asarray(found)


def test_a_classifier_answers_as_the_package_by_its_labels(tmp_path: Path) -> None:
    contents = classes()
    view = exported(tmp_path, contents)
    keys = properties(view)
    found = answered(view, contents.golden_inputs["images"])
    powers = np.exp(contents.golden_outputs["logits"])
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    labels = (view.folder / keys["labelfile-path"]).read_text().splitlines()[0].split(";")
    assert [labels[k] for k in found.argmax(axis=1)] == ["cat", "dog", "owl", "cat"]
    assert (keys["network-type"], keys["network-mode"], keys["batch-size"]) == ("1", "0", "1")
    assert keys["model-engine-file"] == "model.onnx_b1_gpu0_fp32.engine"
    assert float(keys["classifier-threshold"]) < found.max(axis=1).min(), "every frame gets an answer"


def test_a_mask_answers_as_the_package(tmp_path: Path) -> None:
    contents = masks()
    view = exported(tmp_path, contents)
    found = answered(view, contents.golden_inputs["images"])
    assert (found.argmax(axis=1) == contents.golden_outputs["logits"].argmax(axis=1)).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert properties(view)["network-type"] == "2"
    assert (view.folder / "labels.txt").read_text().splitlines() == ["red", "green", "blue"]


def of_frames(framing: Framing) -> PackageContents:
    words = {"resize": framing.resize, "resize_size": list(framing.target), "interpolation": framing.interpolation}
    more = {"fill": list(framing.fill), "color_order": framing.color_order}
    told = {**metadata()["preprocessing"], **words, **more}
    task = image_classification(framing, LABELS)
    return replace(classes(preprocessing=told), task=task)


@pytest.mark.parametrize(
    ("framing", "keys", "note"),
    [
        (Framing(*SHAPE, resize=LETTERBOX), {"maintain-aspect-ratio": "1", "symmetric-padding": "1"}, ""),
        (
            Framing(*SHAPE, resize=LETTERBOX, fill=(9,)),
            {"maintain-aspect-ratio": "1"},
            r"pads with \[9\]; nvinfer pads",
        ),
        (Framing(*SHAPE, resize=CROP), {"maintain-aspect-ratio": "0"}, r"keeps the middle 4 x 6; nvinfer cannot crop"),
        (Framing(*SHAPE, box=(8, 8)), {"maintain-aspect-ratio": "0"}, r"squash to 8 x 8 and keeps the middle 4 x 6"),
        (Framing(*SHAPE, interpolation="bicubic"), {"scaling-filter": "1"}, "resizes by bicubic; nvinfer is set to"),
        (Framing(*SHAPE, interpolation="nearest"), {"scaling-filter": "0"}, ""),
        (Framing(*SHAPE, color_order=BGR), {"model-color-format": "1"}, ""),
    ],
)
def test_what_is_done_to_a_frame(tmp_path: Path, framing: Framing, keys: dict[str, str], note: str) -> None:
    import re

    view = exported(tmp_path, of_frames(framing))
    assert {**properties(view), **keys} == properties(view)
    always = 3  # of antialiasing, EXIF orientation, and of a target without TensorRT
    assert len(view.notes) == always + bool(note)
    assert re.search(note, "\n".join(view.notes))
    assert all(one in (view.folder / "README.md").read_text() for one in view.notes)


def test_int8_is_built_by_trtexec_where_nvinfer_looks_for_it(tmp_path: Path) -> None:
    recipe = {"precision": "int8", "elsewhere": "fp16", "backends": ["tensorrt"], "engine": {"strongly_typed": True}}
    view = exported(tmp_path, classes(recipe=recipe))
    keys = properties(view)
    assert keys["network-mode"] == "1"
    (command,) = (line for line in (view.folder / "README.md").read_text().splitlines() if "trtexec --onnx" in line)
    assert f"--saveEngine={keys['model-engine-file']}" in command
    assert "--stronglyTyped --minShapes=planes:1x3x6x4 " in command
    assert any("nvinfer builds no INT8 engine" in note for note in view.notes)


def test_texts_and_labels_that_have_no_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reads texts, and nvinfer feeds pictures alone; use --format triton"):
        exported(tmp_path, texts())
    named = replace(classes(), task=image_classification(Framing(*SHAPE), ["a;b", "c", "d"]))
    with pytest.raises(ConfigError, match=r"the class 'a;b' holds ';'; .*: rename the class"):
        exported(tmp_path, named)
    assert not (tmp_path / "ds").exists()


def test_a_task_that_says_nothing_of_servers_has_no_labels_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Classes, "served")
    with pytest.raises(ConfigError, match=r"no type of network for the answers of image-classification; use --format"):
        exported(tmp_path, classes())
    view = export_bundle(written(tmp_path, classes()), "triton", tmp_path / "models")
    assert "labels.txt" not in view.files
    assert "label_filename" not in (view.folder / "config.pbtxt").read_text()


def test_a_fixed_batch_is_the_size_of_the_batch(tmp_path: Path) -> None:
    view = exported(tmp_path, classes(model=tiny_model(batch=2), batch=2))
    assert properties(view)["batch-size"] == "2"
    assert properties(view)["model-engine-file"] == "model.onnx_b2_gpu0_fp32.engine"
    assert "--minShapes" not in (view.folder / "README.md").read_text()


def test_nodes_that_tensorrt_does_not_read_are_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(tiny_model())
    gemm = model.graph.node[2]
    gemm.CopyFrom(helper.make_node("FusedMatMul", ["flat", "weights"], ["logits"], domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ConfigError, match=r"nodes of ONNX Runtime's own \(FusedMatMul\), which TensorRT does not read"):
        exported(tmp_path, classes(model=model.SerializeToString()))


def test_a_graph_that_answers_otherwise_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = deepstream._planar

    def turned(package: Any) -> bytes:
        model = onnx.load_from_string(right(package))
        (turn,) = (node for node in model.graph.node if node.op_type == "Transpose")
        turn.attribute[0].ints[:] = [0, 3, 2, 1]
        return bytes(model.SerializeToString())

    monkeypatch.setattr(deepstream, "_planar", turned)
    with pytest.raises(StageFailed, match=r"answers the golden inputs otherwise: a probability is 0\.\d+ away; rule"):
        exported(tmp_path, classes())
    assert not (tmp_path / "ds").exists()


def test_the_input_is_float_planes(tmp_path: Path) -> None:
    view = exported(tmp_path, masks())
    model = onnx.load(view.folder / "model.onnx")
    (planes,) = model.graph.input
    assert planes.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [dim.dim_param or dim.dim_value for dim in planes.type.tensor_type.shape.dim] == ["batch", 3, 4, 6]
    assert "Transpose" not in [node.op_type for node in model.graph.node], "planes already"
