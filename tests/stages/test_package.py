"""What the package stage takes from the graph itself, and what it refuses to pack."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.config import Gate
from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.commands.parity import check_parity
from dlx_deploy.runtime.package.contents import Package, open_package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks import arrays
from dlx_deploy.runtime.tasks.arrays import Tolerance, within
from dlx_deploy.runtime.tasks.features import features_of
from dlx_deploy.runtime.watching.reference import read_reference
from dlx_deploy.stages import evaluate, package
from dlx_deploy.stages.evaluate import EvaluateParams
from dlx_deploy.stages.package import STAGE, PackageParams
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions
from dlx_deploy.stages.support.tolerances import relative, tolerance_of
from dlx_deploy.targets import load_target
from dlx_deploy.tasks.verification import Accuracy, Row

from ..datasets import held_images

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
LABELS = np.arange(20, dtype=np.int64) % 2


def graph(batch: str | int = "batch", mixing: bool = False, weights: Any = np.float32) -> bytes:
    """Two sums of pixels; ``mixing`` takes the batch's mean off; int8 ``weights`` are dequantized."""
    values = np.random.default_rng(1).integers(-127, 128, (16, 2))
    constants = [numpy_helper.from_array(values.astype(weights), "stored")]
    constants.append(numpy_helper.from_array(np.array(0.01, np.float32), "scale"))
    make = "DequantizeLinear" if weights == np.int8 else "Mul"
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], name="a", to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"], name="b"),
        helper.make_node(make, ["stored", "scale"], ["weights"], name="c"),
        helper.make_node("MatMul", ["flat", "weights"], ["own" if mixing else "logits"], name="d"),
    ]
    if mixing:
        nodes.append(helper.make_node("ReduceMean", ["own"], ["mean"], name="e", axes=[0], keepdims=1))
        nodes.append(helper.make_node("Sub", ["own", "mean"], ["logits"], name="f"))
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, 4, 4, 1])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2])]
    model = helper.make_graph(nodes, "sums", inputs, outputs, constants)
    return bytes(
        helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: held_images(IMAGES, LABELS))
    same, size = {"b": 0, "c": 0}, {"size_bytes": 1, "macs": 1, "parameters": 1}
    rows = tuple(Row(model=m, score=1, evidence=same, **size) for m in ("teacher", "quantized"))
    known = {"metric": "top1", "title": "top-1", "facts": {"largest_class": 0.5}}
    accuracy = Accuracy(**known, judge="native", n=20, shipped="quantized", rows=rows)
    plan = LayerPrecisions(precision="fp32", elsewhere="fp32", layers={"d": "fp32"})
    recipe = {"precision": "fp32", "elsewhere": "fp32", "reason": "a test", "backends": ["onnxruntime-cpu"]}
    (tmp_path / "engine").mkdir()
    for name, value in {"recipe": recipe, "layers": plan, "accuracy": accuracy, "engine/report.json": {}}.items():
        (tmp_path / name).write_bytes(canonical_json(value))
    (tmp_path / "provenance").write_text(json.dumps({"schema": 1}))
    np.savez(tmp_path / "teacher.npz", label=LABELS, teacher=LABELS)
    (tmp_path / "teacher.npz").rename(tmp_path / "teacher")
    (tmp_path / "out").mkdir()

    def pack(model: bytes, target: str = "cpu-x86_64", **keys: Any) -> Package:
        (tmp_path / "model").write_bytes(model)
        inputs = {name: tmp_path / name for name in STAGE.inputs}
        kept = tmp_path / "kept"
        kept.mkdir(exist_ok=True)
        given = {name: inputs[name] for name in ("model", "data")}
        asked = EvaluateParams(answers=False, parity_samples=keys.get("parity_samples", 512))
        evaluate.STAGE.run(Job(asked, given, kept, load_target(target).profile))
        if asked.parity_samples:
            inputs["answered-quantized"] = kept / "parity.npz"
        params = PackageParams(name="sums", version="1", gate=Gate(), runtime="", **keys)
        STAGE.run(Job(params, inputs, tmp_path / "out", load_target(target).profile))
        return open_package(tmp_path / "out" / "package.dlx")

    return pack


def test_the_digest_of_the_runtime_is_of_all_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for sources in ({"a.py": b"1", "b.py": b"2"}, {"a.py": b"1", "b.py": b"3"}, {"a.py": b"12", "b.py": b""}):
        monkeypatch.setattr(package, "own_sources", lambda sources=sources: sources)
        seen.add(package._runtime_digest.__wrapped__())
    assert len(seen) == 3


def test_golden_answers_that_depend_on_the_batch_are_not_packed(packed: Any, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"answers depend on the batch: row \d+ .*the first node .* is 'e' \(ReduceM"):
        packed(graph(mixing=True))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("batch", "fixed"), [("batch", None), (1, 1), (4, 4)])
def test_the_batch_size_is_the_graph_s_own(packed: Any, batch: str | int, fixed: int | None) -> None:
    assert packed(graph(batch)).batch == fixed


