from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.execution import evaluation
from dlx_deploy.graph.execution.memory import rows_within
from dlx_deploy.graph.samples import Samples

from ...arrays import run_onnx, samples
from ...onnx_fixtures import images, residual_net


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


def batches(model: bytes, count: int, **rest: Any) -> list[np.ndarray]:
    parts = evaluation.run_in_batches(model, samples(images(count), name="images"), True, **rest)
    return [part["logits"] for part in parts]


def test_weights_that_are_listed_as_inputs_are_no_batch() -> None:
    net, pictures = residual_net(), images(10)
    whole = run_onnx(net.SerializeToString(), pictures, exact_qdq=False)
    weight = next(tensor for tensor in net.graph.initializer if tensor.name == "conv1.weight")
    net.graph.input.insert(0, helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    parts = evaluation.run_in_batches(net.SerializeToString(), samples(pictures, name="images"), False, batch=4)
    logits = [part["logits"] for part in parts]
    assert [len(part) for part in logits] == [4, 4, 2]
    np.testing.assert_allclose(np.concatenate(logits), whole, atol=1e-5)


def test_large_rows_are_run_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of this network holds 24 planes of 8 x 8 float32 at once: three of them fit."""
    model = residual_net().SerializeToString()
    whole = batches(model, 10)
    monkeypatch.setattr(evaluation, "rows_within", partial(rows_within, budget=3 * 24 * 256 + 100))
    parts = batches(model, 10)
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    np.testing.assert_allclose(np.concatenate(parts), np.concatenate(whole), atol=1e-5)
    assert [len(part) for part in batches(model, 10, shrink=False)] == [10]


def test_batches_that_run_side_by_side_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    own = evaluation.open_session

    def opened(model: bytes, exact_qdq: bool, threads: int, fused: bool) -> object:
        asked.append(threads)
        return own(model, exact_qdq, threads, fused=fused)

    monkeypatch.setattr(evaluation, "open_session", opened)
    model = residual_net(batch=2).SerializeToString()
    alone, together = (np.concatenate(batches(model, 41, threads=threads)) for threads in (1, 4))
    np.testing.assert_array_equal(together, alone)
    assert len(together) == 41
    assert asked == [1, 1]  # a thread for each batch


@pytest.mark.parametrize(("threads", "batch", "at_once"), [(4, 8, 4), (4, 64, 1), (1, 8, 1)])
def test_no_session_has_a_second_thread_where_the_batches_at_once_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, threads: int, batch: int, at_once: int
) -> None:
    own, asked = evaluation.open_session, []

    def opened(model: bytes, exact_qdq: bool, threads: int, fused: bool) -> object:
        asked.append(threads)
        return own(model, exact_qdq, threads, fused=fused)

    monkeypatch.setattr(evaluation, "open_session", opened)
    model = residual_net().SerializeToString()
    seen = evaluation.batches_at_once(model, samples(images(41), name="images"), batch, threads)
    batches(model, 41, batch=batch, threads=seen)
    assert (seen, asked) == (at_once, [1])


def test_no_more_batches_side_by_side_than_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ALL_BYTES", 2500)
    assert evaluation._side_by_side(8, 100, 1000) == 2
    assert evaluation._side_by_side(8, 100, 5000) == 1
    assert evaluation._side_by_side(8, 3, 1) == 3
    assert evaluation._side_by_side(4, 100, 0) == 4


def test_a_batch_that_fails_beside_others_ends_it() -> None:
    done: list[int] = []

    def answers(part: Samples) -> tuple[int, dict[str, np.ndarray]]:
        if part.arrays["images"][0, 0, 0, 0] == 3:
            raise StageFailed("the fourth")
        done.append(len(part))
        return len(part), {}

    pictures = np.arange(90, dtype=np.uint8).reshape(90, 1, 1, 1)
    parts = samples(pictures, name="images").batches(1, fill=False)
    with pytest.raises(StageFailed, match="the fourth"):
        list(evaluation._in_order(answers, parts, 2))
    assert len(done) < 10


@pytest.mark.parametrize(
    "wrong",
    [images(4).astype(np.float32), images(4, side=9), images(4, channels=3), images(4)[0], images(0)],
    ids=["dtype", "size", "channels", "rank", "none"],
)
def test_images_that_the_model_does_not_take(wrong: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"the inputs are images \w+\[.*rule: uint8\[N, 8, 8, 1\]"):
        run_onnx(residual_net().SerializeToString(), wrong, exact_qdq=False)
