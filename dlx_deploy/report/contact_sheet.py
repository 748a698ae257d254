"""A data set on one HTML page that needs nothing else: pictures by class and split, near-copies side by side.

Names and texts are others': they are escaped, and the page may load and run nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby

from dlx_deploy.nn.data.survey.findings import PICTURED, Example, Pair, Survey, Surveyed
from dlx_deploy.progress import Progress
from dlx_deploy.report.datasets import SurveyView, class_rows, slice_size_rows, split_rows
from dlx_deploy.runtime.words import line

__all__ = ["contact_sheet", "html_page", "html_text"]

_PAIRS = 60
_ODD = 8
_TEXT = 300  # characters of a text
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
table { border-collapse: collapse; } th, td { text-align: right; padding: .15rem .8rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } .scroll { max-height: 30rem; overflow: auto; }
ul.findings { list-style: none; padding: 0; } ul.findings > li { border-left: 4px solid var(--line); margin: .5rem 0; padding: .1rem .8rem; }
li.refused { border-color: #c62828 !important; } li.warning { border-color: #e69500 !important; }
b.refused { color: #c62828; } b.warning { color: #b26a00; }
code, figcaption { font: 12px/1.35 ui-monospace, monospace; overflow-wrap: anywhere; } summary { cursor: pointer; }
.tallies { gap: 2.5rem !important; margin-top: 1rem; } .of { margin-bottom: .6rem; } .row { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-start; } .split { width: 6.5rem; flex: none; opacity: .7; }
figure { margin: 0; width: 112px; } figure img { max-width: 112px; max-height: 112px; min-width: 48px; image-rendering: auto; display: block; }
figure.none { height: 60px; border: 1px dashed #c62828; } .pair { border: 1px solid var(--line); border-radius: 6px; padding: .5rem; width: 16.5rem; }
blockquote { margin: .2rem 0; padding-left: .7rem; border-left: 3px solid var(--line); white-space: pre-wrap; }
"""  # noqa: E501


def contact_sheet(surveyed: Surveyed, progress: Progress) -> str:
    """The page."""
    survey = surveyed.survey
    draw = _Pictures(surveyed, progress)
    parts = [_head(survey), *_findings(survey, draw), *_pairs(survey, draw), *_tables(survey), *_classes(survey, draw)]
    return html_page(survey.path or survey.kind, parts)


def html_page(title: str, parts: Sequence[str], style: str = "") -> str:
    """A page of ``parts``, HTML, which loads and runs nothing; ``style``: CSS beside that of all pages."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html_text(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def html_text(text: str) -> str:
    """Someone else's ``text`` as HTML that shows it, on one line."""
    return escape(line(text))


class _Pictures:
    """Draws small pictures, each once, and tells how far it is."""

    def __init__(self, surveyed: Surveyed, progress: Progress) -> None:
        self._picture: Callable[[str], bytes | None] = surveyed.picture or (lambda name: None)
        self.shown = surveyed.picture is not None
        self._progress, self._done = progress, 0
        survey = surveyed.survey
        self._total = len(survey.examples) + 2 * min(_PAIRS, len(survey.copies) + len(survey.near))

    def figure(self, name: str, caption: str = "") -> str:
        """A picture and what is below it."""
        data = self._picture(name)
        self._done += 1
        self._progress(min(self._done, self._total), self._total, "pictures drawn")
        below = f"<figcaption>{html_text(caption)}</figcaption>" if caption else ""
        alt = html_text(name)
        if data is None:
            return f'<figure class="none" title="{alt}"><figcaption>cannot be read</figcaption>{below}</figure>'
        source = base64.b64encode(data).decode()
        return f'<figure title="{alt}"><img alt="{alt}" src="data:image/jpeg;base64,{source}">{below}</figure>'


def _head(survey: Survey) -> str:
    view = SurveyView(survey)
    severity = "refused" if survey.refusals else "fine"
    return f'<h1>{html_text(view.title)}</h1>\n<p><b class="{severity}">{html_text(view.verdict)}</b></p>'


