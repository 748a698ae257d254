from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.analysis.sparsity import check_kept_sparse, check_sparse_modules, two_four_layers


def model(op: str, weight: np.ndarray) -> ModelProto:
    node = helper.make_node(op, ["x", "w"], ["y"], name=f"a/{op}")
    return helper.make_model(helper.make_graph([node], "g", [], [], [numpy_helper.from_array(weight, "w")]))


def pruned(shape: tuple[int, ...], axis: int, kept: int = 2) -> np.ndarray:
    """Weights of which the last ``kept`` of every four along ``axis`` are left."""
    weight = np.ones(shape, np.float32)
    position = np.arange(shape[axis]) % 4
    return weight * np.moveaxis(
        np.broadcast_to(position >= 4 - kept, (*shape[:axis], *shape[axis + 1 :], shape[axis])), -1, axis
    )


@pytest.mark.parametrize(
    ("op", "shape", "axis"), [("Conv", (8, 16, 3, 3), 1), ("MatMul", (16, 8), 0), ("Gemm", (16, 8), 0)]
)
def test_two_of_four_along_the_input(op: str, shape: tuple[int, ...], axis: int) -> None:
    assert two_four_layers(model(op, pruned(shape, axis))) == [f"a/{op}"]
    assert two_four_layers(model(op, pruned(shape, axis, kept=3))) == []
    assert two_four_layers(model(op, pruned(shape, 1 - axis))) == []  # along the outputs: no kernel reads that


def test_what_cannot_be_sparse() -> None:
    assert two_four_layers(model("Conv", np.zeros((8, 16, 3, 3), np.float32))) == []
    assert two_four_layers(model("Conv", pruned((8, 6, 1, 1), 1))) == []  # six inputs: no whole groups
    assert two_four_layers(model("MatMul", np.ones((16,), np.float32))) == []
    assert (
        two_four_layers(
            helper.make_model(helper.make_graph([helper.make_node("MatMul", ["x", "y"], ["z"])], "g", [], []))
        )
        == []
    )


def test_a_module_that_lost_the_pattern_in_the_export_is_named() -> None:
    sparse, dense = model("Conv", pruned((8, 16, 3, 3), 1)), model("Conv", np.ones((8, 16, 3, 3), np.float32))
    assert check_sparse_modules(sparse, ["a", "only.training"]) == 1
    assert check_sparse_modules(dense, ["b"]) == 0
    assert check_sparse_modules(model("MatMul", np.zeros((16, 8), np.float32)), ["a"]) == 1  # a part of a packed weight
    with pytest.raises(StageFailed, match=r"in the exported graph the weights of a/Conv are no longer 2:4"):
        check_sparse_modules(dense, ["a"])


def test_a_layer_that_lost_the_pattern_on_its_way_is_named() -> None:
    sparse, dense = model("MatMul", pruned((16, 8), 0)), model("MatMul", np.ones((16, 8), np.float32))
    check_kept_sparse(sparse, sparse)
    check_kept_sparse(dense, dense)
    check_kept_sparse(sparse, model("MatMul", np.zeros((16, 8), np.float32)))  # INT8 may round all of it to zero
    with pytest.raises(StageFailed, match=r"in the quantized graph the weights of a/MatMul are no longer 2:4"):
        check_kept_sparse(sparse, dense)
