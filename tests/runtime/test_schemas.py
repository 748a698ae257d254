from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime.schemas import newer_schema

SOURCES = sorted((Path(__file__).parents[2] / "dlx_deploy").rglob("*.py"))


@pytest.mark.parametrize(("seen", "newer"), [(0, 0), (2, 0), (3, 1), (None, 0), (True, 0), ("9", 0)])
def test_only_a_higher_number_is_newer(seen: Any, newer: int) -> None:
    assert (newer_schema(seen, 2) is not None) == newer


def test_the_sentence_has_both_numbers_and_a_remedy() -> None:
    assert newer_schema(7, 2) == "schema is 7; this version reads up to 2; use a newer dlx-deploy"
    assert newer_schema(7, 2, "look elsewhere") == "schema is 7; this version reads up to 2; look elsewhere"


def test_there_is_one_such_sentence() -> None:
    assert [p.name for p in SOURCES if "version reads up to" in p.read_text(encoding="utf-8")] == ["schemas.py"]
