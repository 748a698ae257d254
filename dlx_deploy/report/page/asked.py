"""The reports that somebody asks for, by the names of targets or packages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dlx_deploy.errors import ConfigError, StoreError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.manifest import SCHEMA, Manifest, latest_manifests
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.page.compare import compared_text, comparison_page
from dlx_deploy.report.page.gather import outputs_of, report_of_build
from dlx_deploy.report.page.packaged import report_of_package
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.report.page.searched import searched_of
from dlx_deploy.report.repeated import with_earlier_proofs
from dlx_deploy.runtime.schemas import newer_schema
from dlx_deploy.targets import load_target

__all__ = ["ReportsView", "view_reports"]

PACKAGE = ".dlx"


class ReportsView(msgspec.Struct, frozen=True):
    """One report, or several side by side."""

    reports: tuple[BuildReport, ...]

    @property
    def data(self) -> tuple[BuildReport, ...]:
        """All of them."""
        return self.reports

    @property
    def text(self) -> str:
        """The report; of several the tables that show them side by side."""
        if len(self.reports) > 1:
            return compared_text(self.reports)
        return self.reports[0].text

    @property
    def html(self) -> str:
        """The page.

        Raises:
            EnvironmentMissing: what draws pages is not installed.
        """
        from dlx_deploy.report.page.render import render
        from dlx_deploy.report.page.sections import page_of

        identity = hashlib.sha256(canonical_json(self.reports)).hexdigest()
        several = len(self.reports) > 1
        return render(comparison_page(self.reports, identity) if several else page_of(self.reports[0], identity))


def view_reports(asked: Sequence[str], store: Path) -> ReportsView:
    """The reports on the targets and packages ``asked`` for, or on the newest build of each target.

    Raises:
        ConfigError: nothing was built for one of them. PackageError: a file is no package. StoreError: what a step
            wrote is damaged.
    """
    opened = Store(store)
    builds = latest_manifests(opened)
    if not asked and not builds:
        raise ConfigError(f"no build in {store}; start one with: dlx-deploy build, or name a package")
    try:
        return ReportsView(tuple(_report(what, builds, opened) for what in asked or builds))
    except msgspec.MsgspecError as e:
        raise StoreError(
            f"{store}: what a step wrote cannot be read ({e}); build again with --deep, which makes damaged steps anew"
        ) from e


def _report(what: str, builds: dict[str, Manifest], store: Store) -> BuildReport:
    path = Path(what)
    if path.suffix == PACKAGE or path.is_file():
        manifest = _manifest_of(path)
        if manifest is None:
            return report_of_package(path)
        return _of_build(manifest, store, path)
    name = what if what in builds else load_target(what).profile.name
    if name not in builds:
        built = ", ".join(builds) or "none"
        raise ConfigError(f"{what}: no build for it in {store.root}; there are those for: {built}; or name a package")
    manifest = with_earlier_proofs(builds[name], store.root)
    return _of_build(manifest, store)


def _of_build(manifest: Manifest, store: Store, package: Path | None = None) -> BuildReport:
    search = searched_of(manifest, store.root)
    return report_of_build(manifest, outputs_of(manifest, store), package, search)


def _manifest_of(package: Path) -> Manifest | None:
    """The manifest that lies beside a package, if it is the record of the build that wrote these very bytes."""
    try:
        manifest = msgspec.json.decode(package.with_suffix(".manifest.json").read_bytes(), type=Manifest)
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    made = {output.digest for step in manifest.steps for output in step.outputs.values()}
    return manifest if digest in made and not newer_schema(manifest.schema, SCHEMA) else None
