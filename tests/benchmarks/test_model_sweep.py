"""A third of the networks that people bring, from a name to a package; ``benchmarks/model_sweep.py`` has them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..modules import load_module

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARITY = 1e-3
"""``export.parity_tolerance``."""


SWEEP = load_module(BENCHMARKS / "model_sweep.py")


def test_the_sweep_has_all_kinds_once() -> None:
    names = [brought.model for brought in SWEEP.BROUGHT]
    assert [sum(name.startswith(prefix) for name in names) for prefix in ("timm:", "hf:")] == [15, 10]
    assert len(names) == len(set(names)) == 47


@pytest.mark.slow
@pytest.mark.parametrize("brought", SWEEP.BROUGHT[::3], ids=lambda brought: str(brought.model))
def test_it_is_built_or_refused_for_a_reason(brought: object, tmp_path: Path) -> None:
    SWEEP.write_data(tmp_path)
    model = brought.model  # type: ignore[attr-defined]
    SWEEP.write_models(tmp_path, [model] if model.startswith("hf:") else [])
    row = SWEEP.build_row(brought, tmp_path)
    assert row.built, row.refused
    assert row.parity < PARITY
    assert row.int8_plan > 0
    if row.pruned is None:
        assert "set prune." in row.refused, row.refused
