from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlx_deploy.errors import ConfigError

from ...arrays import run_onnx
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


@pytest.mark.parametrize(
    "wrong",
    [images(4).astype(np.float32), images(4, side=9), images(4, channels=3), images(4)[0], images(0)],
    ids=["dtype", "size", "channels", "rank", "none"],
)
def test_images_that_the_model_does_not_take(wrong: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"the inputs are images \w+\[.*rule: uint8\[N, 8, 8, 1\]"):
        run_onnx(residual_net().SerializeToString(), wrong, exact_qdq=False)
