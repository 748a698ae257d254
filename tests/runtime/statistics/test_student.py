from __future__ import annotations

import pytest

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.statistics.student import student_quantile


@pytest.mark.parametrize(
    ("confidence", "freedom", "quantile"),
    [(0.95, 1, 6.314), (0.95, 4, 2.132), (0.975, 10, 2.228), (0.99, 19, 2.539), (0.95, 1000, 1.646), (0.5, 7, 0.0)],
)
def test_quantiles_are_those_of_printed_tables(confidence: float, freedom: int, quantile: float) -> None:
    assert student_quantile(confidence, freedom) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize(("confidence", "freedom"), [(0.4, 5), (1.0, 5), (0.95, 0)])
def test_out_of_range(confidence: float, freedom: int) -> None:
    with pytest.raises(InputError, match=r"must be 0\.5\.\.1, and 1 or more"):
        student_quantile(confidence, freedom)
