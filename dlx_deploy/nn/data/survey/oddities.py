"""Image files that cannot be read, or that are read otherwise than one may think."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from dlx_deploy.config import Data
from dlx_deploy.nn.data.survey.alike import Place
from dlx_deploy.nn.data.survey.findings import Finding, Severity, found
from dlx_deploy.nn.data.survey.pictures import Look

__all__ = ["odd_files", "unreadable"]

_FORMATS = {
    ".bmp": ("BMP",), ".jpeg": ("JPEG", "MPO"), ".jpg": ("JPEG", "MPO"), ".png": ("PNG",), ".tif": ("TIFF",),
    ".tiff": ("TIFF",), ".webp": ("WEBP",),
}  # fmt: skip
_GREY = ("L", "1", "I", "I;16", "LA")
_LONG = 3.0
"""A picture so many times as wide as high, or the reverse, is hardly what it was once it is squashed to a square."""


def unreadable(places: Sequence[Place], reasons: Mapping[int, str], config: Data) -> list[Finding]:
    """Files that cannot be read: a build stops at them, above ``data.max_bad_fraction`` of a split that it writes."""
    counts: dict[str, list[int]] = {}
    for row in reasons:
        counts.setdefault(places[row].split, []).append(row)
    findings = []
    for split, rows in counts.items():
        total = sum(place.split == split for place in places)
        stops = len(rows) > config.max_bad_fraction * total
        what = f"a build stops (data.max_bad_fraction is {config.max_bad_fraction:g})" if stops else "they are left out"
        files = [f"{places[row].name}: {reasons[row]}" for row in rows]
        text = f"images of {split} cannot be read: {what}"
        findings.append(found("unreadable", "refused" if stops else "warning", text, files, total))
    return findings


def odd_files(places: Sequence[Place], looks: Mapping[int, Look], config: Data) -> list[Finding]:
    """Files that are read, but not as everybody reads them."""
    height, width = config.height, config.width or config.height
    rules: list[tuple[str, Severity, str, Callable[[Place, Look], bool]]] = [
        ("cmyk", "note", "images are CMYK (for print): colours are converted without a profile", _is("CMYK", "YCCK")),
        ("deep", "note", "images have 16 bits per sample: the high byte is read", lambda _, look: _deep(look.mode)),
        ("alpha", "note", "images have an alpha channel: it is dropped, what it hid is seen", _is("RGBA", "LA", "PA")),
        ("turned", "note", "images are turned by EXIF's orientation: they are read upright; not every library does",
         lambda _, look: look.turned),
        ("suffix", "note", "images are of another format than their suffix says: read as what they are", _other),
        ("small", "warning", f"images are smaller than the network reads ({width} x {height}): they are enlarged",
         lambda _, look: look.width < width and look.height < height),
        ("long", "note", f"images are over {_LONG:g} times as long as wide, or the reverse: squashed, they show little",
         lambda _, look: max(look.width, look.height) > _LONG * min(look.width, look.height)),
    ]  # fmt: skip
    findings = []
    for kind, severity, text, is_so in rules:
        names = [places[row].name for row, look in sorted(looks.items()) if is_so(places[row], look)]
        if names:
            findings.append(found(kind, severity, text, names, len(looks)))
    grey = sum(look.mode in _GREY for look in looks.values())
    if 0 < grey < len(looks):
        text = "images are grey, the others in colour: all are read with data.channels; see that it tells no class"
        findings.append(Finding("mixed_modes", "note", text, grey, len(looks)))
    return findings


def _is(*modes: str) -> Callable[[Place, Look], bool]:
    return lambda _, look: look.mode in modes


def _deep(mode: str) -> bool:
    return mode == "I" or mode.startswith("I;16")


def _other(place: Place, look: Look) -> bool:
    return look.format not in _FORMATS.get(PurePosixPath(place.name.lower()).suffix, (look.format,))
