from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from dlx_deploy.runtime.backends.table import BACKENDS
from dlx_deploy.runtime.commands.selftest import self_test
from dlx_deploy.runtime.errors import PackageError, SelfTestFailed
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.arrays import Tolerance


def test_passes(predictor: Predictor) -> None:
    result = self_test(predictor)
    (logits,) = result.outputs
    assert (result.images, logits.name, logits.atol, logits.rtol) == (4, "logits", 1e-4, 1e-4)
    assert 0 <= logits.max_abs_diff < 1e-5
    assert result.to_dict() == {"images": 4, "max_abs_diff": logits.max_abs_diff, "atol": 1e-4, "rtol": 1e-4} | {
        "outputs": [vars(logits)]
    }


def changed(golden: np.ndarray, row: int, by: float) -> np.ndarray:
    golden = golden.copy()
    golden[row, 1] += by
    return golden


def test_names_the_first_image_that_differs(make_predictor: Any, data: Any, helpers: Any) -> None:
    golden = changed(changed(helpers.expected_logits(data[0][:4]), 2, 0.01), 3, 0.01)
    with pytest.raises(
        SelfTestFailed, match=r"golden image 2 differs \(2 of 4 do\): logit 1 \('dog'\) is \S+, expected .* atol 0.0001"
    ) as e:
        self_test(make_predictor(golden=golden))
    assert e.value.exit_code == 5


def test_difference_within_the_tolerance_passes(make_predictor: Any, data: Any, helpers: Any) -> None:
    golden = changed(helpers.expected_logits(data[0][:4]), 0, 5e-5)
    assert self_test(make_predictor(golden=golden)).outputs[0].max_abs_diff == pytest.approx(5e-5, rel=0.05)


def test_another_winner_fails_whatever_the_tolerance(make_predictor: Any, helpers: Any) -> None:
    with pytest.raises(SelfTestFailed, match=r"golden image 0 differs \(4 of 4 do\).*top-1 is 'dog', expected 'cat'"):
        self_test(make_predictor(model=helpers.tiny_model(shift=1), tolerance=Tolerance(100, 0)))


def test_nan_fails(package: Package, data: Any, helpers: Any) -> None:
    golden = changed(helpers.expected_logits(data[0][:4]), 1, np.nan)
    with pytest.raises(SelfTestFailed, match=r"golden image 1 differs \(1 of 4 do\): logit 1 .* expected nan"):
        self_test(Predictor(replace(package, golden_outputs={"logits": golden})))


def mixing_model(tiny: bytes) -> bytes:
    """The classifier, less the mean of the batch: an answer depends on its neighbours."""
    model = onnx.load_model_from_string(tiny)
    last = model.graph.node[-1]
    last.output[0] = "own"
    mean = onnx.helper.make_node("ReduceMean", ["own"], ["mean"], axes=[0], keepdims=1)
    model.graph.node.extend([mean, onnx.helper.make_node("Sub", ["own", "mean"], ["logits"])])
    return model.SerializeToString()


@pytest.mark.parametrize("batch", [None, 4])
def test_answers_that_depend_on_the_batch_fail(batch: int | None, make_predictor: Any, data: Any, helpers: Any) -> None:
    own = helpers.expected_logits(data[0][:4])
    model = mixing_model(helpers.tiny_model(batch=batch))
    package = make_predictor(model=model, batch=batch, golden=own - own.mean(axis=0))
    with pytest.raises(SelfTestFailed, match=r"golden image 0 differs alone \(\d of 4 do\).*depend on the batch"):
        self_test(package)


def test_answers_that_depend_on_the_size_of_the_batch_fail(make_predictor: Any, helpers: Any) -> None:
    model = onnx.load_model_from_string(helpers.tiny_model())
    model.graph.node[-1].output[0] = "own"
    for name, value in (("three", np.array([3])), ("start", np.array([0])), ("end", np.array([1]))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.graph.node.extend(
        [
            onnx.helper.make_node("Shape", ["own"], ["shape"]),
            onnx.helper.make_node("Slice", ["shape", "start", "end"], ["size"]),
            onnx.helper.make_node("Equal", ["size", "three"], ["odd"]),
            onnx.helper.make_node("Cast", ["odd"], ["more"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Add", ["own", "more"], ["logits"]),
        ]
    )
    with pytest.raises(SelfTestFailed, match=r"golden image 3 differs in a batch of 3 \(3 of 3 do\)"):
        self_test(make_predictor(model=model.SerializeToString()))


def test_answers_that_depend_on_the_order_fail(make_predictor: Any, data: Any, helpers: Any) -> None:
    """A fixed batch is padded with copies: a place in the batch that counts shows in another order alone."""
    model = onnx.load_model_from_string(helpers.tiny_model(batch=4))
    model.graph.node[-1].output[0] = "own"
    place = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0.01, 0]], np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(place, "place"))
    model.graph.node.append(onnx.helper.make_node("Add", ["own", "place"], ["logits"]))
    golden = helpers.expected_logits(data[0][:4]) + place
    with pytest.raises(SelfTestFailed, match=r"golden image 3 differs alone \(1 of 4 do\)"):
        self_test(make_predictor(model=model.SerializeToString(), batch=4, golden=golden))


def test_exact_arithmetic_has_its_own_tolerance(make_predictor: Any, data: Any, helpers: Any) -> None:
    golden = changed(helpers.expected_logits(data[0][:4]), 0, 0.01)
    loose, exact = Tolerance(0.05, 0, 0.001), helpers.metadata(execution={"exact_qdq": True})
    with pytest.raises(SelfTestFailed, match=r"golden image 0 differs \(1 of 4 do\).* within atol 0\.001 "):
        self_test(make_predictor(golden=golden, tolerance=loose, metadata=exact))
    assert self_test(make_predictor(golden=golden, tolerance=loose)).outputs[0].atol == 0.05
    without = make_predictor(golden=golden, tolerance=Tolerance(0.05, 0), metadata=exact)
    assert self_test(without).outputs[0].atol == 0.05


def test_an_engine_has_the_wider_tolerance(make_predictor: Any, helpers: Any) -> None:
    exact = helpers.metadata(execution={"exact_qdq": True})
    predictor = make_predictor(metadata=exact, tolerance=Tolerance(0.05, 0, 0.001))
    predictor.backend = replace(predictor.backend, name="tensorrt", record=BACKENDS["tensorrt"])
    assert self_test(predictor).outputs[0].atol == 0.05


@pytest.mark.parametrize("wrong", [-1, "0.1", True, 1e9])
def test_a_wrong_exact_tolerance_is_refused(make_predictor: Any, wrong: Any) -> None:
    with pytest.raises(PackageError, match=r"golden\.tolerances\.logits\.exact_atol is"):
        make_predictor(tolerance=Tolerance(0.05, 0, wrong))
