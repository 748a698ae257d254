from __future__ import annotations

import numpy as np
import pytest

from dlx_deploy.runtime.tasks.arrays import Tensor, Tolerance, block_rows, digests_of, joined, only_array, within

LOGITS = Tensor("logits", "float32", (3, "length"))


def test_a_tensor_knows_its_shape() -> None:
    assert LOGITS.to_dict(None) == {"name": "logits", "dtype": "float32", "shape": ["batch", 3, "length"]}
    assert LOGITS.to_dict(4)["shape"] == [4, 3, "length"]
    assert Tensor("images", "uint8", (2, 2, 1), "NHWC").to_dict(None)["layout"] == "NHWC"
    assert (LOGITS.sizes, LOGITS.row_bytes) == ((3, None), 12)
    assert [LOGITS.fits(shape) for shape in ((1, 3, 9), (0, 3, 0), (1, 2, 9), (1, 3), (1, 3, 9, 1))] == [
        *(True, True),
        *(False, False, False),
    ]


def test_a_tolerance_depends_on_the_arithmetic() -> None:
    both = Tolerance(0.1, 0.01, 0.001)
    assert (both.on(True).atol, both.on(False).atol, both.on(True).rtol) == (0.001, 0.1, 0.01)
    assert Tolerance(0.1, 0.01).on(True).atol == 0.1
    assert (Tolerance(1, 0).to_dict(), both.to_dict()["exact_atol"]) == ({"atol": 1, "rtol": 0}, 0.001)


def test_rows_of_several_lengths_are_joined_with_zeros() -> None:
    parts = [{"a": np.ones((2, 3, 1), np.float32)}, {"a": np.ones((1, 1, 2), np.float32)}]
    rows = joined(parts)["a"]
    assert (rows.shape, rows.dtype) == ((3, 3, 2), np.float32)
    assert rows.sum() == 6 + 2
    assert joined(parts[:1])["a"] is parts[0]["a"]


def test_every_output_has_to_be_close() -> None:
    golden = {"a": np.array([[1.0, 10.0], [2.0, 20.0]]), "b": np.array([[1], [1]], np.int32)}
    allowed = {"a": Tolerance(0.1, 0.01), "b": Tolerance(0, 0)}
    assert within(golden, golden, allowed).rows.tolist() == [True, True]
    off = within({**golden, "a": golden["a"] + [[0, 0.2], [0, 0.31]]}, golden, allowed)
    assert (off.rows.tolist(), off.furthest["b"]) == ([True, False], 0)
    assert off.furthest["a"] == pytest.approx(0.31)
    assert within({**golden, "b": np.array([[1], [2]], np.int32)}, golden, allowed).rows.tolist() == [True, False]
    lost = within({**golden, "a": np.array([[np.nan, 10], [2, 20]])}, golden, allowed)
    assert lost.rows.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64])
def test_whole_numbers_do_not_wrap(dtype: type) -> None:
    one, two = {"a": np.array([[0]], dtype)}, {"a": np.array([[1]], dtype)}
    for output, golden in ((one, two), (two, one)):
        agreement = within(output, golden, {"a": Tolerance(0.5, 0)})
        assert (agreement.rows.tolist(), agreement.furthest) == ([False], {"a": 1.0})


def test_outputs_of_other_lengths_are_compared_behind_their_ends() -> None:
    short, long = {"a": np.array([[1.0]])}, {"a": np.array([[1.0, 0.0]])}
    tolerance = {"a": Tolerance(0.1, 0)}
    assert within(short, long, tolerance).rows.tolist() == [True]
    assert within({"a": np.array([[1.0, 0.0, 2.0]])}, long, tolerance).rows.tolist() == [False]


def test_dense_outputs_are_run_few_at_a_time() -> None:
    assert block_rows([Tensor("logits", "float32", (10,))], 128) == 128
    assert block_rows([Tensor("masks", "float32", (21, 520, 520))], 128) == 11
    assert block_rows([Tensor("masks", "float32", (64, 4096, 4096))], 128) == 1


def test_the_one_array_by_name() -> None:
    assert only_array({"images": 5}, "images") == 5
    assert only_array({"images": 5, "more": 6}, "images") == {"images": 5, "more": 6}
    assert only_array([5], "images") == [5]


def test_digests_differ_with_the_bytes() -> None:
    rows = np.array([[1, 2], [2, 1], [1, 2]], np.uint8)
    first, second, third = digests_of(rows).tolist()
    assert first == third != second
