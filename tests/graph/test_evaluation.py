from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.evaluation import batches, paired_counts, run_onnx, top1

from ..onnx_fixtures import images, residual_net


def test_logits_do_not_depend_on_how_images_are_batched(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(residual_net().SerializeToString())
    pictures = images(10)
    whole = run_onnx(path, pictures, exact_qdq=False)
    split = run_onnx(path.read_bytes(), pictures, exact_qdq=False, batch=3, threads=1)
    assert whole.shape == (10, 10)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(split, whole, atol=1e-5)
    assert np.ptp(whole, axis=0).min() > 1e-3  # the images do matter


def test_a_fixed_batch_is_filled_up() -> None:
    pictures = images(7)
    fixed = run_onnx(residual_net(batch=4).SerializeToString(), pictures, exact_qdq=False)
    free = run_onnx(residual_net().SerializeToString(), pictures, exact_qdq=False)
    np.testing.assert_allclose(fixed, free, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [images(4).astype(np.float32), images(4, side=9), images(4, channels=3), images(4)[0], images(0)],
    ids=["dtype", "size", "channels", "rank", "none"],
)
def test_images_that_the_model_does_not_take(wrong: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"the inputs are \w+\[.*rule: uint8\[N, 8, 8, 1\]"):
        run_onnx(residual_net().SerializeToString(), wrong, exact_qdq=False)


def test_top1_and_pairs() -> None:
    labels = np.array([0, 1, 2, 0], np.int64)
    teacher = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]  # right, right, right, wrong
    student = np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]  # right, wrong, wrong, right
    assert (top1(teacher, labels), top1(student, labels)) == (0.75, 0.5)
    assert paired_counts(teacher, student, labels) == (2, 1, 4)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 3)))
def test_pairs_account_for_the_difference_in_accuracy(rows: tuple[list[int], list[int], list[int]]) -> None:
    teacher, student = (np.eye(4, dtype=np.float32)[row] for row in rows[:2])
    labels = np.array(rows[2], np.int64)
    b, c, n = paired_counts(teacher, student, labels)
    assert (b - c) / n == pytest.approx(top1(teacher, labels) - top1(student, labels))
    assert paired_counts(student, teacher, labels) == (c, b, n)


@pytest.mark.parametrize("labels", [np.zeros(3, np.int64), np.zeros((2, 1), np.int64)])
def test_labels_that_do_not_fit(labels: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"logits are \[2, 5\] and labels .*rule: \[N, classes\] and \[N\]"):
        top1(np.zeros((2, 5), np.float32), labels)


def test_no_labels_at_all() -> None:
    with pytest.raises(ConfigError, match="N at least 1"):
        top1(np.zeros((0, 5), np.float32), np.zeros(0, np.int64))


@given(st.integers(1, 20), st.integers(1, 8), st.booleans())
def test_batches_lose_and_reorder_nothing(count: int, size: int, fill: bool) -> None:
    pictures = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    parts = list(batches(pictures, size, fill))
    assert np.concatenate(parts).reshape(-1)[:count].tolist() == list(range(count))
    assert all(len(part) == size for part in (parts if fill else parts[:-1]))
