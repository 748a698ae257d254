"""The budgets of a package that stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.stages.support.device_gates import judge_package


def judged(path: Path, gate: Gate, size: int = 3 * 2**20) -> list[GateResult]:
    package = path / "package.dlx"
    package.write_bytes(b"\0" * size)
    return judge_package(gate.device_budgets, "Jetson Orin NX 16GB", False, {"package.dlx": package}, {})


@pytest.mark.parametrize(("limit", "verdict", "words"), [(3.0, "pass", "met"), (2.9, "fail", "missed; package.parity")])
def test_any_machine_decides_of_the_size(tmp_path: Path, limit: float, verdict: str, words: str) -> None:
    (result,) = judged(tmp_path, Gate(max_size_mib=limit))
    assert (result.gate, result.verdict, result.value, result.limit) == ("size", verdict, 3.0, limit)
    assert f"the package has 3 MiB; budget {limit:g} MiB: {words}" in result.text


def test_what_the_board_alone_can_say_is_pending(tmp_path: Path) -> None:
    results = judged(tmp_path, Gate(min_throughput=100, max_memory_mib=200, max_energy_mj=3))
    assert [(one.gate, one.verdict, one.value) for one in results] == [
        ("throughput", "pending", None),
        ("memory", "pending", None),
        ("energy", "pending", None),
    ]
    assert "only Jetson Orin NX 16GB can; run on it: python PACKAGE bench, or from here: dlx-" in results[2].text
    assert results[2].text.endswith("verify X.dlx --data DIR --on ssh://user@board; budget 3")


def test_without_budgets_nothing_is_judged(tmp_path: Path) -> None:
    assert judged(tmp_path, Gate()) == []
