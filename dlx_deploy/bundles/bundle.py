"""What a bundle is, and what packages become one: the files of a format, and what it cannot do as the package does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.bundles.folder import write_folder
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.views import lines_of
from dlx_deploy.runtime.words import shortened

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.contents import Package
    from dlx_deploy.runtime.package.trust import Trust

__all__ = ["FORMATS", "Bundle", "BundleView", "check_labels", "export_bundle"]

FORMATS = {
    "triton": "dlx_deploy.bundles.triton:triton_bundle",
    "deepstream": "dlx_deploy.bundles.deepstream:deepstream_bundle",
}
"""Format → the function that makes a ``Bundle`` of a package and the name that it is to have."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Bundle:
    """``files``: relative path → bytes. ``notes``: what is otherwise than where the package runs by itself, a sentence
    each. ``folder``: below the one that was asked for; "": that one itself."""

    files: Mapping[str, bytes]
    notes: tuple[str, ...]
    folder: str = ""


@dataclass(frozen=True)
class BundleView:
    """The bundle that was written."""

    package: Path
    format: str
    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]
    digest: str

    @property
    def data(self) -> dict[str, object]:
        """The same as JSON-ready values; ``digest`` is the package's."""
        return {
            "package": str(self.package),
            "format": self.format,
            "folder": str(self.folder),
            "files": list(self.files),
            "notes": list(self.notes),
            "digest": self.digest,
        }

    @property
    def text(self) -> str:
        """The files, and each note."""
        head = f"{self.package} as a bundle for {self.format}: {self.folder}"
        return lines_of([head, *(f"  {name}" for name in self.files), *(f"note: {note}" for note in self.notes)])


def export_bundle(path: Path, kind: str, out: Path, name: str = "", trust: Trust | None = None) -> BundleView:
    """Write the package at ``path`` as a bundle of the format ``kind`` to ``out``, whole or not at all.

    The same package gives the same bytes. A folder is replaced if it holds a bundle as it was written and no more.

    Raises:
        ConfigError: there is no such format, the package cannot become one, or ``out`` holds what was not written here.
        PackageError, InputError, BackendMissing: the package cannot be read, or its signature is not a trusted one's.
        StageFailed: the graph that was made for the format does not answer as the package's does.
    """
    from dlx_deploy.runtime.package.contents import open_package

    if kind not in FORMATS:
        raise ConfigError(f"--format is {shortened(kind)}; must be one of {', '.join(FORMATS)}")
    package = open_package(path, trust)
    bundle = _maker(kind)(package, _checked_name(name or package.name))
    folder = out / bundle.folder if bundle.folder else out
    made = {"format": kind, "package": {"name": package.name, "version": package.version, "digest": package.digest}}
    write_folder(folder, bundle.files, made)
    return BundleView(path, kind, folder, tuple(sorted(bundle.files)), bundle.notes, package.digest)


def check_labels(labels: tuple[str, ...], forbidden: str) -> None:
    """Refuses labels that a file of them cannot hold: with a line end, a control character or one of ``forbidden``.

    Raises:
        ConfigError: names the label.
    """
    for label in labels:
        found = next((c for c in label if not c.isprintable() or c in forbidden), None)
        if found is not None or label != label.strip() or not label:
            what = f"holds {found!r}" if found is not None else "is empty or begins or ends with a space"
            raise ConfigError(
                f"the class {shortened(label)} {what}; the format's file of labels has no way to write that: rename "
                "the class and build the package again"
            )


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"the model's name is {shortened(name)}; must be letters, digits, '.', '_' and '-', at most 100, a letter "
            "or digit first, as it becomes a folder: give another with --name"
        )
    return name


def _maker(kind: str) -> Callable[[Package, str], Bundle]:
    module, _, function = FORMATS[kind].partition(":")
    make: Callable[[Package, str], Bundle] = getattr(import_module(module), function)
    return make
