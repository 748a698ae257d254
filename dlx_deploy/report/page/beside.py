"""The report beside a package: ``NAME.report.html``, written where what it is drawn from has changed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import dlx_deploy
from dlx_deploy.errors import DlxError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.execution import BuildResult
from dlx_deploy.pipeline.manifest import Manifest
from dlx_deploy.report.proofs import proofs_beside
from dlx_deploy.runtime.files import write_atomically

if TYPE_CHECKING:
    from dlx_deploy.report.page.facts import Searched

__all__ = ["LAYOUT", "identity_of", "write_beside"]

LAYOUT = 2
"""Raised when the same build would be drawn otherwise."""
_READABLE = 0o644
_HEAD_BYTES = 1024
"""In so many is the identity of a page."""


def identity_of(manifest: Manifest, search: Searched | None = None) -> str:
    """The digest of all that a report says of a build but for when it was built again and took which results."""
    steps = [(step.step, step.key, step.outputs, step.metrics) for step in manifest.steps]
    said = (manifest.status, manifest.error, manifest.gates, manifest.notes, manifest.proofs)
    content = (LAYOUT, dlx_deploy.__version__, manifest.target, manifest.config, manifest.host, steps, said, search)
    return hashlib.sha256(canonical_json(content)).hexdigest()


def write_beside(
    result: BuildResult, path: Path, package: Path | None, store: Path, say: Callable[[str], None]
) -> Path | None:
    """Write the report on a build that ended to ``path``, or leave that which is there; ``None`` where there is none.

    ``package``: what the build made, if it made one; ``store``: where its search is, if one chose the configuration. A
    report that cannot be drawn or written stops no build: ``say`` tells why.
    """
    manifest = result.manifest
    if package is not None:  # what boards have shown of these bytes, as the manifest beside them has it
        manifest = msgspec.structs.replace(manifest, proofs=dict(proofs_beside(package)))
    try:
        search = _search_of(manifest, store)
        identity = identity_of(manifest, search)
        if _is_of(path, identity):
            return path
        from dlx_deploy.report.page.gather import report_of_build
        from dlx_deploy.report.page.render import render
        from dlx_deploy.report.page.sections import page_of

        report = report_of_build(manifest, result.outputs, package, search)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, render(page_of(report, identity)).encode(), _READABLE)
    except (DlxError, OSError, ValueError, msgspec.MsgspecError) as e:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # one of an earlier build is no report on this one
        say(f"warning: no report is written: {e}")
        return None
    return path


def _search_of(manifest: Manifest, store: Path) -> Searched | None:
    """The search that chose the configuration; nothing of it is imported where there was none."""
    config = manifest.config if isinstance(manifest.config, dict) else {}
    if not config.get("search", {}).get("study"):
        return None
    from dlx_deploy.report.page.searched import searched_of

    return searched_of(manifest, store)


def _is_of(path: Path, identity: str) -> bool:
    try:
        with path.open("rb") as file:
            return f'content="{identity}"'.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False
