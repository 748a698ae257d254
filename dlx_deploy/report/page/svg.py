"""Plots by matplotlib as SVG inside a page: text as text, colours by the page's variables, ids of their own."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from dlx_deploy.errors import EnvironmentMissing
from dlx_deploy.extras import install_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

__all__ = ["COLOURS", "canvas", "svg_of"]

COLOURS = {
    "fg": "#0a0101",
    "dim": "#0a0102",
    "line": "#0a0103",
    "one": "#0a0104",
    "two": "#0a0105",
    "three": "#0a0106",
    "four": "#0a0107",
    "soft": "#0a0108",
    "bg": "#0a0109",
    "fail": "#0a010a",
}
"""Variable of the page's style → the colour that stands for it while matplotlib draws."""
_POINTER = re.compile(r"(?:^|url\()#([^)]+)")
"""What refers to an id: of a link the whole value, elsewhere ``url(#id)``."""
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@contextmanager
def canvas(width: float, height: float) -> Iterator[Plot]:
    """An empty plot of so many inches.

    Raises:
        EnvironmentMissing: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as Plot
    except ImportError as e:
        raise EnvironmentMissing(
            f"the HTML report needs matplotlib, not installed here; install with: {install_command('report')}"
        ) from e
    ink, faint = COLOURS["fg"], COLOURS["line"]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own file of settings says
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "dlx-deploy",
                "text.parse_math": False,
                "font.size": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "figure.facecolor": "none",
                "axes.facecolor": "none",
                "legend.frameon": False,
                "legend.labelcolor": ink,
                "text.color": ink,
                "axes.labelcolor": ink,
                "xtick.labelcolor": ink,
                "ytick.labelcolor": ink,
                "axes.edgecolor": faint,
                "xtick.color": faint,
                "ytick.color": faint,
                "grid.color": faint,
            }
        )
        yield Plot(figsize=(width, height), layout="constrained")


def svg_of(plot: Plot, name: str, title: str, description: str) -> str:
    """The plot as an ``svg`` element, the same bytes for the same plot. ``name`` begins each of its ids."""
    written = io.BytesIO()
    with warnings.catch_warnings():  # the browser has fonts of its own for whatever names are written in
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        plot.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(written.getvalue())
    _name_apart(root, name)
    for tag, text in (("desc", description), ("title", title)):
        told = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        told.text = text
        root.insert(0, told)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    text = ElementTree.tostring(root, encoding="unicode")
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    return text


def _name_apart(root: ElementTree.Element, name: str) -> None:
    """Ids that no other plot of the page has; those that nothing points at are left out."""
    pointed = {found for node in root.iter() for value in node.attrib.values() for found in _POINTER.findall(value)}
    for node in root.iter():
        for key, value in list(node.attrib.items()):
            if key != "id":
                node.attrib[key] = _POINTER.sub(lambda found: found.group().replace("#", f"#{name}-"), value)
            elif value in pointed:
                node.attrib[key] = f"{name}-{value}"
            else:
                del node.attrib[key]
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
