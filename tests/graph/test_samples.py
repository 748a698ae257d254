"""Rows of several named arrays, through a model of two inputs and two outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.checks.rows import refuse_dependent_rows
from dlx_deploy.graph.checks.spread import spread
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.execution.latency import interleaved_latency
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.timing.sampling import Sampling


def two_ends(batch: str | int = "batch", across: bool = False) -> bytes:
    """``image`` float[N, 3] and ``tokens`` int32[N, L] to ``sum`` [N, 3] and ``length`` [N, 1]."""
    nodes = [
        helper.make_node("Cast", ["tokens"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "one"], ["length"], keepdims=1, name="length/ReduceSum"),
        helper.make_node("Add", ["image", "length"], ["own"]),
        helper.make_node("ReduceMax", ["own"], ["top"], axes=[0], keepdims=1, name="across/ReduceMax"),
        helper.make_node("Add" if across else "Identity", ["own", "top"] if across else ["own"], ["sum"]),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3]),
        helper.make_tensor_value_info("tokens", TensorProto.INT32, [batch, "length"]),
    ]
    outputs = [
        helper.make_tensor_value_info("sum", TensorProto.FLOAT, [batch, 3]),
        helper.make_tensor_value_info("length", TensorProto.FLOAT, [batch, 1]),
    ]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "two", inputs, outputs, [one])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def ten() -> Samples:
    tokens = np.zeros((10, 4), np.int32)
    tokens[:, 0], tokens[::2, 1] = np.arange(1, 11), 5
    return Samples({"image": np.arange(30, dtype=np.float32).reshape(10, 3), "tokens": tokens}, {"tokens": 0})


@pytest.mark.parametrize(("fixed", "batch"), [("batch", 4), ("batch", 64), (3, 64)])
def test_every_output_of_every_sample_comes_by_name(fixed: str | int, batch: int) -> None:
    samples = ten()
    answers = run_onnx(two_ends(fixed), samples, exact_qdq=False, batch=batch)
    length = samples.arrays["tokens"].sum(axis=1, keepdims=True)
    assert list(answers) == ["sum", "length"]
    np.testing.assert_array_equal(answers["length"], length)
    np.testing.assert_array_equal(answers["sum"], samples.arrays["image"] + length)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"image": np.zeros((2, 3), np.float32)},
            r"image float32\[2, 3\]; rule: float32\[N, 3\]; int",
        ),
        ({"image": np.zeros((2, 4), np.float32), "tokens": np.ones((2, 4), np.int32)}, r"image float32\[2, 4\]"),
        ({"image": np.zeros((2, 3), np.float32), "tokens": np.ones((2, 4), np.int64)}, r"tokens int64\[2, 4\]"),
        ({"image": np.zeros((0, 3), np.float32), "tokens": np.ones((0, 4), np.int32)}, "with at least one row"),
    ],
)
def test_samples_that_the_model_does_not_take(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_onnx(two_ends(), Samples(arrays), exact_qdq=False)


def test_inputs_of_several_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the inputs have \{'a': 2, 'b': 3\} rows"):
        Samples({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ConfigError, match="at least one input"):
        Samples({})


def test_an_output_that_depends_on_the_batch_is_named() -> None:
    refuse_dependent_rows(two_ends(), ten(), False, 1e-6)
    with pytest.raises(
        StageFailed, match=r"row \d gets other sum alone .* of the largest of the sum.*'across/ReduceMax'"
    ):
        refuse_dependent_rows(two_ends(across=True), ten(), False, 1e-6)


def test_it_is_timed_and_bent(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    path.write_bytes(two_ends(2))
    assert interleaved_latency({"two": path}, ten()[:1], Sampling(5), 1).latencies["two"].n == 5
    assert spread(two_ends(), ten()) == {"sum": pytest.approx(0, abs=1e-5), "length": pytest.approx(0, abs=1e-5)}


@given(st.integers(1, 20), st.integers(1, 8), st.booleans())
def test_batches_lose_and_reorder_nothing(count: int, size: int, fill: bool) -> None:
    pictures = np.arange(count)[:, None]
    parts = [part.arrays["x"] for part in Samples({"x": pictures}).batches(size, fill)]
    np.testing.assert_array_equal(np.concatenate(parts)[:count], pictures)
    assert all(len(part) == size for part in parts[:-1])
    assert len(parts[-1]) == (size if fill else count - size * (len(parts) - 1))
    assert fill is False or (parts[-1][count - size * (len(parts) - 1) :] == pictures[-1]).all()


@pytest.mark.parametrize(("asked", "length"), [(None, 3), (2, 2), (6, 6)])
def test_padded_rows_get_the_length_that_the_model_takes(asked: int | None, length: int) -> None:
    rows = np.array([[1, 2, 3, 9, 9], [4, 9, 9, 9, 9]], np.int32)
    other = np.arange(2)
    fitted = Samples({"rows": rows, "other": other}, {"rows": 9}).fitted({"rows": (None, asked), "other": (None,)})
    expected = np.full((2, length), 9)
    expected[:, : min(length, 5)] = rows[:, : min(length, 5)]
    np.testing.assert_array_equal(fitted.arrays["rows"], expected)
    assert fitted.arrays["other"] is other
    assert fitted.arrays["rows"].dtype == np.int32


def test_rows_are_taken_and_repeated_together() -> None:
    some = ten()[[3, 1]].repeated(2).filled(5)
    assert some.arrays["tokens"][:, 0].tolist() == [4, 4, 2, 2, 2]
    assert some.arrays["image"][:, 0].tolist() == [9, 9, 3, 3, 3]
    assert some.filled(2) is some
    assert some.padding == {"tokens": 0}
