"""What ``debug`` found as files: a page of the samples that flipped, a picture of confusions, and all of it as JSON."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from dlx_deploy.errors import ConfigError
from dlx_deploy.report.contact_sheet import html_page, html_text
from dlx_deploy.report.debug_facts import ConfusionCell, Flip, changed_cells
from dlx_deploy.report.debugging import DebugView
from dlx_deploy.report.view import to_json
from dlx_deploy.runtime.files import write_atomically

__all__ = ["check_folder", "confusion_svg", "flip_sheet", "write_files"]

MOST = 120
"""Samples of each direction on the page: it stays under a few MB."""
MOST_CLASSES = 40
"""In the picture; of more those that are confused most."""
NUMBERED = 15
"""Classes up to which the numbers stand in the cells."""
_TITLES = {
    "lost": "Lost: right in floating point, wrong in the package",
    "won": "Won: right in the package alone",
    "other": "Wrong in both, in other ways",
}

Picture = Callable[[int], bytes | None]
"""The number of a sample → PNG; ``None`` where it is no picture."""


def check_folder(out: Path) -> None:
    """Make the folder, before hours of work would be lost.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"--out {out}: cannot be made a folder ({e.strerror}); name another") from e


def write_files(out: Path, view: DebugView, picture: Picture) -> list[Path]:
    """``debug.json``, ``debug.txt``, and where answers can be told apart ``flips.html`` and ``confusion.svg`` (that
    with matplotlib alone); the paths.

    Raises:
        ConfigError: the folder cannot be written.
    """
    files = {"debug.json": to_json(view.data).encode(), "debug.txt": (view.text + "\n").encode()}
    if view.confusion:
        files["flips.html"] = flip_sheet(view, picture).encode()
        if (drawn := confusion_svg(view)) is not None:
            files["confusion.svg"] = drawn
    try:
        for name, content in files.items():
            write_atomically(out / name, content)
    except OSError as e:
        raise ConfigError(f"--out {out}: cannot be written ({e.strerror}); name another folder") from e
    return [out / name for name in files]


def flip_sheet(view: DebugView, picture: Picture) -> str:
    """A page with every sample that flipped, as it was read, and both answers."""
    said = (
        f"{view.title}: {100 * view.reference_score:.2f} % in floating point, {100 * view.score:.2f} % in the package"
    )
    parts = [f"<h1>{html_text(f'{view.name} for {view.target}: what flipped')}</h1>", f"<p>{html_text(said)}</p>"]
    for direction, group in groupby(view.flips, key=lambda flip: flip.direction):
        flips = list(group)
        more = f"<p>The first {MOST} of {len(flips):,}.</p>" if len(flips) > MOST else ""
        drawn = "\n".join(_figure(flip, picture) for flip in flips[:MOST])
        parts.append(f'<h2>{_TITLES[direction]} ({len(flips):,})</h2>{more}\n<div class="row flips">{drawn}</div>')
    if not view.flips:
        parts.append(f"<p>No {html_text(view.noun[:-1])} is answered otherwise.</p>")
    if changed := changed_cells(view.confusion):
        rows = "".join(
            f"<tr><td>{html_text(c.wanted)}</td><td>{html_text(c.answered)}</td><td>{c.before:,}</td><td>{c.after:,}</td></tr>"
            for c in changed[:MOST]
        )
        head = "<tr><th>wanted</th><th>answered</th><th>floating point</th><th>package</th></tr>"
        parts.append(f"<h2>Confusions that changed</h2>\n<table>{head}{rows}</table>")
    return html_page(f"{view.name}: what flipped", parts, _STYLE)


_STYLE = """
.flips figure { width: 150px; border: 1px solid var(--line); border-radius: 6px; padding: .4rem; }
.flips img { image-rendering: pixelated; } .flips blockquote { font-size: 13px; }
"""


def _figure(flip: Flip, picture: Picture) -> str:
    data, name = picture(flip.number), flip.name or f"number {flip.number}"
    shown = ""
    if data is not None:
        alt, source = html_text(f"{name}, {flip.wanted}"), base64.b64encode(data).decode()
        shown = f'<img alt="{alt}" src="data:image/png;base64,{source}">'
    elif flip.text:
        shown = f"<blockquote>{html_text(flip.text[:300])}</blockquote>"
    wanted = f"<b>{html_text(flip.wanted)}</b><br>" if flip.wanted else ""
    caption = (
        f"{wanted}before: {html_text(flip.before)} ({flip.before_confidence:.0%})<br>"
        f"after: {html_text(flip.after)} ({flip.after_confidence:.0%})<br>{html_text(name)}"
    )
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def confusion_svg(view: DebugView) -> bytes | None:
    """Both matrices side by side, and what changed; ``None`` without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return None
    import numpy as np

    names = _shown_classes(view.confusion)
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((2, len(names), len(names)))
    for cell in view.confusion:
        if cell.wanted in place and cell.answered in place:
            counts[:, place[cell.wanted], place[cell.answered]] = cell.before, cell.after
    with matplotlib.rc_context(
        {"svg.hashsalt": "dlx-deploy", "svg.fonttype": "none", "font.size": 8, "text.parse_math": False}
    ):
        figure = Figure(figsize=(13.5, 5.2), layout="constrained")
        axes = figure.subplots(1, 3)
        shares = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
        for drawn, title, values, said in (
            (axes[0], "in floating point", shares[0], counts[0]),
            (axes[1], "in the package", shares[1], counts[1]),
        ):
            drawn.imshow(values, cmap="Blues", vmin=0, vmax=1)
            _annotate(drawn, said, names, title, values)
        change = counts[1] - counts[0]
        most = max(float(np.abs(change).max()), 1.0)
        axes[2].imshow(change, cmap="RdBu_r", vmin=-most, vmax=most)
        _annotate(axes[2], change, names, "change (red: more often)", np.abs(change) / most)
        text = io.BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _shown_classes(cells: tuple[ConfusionCell, ...]) -> list[str]:
    """All, in the order of the data; of many those in the confusions that changed most."""
    names = list(dict.fromkeys(cell.wanted for cell in cells))
    names += [name for name in dict.fromkeys(cell.answered for cell in cells) if name not in names]
    if len(names) <= MOST_CLASSES:
        return names
    kept = list(dict.fromkeys(name for cell in changed_cells(cells) for name in (cell.wanted, cell.answered)))
    first = set([*kept, *names][:MOST_CLASSES])
    return [name for name in names if name in first]


def _annotate(drawn: object, counts: object, names: list[str], title: str, strength: object) -> None:
    import numpy as np
    from matplotlib.axes import Axes

    assert isinstance(drawn, Axes)
    values, strong = np.asarray(counts), np.asarray(strength)
    drawn.set_title(title)
    drawn.set_xticks(range(len(names)), [name[:18] for name in names], rotation=90 if len(names) > 5 else 0)
    drawn.set_yticks(range(len(names)), [name[:18] for name in names])
    drawn.set_xlabel("answered")
    drawn.set_ylabel("wanted")
    for row, column in _numbered(values):
        number = int(values[row, column])
        colour = "white" if strong[row, column] > 0.5 else "black"
        drawn.text(column, row, f"{number}", ha="center", va="center", fontsize=7, color=colour)


def _numbered(values: object) -> Iterator[tuple[int, int]]:
    import numpy as np

    cells = np.asarray(values)
    if len(cells) <= NUMBERED:
        yield from ((int(row), int(column)) for row, column in np.argwhere(cells))