@pytest.mark.parametrize(
    ("weights", "target", "needed"),
    [
        (np.int8, "cpu-x86_64", True),
        (np.float32, "cpu-x86_64", False),
        (np.int8, "cpu-aarch64", False),
        (np.int8, "jetson", False),
    ],
)
def test_full_range_weights_need_a_dot_product_on_x86(packed: Any, weights: Any, target: str, needed: bool) -> None:
    assert packed(graph(weights=weights), target).meta["execution"]["dot_product"] is needed


def test_a_near_tie_is_not_golden(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tied = IMAGES.copy()
    tied[[0, 2]] = 0  # every logit 0: another runtime may take either class, and be right
    monkeypatch.setitem(globals(), "IMAGES", tied)
    package = packed(graph())
    assert (package.golden_inputs["images"] == tied[[1, 3, 4, 5, 6, 7, 8, 9]]).all()


def test_what_was_measured_and_every_gate_of_the_task_travel_along(packed: Any, tmp_path: Path) -> None:
    measured = packed(graph()).meta["accuracy"]
    assert (measured["metric"], measured["n"], measured["rows"][1]["score"]) == ("top1", 20, 1)
    assert (measured["rows"][1]["evidence"], measured["facts"]) == ({"b": 0, "c": 0}, {"largest_class": 0.5})
    assert (measured["gate"]["gate"], measured["gate"]["metric"]) == ("accuracy", "top1_drop")
    with zipfile.ZipFile(tmp_path / "out" / "package.dlx") as archive:
        card = archive.read("MODEL_CARD.md").decode()
    assert "| model | top-1 | parameters |" in card
    assert 'sys.path.insert(0, "PACKAGE.dlx")\nfrom dlx_runtime import load\n\npredictor = load()\n' in card
    assert "answers = predictor.predict(images)" in card
    assert "| shipped | 100.00 % |" in card
    assert "- Gate accuracy: **undecided**. Accuracy drop 0.00 points on 20 samples, " in card
    assert "- Gate chance: **pass**. The teacher is right on 100.00 % of 20 test samples, " in card


def test_answers_to_many_samples_travel_along(packed: Any) -> None:
    package = packed(graph())
    table = package.parity
    assert table is not None
    np.testing.assert_array_equal(table.digests, package.reference["digest"])  # 20 images, all of them
    np.testing.assert_array_equal(table.decisions[:, 0], table.answers["logits"].argmax(axis=1))
    assert (table.answers["logits"].shape, table.exact, table.other.sqnr_db) == ((20, 2), None, 60)
    assert check_parity(Predictor(package), {"images": IMAGES}).failure() is None
    few = packed(graph(), parity_samples=5).parity
    np.testing.assert_array_equal(few.digests, table.digests[[0, 4, 8, 12, 16]])
    assert packed(graph(), parity_samples=0).parity is None


def test_statistics_for_a_drift_watch_travel_along(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed(graph()).drift is None  # of 20 samples
    monkeypatch.setattr("dlx_deploy.stages.support.drift.LEAST_SAMPLES", 20)
    package = packed(graph())
    reference = read_reference(package)
    assert reference is not None
    names = ["input_brightness", "input_contrast", "input_detail", "output_class", "output_confidence"]
    assert ([one.name for one in reference.features], reference.samples) == (names, 20)
    answers = Predictor(package).run({"images": IMAGES})
    told = features_of(package.task, {"images": IMAGES}, answers)
    assert [one.distance(told[one.name]) for one in reference.features] == pytest.approx([0] * 5)
    assert packed(graph(), parity_samples=0).drift is None


def test_golden_inputs_are_chosen_among_few_if_answers_are_large(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tied = IMAGES.copy()
    tied[[0, 2]] = 0
    monkeypatch.setitem(globals(), "IMAGES", tied)
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 9 * (4 * 4 + 2 * 4))  # of nine inputs and their answers
    assert (packed(graph()).golden_inputs["images"] == tied[[0, 1, 3, 4, 5, 6, 7, 8]]).all()
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 1)
    assert (packed(graph()).golden_inputs["images"] == tied[:8]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_whole_numbers_have_no_tolerance(dtype: Any) -> None:
    """A share of the largest class would let the classes beside the right one pass."""
    recipe = {"precision": "int8", "elsewhere": "fp32"}
    classes = np.array([[0, 19], [3, 100]], dtype)
    for moved in (None, 0.03):
        exact = tolerance_of(recipe, classes, moved)
        assert exact == Tolerance(0.0, 0.0)
        assert not within(
            {"classes": classes + np.eye(2, dtype=dtype)}, {"classes": classes}, {"classes": exact}
        ).rows.any()
    assert tolerance_of(recipe, classes.astype(np.float32), 0.02) == Tolerance(5.0, 1e-3, 4.0)


def test_the_smallest_of_int8_has_a_size() -> None:
    assert relative(Tolerance(6.4, 0.0), np.array([-128, 1], np.int8), exact=False) == 0.05
