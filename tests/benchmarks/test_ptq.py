"""``benchmarks/compression/ptq.py``: a row for each method, peers in processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ..modules import load_module
from ..onnx_fixtures import images, residual_net

PTQ = load_module(Path(__file__).parents[2] / "benchmarks" / "compression" / "ptq.py")


def test_ours_and_a_peers_rows_are_judged_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PTQ, "EFFORTS", ("balanced",))
    (tmp_path / "net.onnx").write_bytes(residual_net().SerializeToString())
    case = PTQ.Case("tiny", tmp_path / "net.onnx", images(32), images(24, seed=1), np.zeros(24, np.int64))
    peers = {"onnxruntime tuned": sys.executable, "nncf": str(tmp_path / "no-python")}
    network, ours, int4, theirs, missing = PTQ.rows_of(case, ["cpu"], peers, tmp_path)
    assert network["agreement"] == 100
    assert network["drop"] == 0
    for row in (ours, int4, theirs):
        assert row["sqnr_db"] > 5
        assert row["cpu_s"] > 0
        assert row["kb"] < network["kb"] * 4
    assert [step["step"] for step in ours["steps"]] == ["ranges by mse", "bias correction"]
    assert ours["sqnr_db"] > int4["sqnr_db"]
    assert theirs["version"]
    assert "no-python" in missing["failed"]
