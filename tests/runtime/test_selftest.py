from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.errors import SelfTestFailed
from dlx_deploy.runtime.package import Package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.selftest import self_test


def test_passes(predictor: Predictor) -> None:
    result = self_test(predictor)
    assert (result.images, result.atol, result.rtol) == (4, 1e-4, 1e-4)
    assert 0 <= result.max_abs_diff < 1e-5


def changed(golden: np.ndarray, row: int, by: float) -> np.ndarray:
    golden = golden.copy()
    golden[row, 1] += by
    return golden


def test_names_the_first_image_that_differs(make_predictor: Any, data: Any, helpers: Any) -> None:
    golden = changed(changed(helpers.expected_logits(data[0][:4]), 2, 0.01), 3, 0.01)
    with pytest.raises(
        SelfTestFailed, match=r"golden image 2 differs \(2 of 4 do\): logit 1 \('dog'\) is \S+, expected .* atol 0.0001"
    ) as e:
        self_test(make_predictor(golden_logits=golden))
    assert e.value.exit_code == 5


def test_difference_within_the_tolerance_passes(make_predictor: Any, data: Any, helpers: Any) -> None:
    golden = changed(helpers.expected_logits(data[0][:4]), 0, 5e-5)
    assert self_test(make_predictor(golden_logits=golden)).max_abs_diff == pytest.approx(5e-5, rel=0.05)


def test_another_winner_fails_whatever_the_tolerance(make_predictor: Any, helpers: Any) -> None:
    loose = helpers.metadata(golden={"atol": 100, "rtol": 0})
    with pytest.raises(SelfTestFailed, match=r"golden image 0 differs \(4 of 4 do\).*top-1 is 'dog', expected 'cat'"):
        self_test(make_predictor(model=helpers.tiny_model(shift=1), metadata=loose))


def test_nan_fails(package: Package, data: Any, helpers: Any) -> None:
    golden = changed(helpers.expected_logits(data[0][:4]), 1, np.nan)
    with pytest.raises(SelfTestFailed, match=r"golden image 1 differs \(1 of 4 do\): logit 1 .* expected nan"):
        self_test(Predictor(replace(package, golden_logits=golden)))
