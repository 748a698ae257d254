"""The manifest of a build while it runs: on disk before and after every step that does work."""

from __future__ import annotations

import logging
import os
import time

import msgspec

import dlx_deploy
from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.manifest import SCHEMA, Manifest, now
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.store import Store

__all__ = ["Recorder"]

_log = logging.getLogger(__name__)


class Recorder:
    """Keeps the manifest on disk up to date. Without a writable store it warns once: the manifest is then lost."""

    def __init__(self, store: Store, build: Build) -> None:
        started = now()
        stamp = started.replace("-", "").replace(":", "").replace("+0000", "Z")
        self._store = store
        self._name = f"{stamp}-{build.target_name}-{os.getpid()}.json"
        self._clock = time.monotonic()
        self._writable = True
        self.manifest = Manifest(
            schema=SCHEMA,
            dlx_deploy=dlx_deploy.__version__,
            target_name=build.target_name,
            target=msgspec.to_builtins(build.target),
            config=msgspec.to_builtins(build.config),
            host=dict(build.host),
            device=msgspec.to_builtins(build.device.facts()) if build.device else None,
            started=started,
            status="running",
        )

    def note(self, **changes: object) -> None:
        """Take ``changes`` into the manifest; the next ``update`` writes them.

        What was found in the store is found again after a kill, and each write waits for the disk.
        """
        seconds = round(time.monotonic() - self._clock, 3)
        self.manifest = msgspec.structs.replace(self.manifest, seconds=seconds, **changes)

    def update(self, **changes: object) -> None:
        """Write the manifest with ``changes``."""
        self.note(**changes)
        if not self._writable:
            return
        try:
            self._store.write_build(self._name, canonical_json(self.manifest))
        except StoreError as e:
            self._writable = False
            _log.warning("the manifest of this build is not recorded: %s", e)
