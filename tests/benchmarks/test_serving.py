"""``benchmarks/boards/serving.py``: a row for each way to ask, also where nothing is answered in time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble

from ..modules import load_module
from ..runtime.conftest import make_images, tiny_contents

SERVING = load_module(Path(__file__).parents[2] / "benchmarks" / "boards" / "serving.py")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.dlx"
    write_archive(path, assemble(tiny_contents(*make_images(8))))
    return path


def test_bare_and_served_by_so_many_workers(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVING, "CLIENTS", (1,))
    asked = ["--seconds", "0.1", "--rounds", "1", "--max-batch", "2", "--workers", "2", "--json"]
    assert SERVING.main([str(package), *asked, str(tmp_path / "found.json")]) == 0
    table = json.loads((tmp_path / "found.json").read_text())["networks"]["tiny"]["1 clients"]
    assert set(table) == {"bare", "http, max_batch 2, workers 2"}
    for row in table.values():
        assert set(row) == {"answers", "per_s", "p50_ms", "p99_ms", "cpu_ms", "of_bare", "of_one_caller"}


def test_no_answer_in_the_window_is_a_result() -> None:
    none = SERVING.figures([], 2.0, 0.1)
    assert none == {"answers": 0, "per_s": 0.0, "p50_ms": None, "p99_ms": None, "cpu_ms": None}
    some = SERVING.figures([0.001, 0.003], 2.0, 0.1)
    assert (some["answers"], some["per_s"], some["p50_ms"], some["cpu_ms"]) == (2, 1.0, 2.0, 50.0)
    assert (SERVING.share(none, some), SERVING.share(some, none)) == (0, None)
    assert (SERVING.middle([None, 1.0, 2.0], 1), SERVING.middle([None], 1)) == (1.5, None)


def test_a_server_that_does_not_start_is_told_of(package: Path) -> None:
    with pytest.raises(SystemExit, match=r"serve .*--workers=999 ended with exit code 2"):
        SERVING.Served(package, 1, 1, 999)
