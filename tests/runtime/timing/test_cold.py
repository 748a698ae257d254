from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.errors import BackendMissing
from dlx_deploy.runtime.package.contents import open_package
from dlx_deploy.runtime.timing.cold import cold_starts


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