def _findings(survey: Survey, draw: _Pictures) -> Iterator[str]:
    if not survey.findings:
        return
    items = []
    for finding in survey.findings:
        files = ""
        if finding.files:
            more = f"<br>… and {finding.count - len(finding.files):,} more" * (finding.count > len(finding.files))
            names = "<br>".join(f"<code>{html_text(name)}</code>" for name in finding.files)
            seen = "".join(draw.figure(name) for name in finding.files[:_ODD]) if finding.kind in PICTURED else ""
            files = f'<details><summary>which</summary><div class="row">{seen}</div>{names}{more}</details>'
        items.append(
            f'<li class="{finding.severity}"><b class="{finding.severity}">{finding.severity}</b> '
            f"{html_text(finding.said)}{files}</li>"
        )
    yield '<h2>What was found</h2>\n<ul class="findings">' + "\n".join(items) + "</ul>"


def _tables(survey: Survey) -> Iterator[str]:
    yield f"<h2>Splits</h2>\n{_table(*split_rows(survey))}"
    header, rows = class_rows(survey)
    if rows:
        yield f"<h2>Classes</h2>\n<div class=scroll>{_table(header, rows)}</div>"
    header, rows = slice_size_rows(survey)
    if rows:
        yield f"<h2>Slices</h2>\n<div class=scroll>{_table(header, rows)}</div>"
    if survey.spreads:
        cells = [[s.name, *(f"{v:,g}" for v in (s.least, s.median, s.most)), s.unit] for s in survey.spreads]
        yield f"<h2>Sizes</h2>\n{_table(['', 'least', 'median', 'most', ''], cells)}"
    tallies = [_tally(name, survey.noun, counts) for name, counts in survey.tallies.items() if counts]
    if tallies:
        yield f'<div class="row tallies">{"".join(tallies)}</div>'


def _tally(name: str, noun: str, counts: Mapping[str, int]) -> str:
    return f"<div>{_table([name, noun], [[key, f'{n:,}'] for key, n in counts.items()])}</div>"


def _pairs(survey: Survey, draw: _Pictures) -> Iterator[str]:
    pairs = [*survey.copies, *survey.near]
    if pairs and draw.shown:
        more = f"<p>The first {_PAIRS} of {len(pairs):,}.</p>" if len(pairs) > _PAIRS else ""
        drawn = "\n".join(_pair(pair, draw) for pair in pairs[:_PAIRS])
        yield f'<h2>In several splits, the same or nearly</h2>{more}\n<div class="row">{drawn}</div>'


def _pair(pair: Pair, draw: _Pictures) -> str:
    likeness = "the same" if pair.exact else f"nearly the same ({pair.distance} of 64 bits differ)"
    one = draw.figure(pair.first, f"{pair.first_split} {pair.first_class}: {pair.first}")
    two = draw.figure(pair.second, f"{pair.second_split} {pair.second_class}: {pair.second}")
    return f'<div class="pair">{likeness}<div class="row">{one}{two}</div></div>'


def _classes(survey: Survey, draw: _Pictures) -> Iterator[str]:
    if not survey.examples:
        return
    yield f"<h2>Some {survey.noun} of each class</h2>"
    for group, of in groupby(survey.examples, key=lambda example: example.group):
        yield f"<h3>{html_text(group or 'without a class')}</h3>"
        for split, examples in groupby(of, key=lambda example: example.split):
            shown = _shown(list(examples), draw)
            yield f'<div class="row of"><div class="split">{html_text(split)}</div>{shown}</div>'


def _shown(examples: Sequence[Example], draw: _Pictures) -> str:
    if draw.shown:
        return "".join(draw.figure(example.name) for example in examples)
    quotes = (f"<blockquote>{html_text(example.name[:_TEXT])}</blockquote>" for example in examples)
    return f"<div>{''.join(quotes)}</div>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html_text(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
