from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.commands.bench import BenchOptions, bench_package
from dlx_deploy.runtime.device_budgets import DeviceBudgets
from dlx_deploy.runtime.errors import BackendMissing
from dlx_deploy.runtime.package.contents import open_package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.timing import cold
from dlx_deploy.runtime.timing.cold import ColdStart, _first_answer, cold_starts, judge_cold_start


def test_a_fresh_process_answers(dlx: Path) -> None:
    told = []
    seen = cold_starts(
        str(dlx), open_package(dlx).digest, BackendOptions(threads=1), 2, lambda *given: told.append(given)
    )
    assert len(seen.ms) == len(told) == 2
    assert 0 < seen.p50_ms <= seen.slowest_ms == max(seen.ms)
    assert seen.peak_mib is None or 10 < seen.peak_mib < 2000


def test_a_process_that_does_not_answer_says_why(tmp_path: Path) -> None:
    with pytest.raises(BackendMissing, match=r"a fresh process gave no answer, exit code 1: .*none\.dlx"):
        cold_starts(str(tmp_path / "none.dlx"), "", BackendOptions(), 1)


def test_another_package_than_was_opened_is_refused(dlx: Path) -> None:
    with pytest.raises(BackendMissing, match=r"has become another package while it was measured"):
        cold_starts(str(dlx), "0" * 64, BackendOptions(), 1)


@pytest.mark.parametrize(
    ("starts", "limit_ms", "verdict", "bound"),
    [
        (5, 500, "pass", 500),
        (5, 499, "undecided", 500),
        (5, 100, "undecided", 500),
        (5, 99, "fail", 100),
        (4, 9000, "undecided", None),
    ],
)
def test_the_median_is_bounded_by_the_fastest_and_the_slowest(
    starts: int, limit_ms: float, verdict: str, bound: float
) -> None:
    ms = tuple(100.0 * i for i in range(1, starts + 1))
    judged = judge_cold_start(ColdStart(ms, 300.0, max(ms), 70.0), limit_ms)
    assert (judged.metric, judged.verdict, judged.bound) == ("cold_start_ms", verdict, bound)
    assert judged.text.startswith(f"the median of {starts} cold starts is 300 ms")


def test_cold_starts_are_a_budget_of_a_package(dlx: Path) -> None:
    predictor = Predictor(open_package(dlx), BackendOptions(threads=1))
    options = BenchOptions(rounds=5, warmup=1, device=DeviceBudgets(max_cold_start_ms=0.001))
    result = bench_package(predictor, options)
    assert [(one.metric, one.verdict) for one in result.judged] == [("cold_start_ms", "fail")]
    assert result.cold_start is not None
    assert len(result.cold_start.ms) == 5
    unknown = judge_cold_start(None, 5.0)
    assert (unknown.verdict, unknown.text.partition(";")[0]) == (
        "undecided",
        "cold starts are not measured: the package is no file here",
    )


def test_a_process_that_says_much_is_waited_for() -> None:
    """More than a pipe holds, before and after its answer."""
    talk = "sys.stderr.write('x' * 200_000)"
    took_ms, peak = _first_answer(f"import sys; {talk}; print('{{\"peak_mib\": 3.0}}', flush=True); {talk}")
    assert took_ms > 0
    assert peak == 3.0


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "PATIENCE_S", 0.5)
    with pytest.raises(BackendMissing, match=r"a fresh process gave no answer, exit code -9"):
        _first_answer("import time; time.sleep(60)")


def test_whom_a_package_is_from_is_asked_once(dlx: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digest = open_package(dlx).digest
    monkeypatch.setenv("DLX_DEPLOY_PUBLIC_KEY", str(tmp_path / "none.pem"))
    assert len(cold_starts(str(dlx), digest, BackendOptions(threads=1), 1).ms) == 1
