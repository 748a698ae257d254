"""Packages and targets side by side."""

from __future__ import annotations

import msgspec

from dlx_deploy.report.page.asked import ReportsView

from .reports import HOSTILE, large, small
from .test_page import Strict


def test_differences_are_marked() -> None:
    other = msgspec.structs.replace(small("fail"), version="0.2.0")
    text = ReportsView((small(), other)).text
    lines = text.splitlines()
    assert any(line.split() == ["≠", "all", "pass", "fail"] for line in lines)
    assert any(line.split() == ["top-1", "94.60", "%", "94.60", "%"] for line in lines)
    assert not any("gate.max_drop" in line for line in lines), "the same in both"
    html = ReportsView((small(), other)).html
    assert '<tr class="marked"><th scope="row">≠ all</th><td>pass</td><td>fail</td></tr>' in html
    assert '<tr><th scope="row">top-1</th><td>94.60 %</td><td>94.60 %</td></tr>' in html
    assert "digits 0.1.0 for board · digits 0.2.0 for board" in html


def test_a_package_that_lacks_something_shows_none_of_it() -> None:
    bare = msgspec.structs.replace(small(), models=None, steps=(), target="other")
    view = ReportsView((small(), bare, large()))
    assert any(line.split()[:4] == ["≠", "distill", "abababababab", "-"] for line in view.text.splitlines())
    assert "<script" not in view.html
    page = Strict(view.html)
    assert len(page.ids) == len(set(page.ids))
    assert len(view.html.encode()) < 1_000_000
    assert f"block3.{HOSTILE[0]}" in "".join(page.words)


def test_one_alone_is_a_report() -> None:
    assert ReportsView((small(),)).text == small().text
    assert "gate accuracy: pass. is a pass" in small().text
    assert "note a word" in small().text


def test_what_was_tried_and_how_timings_are_spread_is_side_by_side() -> None:
    searched_for = msgspec.structs.replace(large(), version="0.2.0", name="digits")
    view = ReportsView((small(), searched_for))
    text = [line.split() for line in view.text.splitlines()]
    assert ["≠", "trial", "-", "2"] in text
    assert ["≠", "of", "which", "shipped", "-", "3", "layers", "restored"] in text
    assert "latency p99" in view.text
    assert "201 timings of digits 0.2.0 for board: quantized on a board: 1.50 ms to 13.5 ms" in view.text
    html = view.html
    assert html.index(">Every model</h2>") < html.index('id="spread-1-title"') < html.index(">Layers</h2>")
    page = Strict(html)
    assert len(page.ids) == len(set(page.ids))
