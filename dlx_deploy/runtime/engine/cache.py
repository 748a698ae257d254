"""Engines that were built here, kept beside their sidecars; what is not whole or not for this machine is not loaded.

An entry is a folder, named by the hash of the key and the settings, with ``engine.plan`` (TensorRT's own bytes) and
``engine.json``. The sidecar is written last and holds the plan's size and SHA-256, so a half-written entry is none.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Tuple

from ..digests import sha256_hex
from ..errors import EngineError, PackageError
from ..filenames import PLAN, SIDECAR
from ..files import write_atomically
from ..package.archive import to_json
from ..records import record
from .build import BuiltEngine
from .settings import BuildSettings
from .sidecar import RECORDED, EngineKey, Sidecar, differences, make_sidecar, read_sidecar, to_bytes

__all__ = ["CachedEngine", "EngineCache", "check_shipped", "default_folder"]

MODE = 0o600  # a plan is native code that only its owner should be able to change
LOCK = "lock"
Build = Callable[[Path], BuiltEngine]
Say = Callable[[str], None]


@record
class CachedEngine:
    """An engine for this machine; ``origin`` is ``cache`` or ``built``."""

    plan: bytes
    sidecar: Sidecar
    origin: str


def default_folder() -> Path:
    """``dlx-deploy/engines`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlx-deploy" / "engines"


def check_shipped(plan: bytes, sidecar: bytes, here: EngineKey, origin: str) -> List[str]:
    """Why an engine that came in a package is not for this machine; empty if it is.

    Raises:
        PackageError: the sidecar is damaged, or is not that of the plan.
    """
    read = read_sidecar(sidecar, origin)
    damage = _damage(plan, read)
    if damage:
        raise PackageError(f"{origin}: {damage}; copy or build the package again")
    return differences(read.key, here)


class EngineCache:
    """The engines below ``folder``, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, here: EngineKey, settings: BuildSettings, build: Optional[Build], say: Say) -> CachedEngine:
        """The engine for this machine, built if it is not here; ``build`` gets the path of the timing cache.

        ``build`` is ``None`` where building is forbidden. Of two processes one builds, and the other waits for it.

        Raises:
            EngineError: there is none and none may be built; what ``build`` raises.
        """
        entry = self.folder / _name(here, settings)
        cached, why = self._read(entry, here)
        if cached:
            return cached
        why = why or self._nearest(here)
        if build is None:
            raise EngineError(
                f"no engine for this machine is cached ({why}), and building one is forbidden; "
                "leave out --no-build to build it"
            )
        say(f"no engine for this machine is cached: {why}")
        try:
            entry.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            return self._unkept(build, here, settings, say, e)
        with _locked(entry / LOCK, say):
            cached, _ = self._read(entry, here)  # another process may have built it meanwhile
            return cached or self._built(entry, here, settings, build, say)

    def timing_cache(self, here: EngineKey) -> Path:
        """The timing cache that all engines of this TensorRT and GPU share."""
        facts = [here.flavour, here.version, here.compute_capability, here.gpu, here.sm_count, here.power_mode]
        return self.folder / "timing" / f"{sha256_hex(to_json(facts))[:32]}.cache"

    def _built(self, entry: Path, here: EngineKey, settings: BuildSettings, build: Build, say: Say) -> CachedEngine:
        built = build(self.timing_cache(here))
        sidecar = make_sidecar(here, settings, built)
        try:
            write_atomically(entry / PLAN, built.plan, MODE)
            write_atomically(entry / SIDECAR, to_bytes(sidecar), MODE)
        except OSError as e:
            say(f"the engine is used, but cannot be kept in {entry} ({e.strerror})")
        return CachedEngine(built.plan, sidecar, "built")

    def _unkept(self, build: Build, here: EngineKey, settings: BuildSettings, say: Say, e: OSError) -> CachedEngine:
        say(f"engines cannot be kept in {self.folder} ({e.strerror}); this one is built for this run alone")
        built = build(self.timing_cache(here))
        return CachedEngine(built.plan, make_sidecar(here, settings, built), "built")

    def _read(self, entry: Path, here: EngineKey) -> Tuple[Optional[CachedEngine], str]:
        """The entry if it is whole and for this machine, and otherwise why not; no reason where there is nothing."""
        try:
            sidecar = read_sidecar((entry / SIDECAR).read_bytes(), str(entry / SIDECAR))
            plan = (entry / PLAN).read_bytes()
        except FileNotFoundError:
            return None, "the plan beside the sidecar is missing" if (entry / SIDECAR).exists() else ""
        except (OSError, PackageError) as e:
            return None, str(e)
        why = [_damage(plan, sidecar)] if _damage(plan, sidecar) else differences(sidecar.key, here)
        return (None, "; ".join(why)) if why else (CachedEngine(plan, sidecar, "cache"), "")

    def _nearest(self, here: EngineKey) -> str:
        """How the engine of the same package that differs least from this machine differs."""
        nearest: Optional[List[str]] = None
        for path in sorted(self.folder.glob(f"*/{SIDECAR}")):
            try:
                key = read_sidecar(path.read_bytes(), str(path)).key
            except (OSError, PackageError):
                continue
            if key.package_digest == here.package_digest:
                different = differences(key, here) or ["settings: it was built with others"]
                nearest = different if nearest is None or len(different) < len(nearest) else nearest
        return "; ".join(nearest) if nearest else "there is none of this package"


def _name(here: EngineKey, settings: BuildSettings) -> str:
    key = {name: value for name, value in asdict(here).items() if name not in RECORDED}
    return sha256_hex(to_json({"key": key, "settings": settings.to_dict()}))


def _damage(plan: bytes, sidecar: Sidecar) -> str:
    if len(plan) != sidecar.plan_size:
        return (
            f"the engine has {len(plan)} bytes and its sidecar says {sidecar.plan_size}: it is cut short or another one"
        )
    if sha256_hex(plan) != sidecar.plan_sha256:
        return "the engine's SHA-256 is not the one in its sidecar: it is damaged"
    return ""


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """The lock of an entry; the system frees it if its holder dies."""
    try:
        import fcntl
    except ImportError:  # not on Windows: two builds of one engine cost time, the last one wins
        yield
        return
    with open(path, "ab") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds this engine; waiting for it")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield
