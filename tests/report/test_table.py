"""Tables and figures for people."""

from __future__ import annotations

import pytest

from dlx_deploy.report.table import format_bytes, format_ms, format_seconds, format_table


def test_columns_are_aligned() -> None:
    drawn = format_table(["name", "size"], [["a", "1"], ["longer", "1000"]], right=(1,))
    assert drawn.splitlines() == ["name    size", "──────  ────", "a          1", "longer  1000"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (4.3e6, "4.1 MiB"),
        (3 * 2**30, "3.0 GiB"),
        (5e13, "46566.1 GiB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.02929, "0.0293 ms"), (12.34, "12.3 ms"), (0.24, "0.240 ms"), (1234.5, "1234 ms")],
)
def test_ms(value: float | None, text: str) -> None:
    assert format_ms(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.44, "0.4 s"), (12.2, "12 s"), (185, "3 min 05 s")])
def test_seconds(value: float, text: str) -> None:
    assert format_seconds(value) == text
