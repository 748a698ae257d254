"""Numbers as messages show them."""

from __future__ import annotations

from dlx_deploy.runtime.words import percent, points


def test_shares_and_their_differences() -> None:
    assert (percent(0.9866), points(0.0201)) == ("98.66 %", "2.01 points")
    assert (percent(1), points(-0.005)) == ("100.00 %", "-0.50 points")
