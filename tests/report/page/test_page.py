"""The page: strict HTML that loads nothing, runs nothing and is read by machines that read aloud."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest

from dlx_deploy.errors import EnvironmentMissing
from dlx_deploy.report.page.render import render
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.report.page.sections import page_of

from .reports import HOSTILE, large, small

VOID = {"meta", "link", "br", "hr", "img", "input"}
LOADS = {"src", "srcset", "data", "poster", "action", "background", "style-src"}


class Strict(HTMLParser):
    """Every element is closed in order; what it holds is kept."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"an attribute of {tag} is there twice"
        self.tags.append((tag, given))
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def drawn(report: BuildReport) -> str:
    return render(page_of(report, "0" * 64))


@pytest.fixture(scope="module")
def crowded() -> str:
    return drawn(large())


def test_a_page_needs_nothing_else(crowded: str) -> None:
    page = Strict(crowded)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"} == set()
    for tag, attributes in page.tags:
        assert attributes.keys() & LOADS == set(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), tag
    policy = next(a for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")["content"] or ""
    assert policy.startswith("default-src 'none';")
    assert re.findall(r"url\((?!#)", crowded) == []
    assert "@import" not in crowded


def test_a_page_is_small_with_many_layers_and_classes(crowded: str) -> None:
    assert len(crowded.encode()) < 1_000_000
    assert all(f"{i} {HOSTILE[0]}" in "".join(Strict(crowded).words) for i in (0, 999))


def test_ids_are_unique_and_what_points_at_them_is_there(crowded: str) -> None:
    page = Strict(crowded)
    assert len(page.ids) == len(set(page.ids))
    pointed = {(a.get("href") or a.get("xlink:href") or "#main").removeprefix("#") for _, a in page.tags}
    pointed |= set(re.findall(r"url\(#([^)]+)\)", crowded))
    for _, attributes in page.tags:
        pointed |= set((attributes.get("aria-labelledby") or "").split())
    assert pointed <= set(page.ids)


def test_every_plot_is_told_in_words(crowded: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", crowded, re.DOTALL)
    assert len(plots) == 10
    for plot in plots:
        assert 'role="img"' in plot
        assert re.search(r"<title id=[^>]+>[^<]{20,}</title><desc id=[^>]+>[^<]{10,}</desc>", plot), plot[:300]
        assert "#0a01" not in plot, "a colour that the page's style does not rule"
    assert crowded.count("<details>") >= 6


def test_names_are_text_whatever_is_in_them(crowded: str) -> None:
    assert "<script" not in crowded
    assert "\x1b" not in crowded
    assert "\u202e" not in crowded
    words = "".join(Strict(crowded).words)
    assert words.count("层</title></svg><script>alert(1)</script>\\u001b[31m\\u202e$x^2$ &amp; \"'") > 1200


@pytest.mark.parametrize("verdict", ["pass", "fail", "undecided", "pending"])
def test_the_verdicts_are_on_top(verdict: str) -> None:
    page = drawn(small(verdict))
    words = " ".join(" ".join(Strict(page).words).split())
    assert words.index(f"is a {verdict}") < words.index("599 samples of the test split")
    assert page.count(f'<b class="badge {verdict}">{verdict}</b>') == 2
    assert "1.10 points 2.40 points 2.00 points" in words


def test_what_training_went_through_is_there() -> None:
    page = drawn(small())
    assert "loss from 0.9 to 0.5; validation_top1 from 0.4 to 0.8." in page
    step = msgspec.structs.replace(small().steps[0], curves={})
    assert ">Training<" not in drawn(msgspec.structs.replace(small(), steps=(step,)))


def test_the_same_build_gives_the_same_bytes() -> None:
    assert drawn(small()) == drawn(small())


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_what_draws_is_named_where_it_is_missing(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    with pytest.raises(
        EnvironmentMissing, match=rf"needs {missing}, not installed here; install with: pip install .*report"
    ):
        drawn(small())
