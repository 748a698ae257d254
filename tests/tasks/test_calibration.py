"""Calibration against formulas written out, and on answers whose temperature is known."""

from __future__ import annotations

import numpy as np
import pytest

from dlx_deploy.tasks.calibration import calibrated, calibration_error, fit_temperature, log_loss


def drawn(n: int, k: int, seed: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax at ``temperature`` the labels are drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 3
    noise = rng.gumbel(size=(n, k))
    return logits.astype(np.float32), (logits / temperature + noise).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_answers_were_drawn_at_is_found(temperature: float) -> None:
    logits, labels = drawn(20_000, 5, 0, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    around = [log_loss(logits, labels, t) for t in (found * 0.98, found, found * 1.02)]
    assert around[1] == min(around)


def test_the_error_is_the_formula() -> None:
    logits, labels = drawn(500, 4, 1, 3.0)
    p = np.exp(logits.astype(float) / 1.5)
    p /= p.sum(axis=1, keepdims=True)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    expected = 0.0
    for i in range(15):
        here = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        expected += here.mean() * abs(right[here].mean() - confidence[here].mean()) if here.any() else 0
    assert calibration_error(logits, labels, 1.5) == pytest.approx(expected, abs=1e-9)
    assert log_loss(logits, labels, 1.5) == pytest.approx(-np.log(p[np.arange(500), labels]).mean())


def test_what_validation_gives_helps_the_test() -> None:
    seen = calibrated(drawn(4000, 6, 2, 2.0), drawn(4000, 6, 3, 2.0))
    assert seen is not None
    assert seen.temperature == pytest.approx(2.0, rel=0.1)
    assert seen.ece > 0.1 > 0.03 > seen.ece_calibrated
    assert seen.nll > seen.nll_calibrated


def test_where_there_is_none() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * 4
    labels = np.array([0, 1, 2, 0])
    assert fit_temperature(logits, labels) is None  # every answer is right
    assert fit_temperature(logits, (labels + 1) % 3) is None  # and every one wrong
    assert calibrated((logits[:0], labels[:0]), (logits, labels)) is None
    assert calibration_error(logits * 1e4, labels) == 0.0
    assert log_loss(logits * 1e4, (labels + 1) % 3) == pytest.approx(4e4)


def test_blocks_are_of_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    validation, test = drawn(100, 4, 4, 2.0), drawn(100, 4, 5, 2.0)
    whole = calibrated(validation, test)
    monkeypatch.setattr("dlx_deploy.tasks.calibration._ROWS", 7)
    parts = calibrated(validation, test)
    assert whole is not None
    assert parts is not None
    assert parts.temperature == pytest.approx(whole.temperature)
    assert parts.ece_calibrated == pytest.approx(whole.ece_calibrated)
