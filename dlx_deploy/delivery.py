"""Packages and their manifests as files of the user: the new ones whole, those of earlier builds out of the way.

And the way back: what a package was made of, and where the store has it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dlx_deploy.config import Config, Data
from dlx_deploy.errors import ConfigError, StoreError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.execution import BuildResult
from dlx_deploy.pipeline.locks import locked
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.record import Record
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.proofs import proofs_beside
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.runtime.package.bundle import SUFFIX
from dlx_deploy.runtime.scratch import Scratch
from dlx_deploy.tasks import is_built_in

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.trust import Trust

__all__ = [
    "StoredOutput",
    "deliver",
    "labelled_data",
    "package_path",
    "report_path",
    "set_aside",
    "signature_path",
    "stored_output",
    "stored_teacher",
]

_log = logging.getLogger(__name__)
READABLE = 0o644
"""Whatever this process gives its own files, a package may be read by all."""


def package_path(config: Config, build: Build, output: Path) -> Path:
    """Where in ``output`` the package of ``build`` goes."""
    return output / f"{config.name}-{config.version}-{build.target_name}.dlx"


def report_path(package: Path) -> Path:
    """Where the report on ``package`` goes."""
    return package.with_suffix(".report.html")


def signature_path(package: Path) -> Path:
    """Where the signature of ``package`` is."""
    return package.with_name(package.name + SUFFIX)


def deliver(result: BuildResult, package: Path) -> Path:
    """Write the manifest, and then copy the package beside it, out of the store; the package's path.

    A signature that lies there is moved aside where the package becomes other bytes: it is of the earlier one.
    """
    output = package.parent
    try:
        data = result.outputs["package"]["package.dlx"].read_bytes()
        output.mkdir(parents=True, exist_ok=True)
        same = package.exists() and package.read_bytes() == data
        manifest, path = result.manifest, package.with_suffix(".manifest.json")
        waiting = f"waiting for another process that attaches a proof to {path}"
        held = locked(path, lambda: _log.warning("%s", waiting), _undelivered)
        with held if path.is_file() else nullcontext():  # what is attached now is attached to the one or the other
            if same:  # what boards have shown of these bytes still holds
                manifest = msgspec.structs.replace(manifest, proofs=dict(proofs_beside(package)))
            write_atomically(path, canonical_json(manifest), READABLE)
        signature = signature_path(package)
        if signature.exists() and not same:
            os.replace(signature, _aside(signature))
        write_atomically(package, data, READABLE)
    except OSError as e:
        raise _undelivered(e, output) from e
    return package


def _undelivered(e: OSError, path: Path) -> StoreError:
    return StoreError(f"{path}: {e.strerror}; the stages are kept: name another folder with --output")


def set_aside(package: Path, say: Callable[[str], None]) -> Path | None:
    """Rename what an earlier build and its maker left, which one without a package must not leave to be shipped.

    Gives the package's new path, ``NAME.dlx.superseded``, or ``None`` where there was none; says so, or why it failed.
    """
    moved = None
    for path in (package, package.with_suffix(".manifest.json"), report_path(package), signature_path(package)):
        if path == report_path(package) and moved is None:
            continue  # of a build that a gate stopped
        aside = _aside(path)
        try:
            os.replace(path, aside)
        except FileNotFoundError:
            continue
        except OSError as e:
            say(f"warning: {path} is of an earlier build and cannot be moved aside ({e.strerror}): do not ship it")
            continue
        if path == package:
            moved = aside
            say(f"warning: {path} is of an earlier build, and this one made no package: moved to {aside}")
    return moved


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.superseded")


class StoredOutput(NamedTuple):
    """A file or folder in a store, and the step that wrote it."""

    path: Path
    step: str


def stored_output(store: Store, digest: str) -> StoredOutput | None:
    """What has this SHA-256 in ``store``, its bytes checked, whatever they lie beside; or none. Of several the oldest:
    what made it, not what passed it on.

    Raises:
        StoreError: the store is newer than this dlx-deploy, or cannot be read.
    """
    for record in reversed(store.records()):
        for name, output in record.outputs.items():
            if output.digest == digest and isinstance(store.find(record.key), Record):
                return StoredOutput(store.output_path(record.key, name), record.step)
    return None


def stored_teacher(package: Path, root: Path, trust: Trust | None = None) -> StoredOutput | None:
    """The ONNX that the gate of ``package`` was judged by, found in the store at ``root`` by its SHA-256; or none.

    Raises:
        PackageError: ``package`` is none, or not signed as ``trust`` asks. StoreError: as ``stored_output``.
    """
    digest = _teacher_digest(package, trust)
    return stored_output(Store(root), digest) if digest else None


def _teacher_digest(package: Path, trust: Trust | None) -> str | None:
    """The SHA-256 of the teacher's ONNX as the package's ``manifest.json`` has it, if it does."""
    from dlx_deploy.runtime.package.archive import read_archive

    try:
        manifest = msgspec.json.decode(read_archive(package, trust).get("manifest.json", b""))
        return str(manifest["steps"]["verify"]["inputs"]["teacher"])
    except (KeyError, TypeError, ValueError, RecursionError):  # made by other means
        return None


@contextmanager
def labelled_data(data: str, package: Path, trust: Trust | None = None) -> Iterator[Path]:
    """The folder that ``--data`` means; built-in data are made afresh with the seed that the package was built with."""
    if Path(data).exists() or not is_built_in(data):
        yield Path(data)
        return
    from dlx_deploy.tasks import prepare

    params, seed = _data_of(package, trust)
    if params.kind != data:
        raise ConfigError(
            f"--data {data}: {package} was built from data of kind {params.kind!r}; give their folder or file by --data"
        )
    with Scratch("dlx-deploy-work") as folder:
        prepare(params, folder, seed)
        yield folder


def _data_of(package: Path, trust: Trust | None) -> tuple[Data, int]:
    """How the data of a package were made: their parameters and the seed."""
    from dlx_deploy.runtime.package.archive import read_archive

    files = read_archive(package, trust)
    try:
        made = msgspec.json.decode(files["manifest.json"])["steps"]["data"]
        return msgspec.convert(made["params"], Data), msgspec.convert(made["seed"], int)
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise ConfigError(
            f"{package}: its manifest.json does not say how the data were made ({type(e).__name__}: {e}); give "
            "a folder by --data"
        ) from e
