"""Whether a package fits a board, before anything of it goes there: each finding with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from dlx_deploy.devices.asking import BoardFacts
from dlx_deploy.devices.pushing.backends import Runner, expected_runner, lacking_runtimes, runners_of
from dlx_deploy.devices.verifying import Verification, lacking_verifiers
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.supported import PYTHON
from dlx_deploy.targets import Profile, load_target

__all__ = ["Finding", "Wish", "examine"]

Level = Literal["ok", "told", "warning", "refused"]

SPARE_MIB = 64
"""What a release, its record and a log take beside the package, and what a full disk needs to stay usable."""
ENGINE_TIMES = 2
"""An engine and its timing cache, in sizes of the model."""
RUNTIME_MIB = 160
"""Python, numpy and a runtime, before a model is opened: measured at 90 to 130."""
MODEL_TIMES = 4
"""The package in memory, its model, the session's weights and what it folds, in sizes of the model."""
TOLD_S, WARNED_S = 300.0, 86_400.0
"""Seconds by which clocks may differ before it is told, and before it is a warning."""
MIB = 1024**2
BRING = "push with --bootstrap, which brings what lacks"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How a package is meant to go to a board. ``bytes_left``: of it that are not there yet.

    ``target``: what the board is for by the inventory (empty: not said). ``other_board``: whether one for another
    target will do. ``verification``: how its signature is verified there, if it is.
    """

    bytes_left: int
    target: str = ""
    other_board: bool = False
    accept_hazards: bool = False
    verification: Verification | None = None


class Finding(msgspec.Struct, frozen=True):
    """What one check found. ``level``: ``ok``, worth being ``told``, a ``warning``, or ``refused``."""

    check: str
    level: Level
    found: str
    remedy: str = ""

    def describe(self) -> str:
        """The finding as a sentence, its remedy behind it."""
        return f"{self.check}: {self.found}" + (f"; {self.remedy}" if self.remedy else "")


def examine(package: Package, facts: BoardFacts, wish: Wish) -> tuple[Finding, ...]:
    """All findings, in the order in which people ask."""
    profile = _profile(package)
    runners = runners_of(package, facts, wish.accept_hazards)
    return (
        *_target(package, profile, facts, wish),
        _python(facts),
        *_backends(package, runners, facts, wish),
        *_signature(facts, wish.verification),
        *_room(package, profile, expected_runner(runners), facts, wish),
        *_jetson(profile, facts),
        _clock(facts),
    )


def _profile(package: Package) -> Profile | None:
    """What this dlx-deploy knows of the package's target, if it does."""
    try:
        return load_target(package.target).profile
    except ConfigError:
        return None


def _target(package: Package, profile: Profile | None, facts: BoardFacts, wish: Wish) -> Iterator[Finding]:
    misfit: Level = "warning" if wish.other_board else "refused"
    remedy = "build for this board, or push it all the same with --other-board"
    arch = str(package.meta["target"].get("arch", ""))
    if arch and arch != facts.arch:
        yield Finding("architecture", misfit, f"the package is for {arch}, the board is {facts.arch}", remedy)
    else:
        yield Finding("architecture", "ok", facts.arch)
    model = profile.device_tree_model if profile else ""
    if model and facts.board and model not in facts.board:
        found = f"the package is for {package.target} ({model}), the board says it is {facts.board!r}"
        yield Finding("target", misfit, found, remedy)
    elif wish.target and wish.target != package.target:
        found = f"the package is for {package.target}, the board for {wish.target} by the inventory"
        yield Finding("target", misfit, found, remedy)
    else:
        yield Finding(
            "target", "ok", f"{package.target} on {facts.board or facts.cpu_model or 'a board without a name'}"
        )


def _python(facts: BoardFacts) -> Finding:
    version = facts.versions.get("python", "")
    parts = version.split(".")
    seen = tuple(int(part) for part in parts[:2]) if all(part.isdigit() for part in parts[:2]) else (0, 0)
    if seen >= PYTHON:
        return Finding("Python", "ok", f"{version} ({facts.executable})")
    oldest = ".".join(map(str, PYTHON))
    newer = [path for minor, path in facts.pythons.items() if int(minor.partition(".")[2]) >= PYTHON[1]]
    remedy = f"push with --python {newer[0]}" if newer else f"install Python {oldest} or newer there"
    return Finding("Python", "refused", f"{version} is too old; packages need {oldest} or newer", remedy)


def _backends(package: Package, runners: tuple[Runner, ...], facts: BoardFacts, wish: Wish) -> Iterator[Finding]:
    if "numpy" not in facts.versions:
        remedy = f"{BRING}, or install it there: {facts.executable} -m pip install numpy onnxruntime"
        yield Finding("numpy", "refused", "not installed", remedy)
    chosen = expected_runner(runners)
    if chosen is None:
        found = "; ".join(f"{runner.backend}: {runner.missing}" for runner in runners)
        comes = lacking_runtimes(package, facts, wish.accept_hazards)
        remedy = "install there what one of them lacks, or build with a backend that the board has"
        if comes:
            remedy = f"{BRING}, or install it there: {facts.executable} -m pip install --upgrade {' '.join(comes)}"
        yield Finding("runtime", "refused", f"nothing there runs the package ({found})", remedy)
        return
    for runner in runners[: runners.index(chosen)]:
        yield Finding("runtime", "warning", f"{runner.backend} is passed over: {runner.missing}")
    yield Finding("runtime", "ok", f"{chosen.backend} {chosen.version}".rstrip())
    for warning in chosen.warnings:
        yield Finding("runtime", "warning", f"{chosen.backend}: {warning}")


def _signature(facts: BoardFacts, how: Verification | None) -> Iterator[Finding]:
    lacking = lacking_verifiers(how, facts)
    if lacking:
        seen = ", ".join(f"{name} {facts.versions[name]}" for name in lacking if name in facts.versions)
        found = f"it is to be verified there too, which needs {' and '.join(lacking)}; there is {seen or 'none'}"
        remedy = f"{BRING}, or install it there: {facts.executable} -m pip install --upgrade {' '.join(lacking)}"
        yield Finding("signature", "refused", found, remedy)
    elif how is not None:
        yield Finding("signature", "ok", f"by {how.by}, verified here; there again before anything of it is run")


def _room(
    package: Package, profile: Profile | None, runner: Runner | None, facts: BoardFacts, wish: Wish
) -> Iterator[Finding]:
    engine = runner is not None and runner.is_engine
    model = len(package.model) // MIB + 1
    if not facts.writable:
        yield Finding(
            "folder", "refused", f"{facts.root} cannot be written there", "give its user that right, or a path"
        )
    need = -(-wish.bytes_left // MIB) + SPARE_MIB + ENGINE_TIMES * model * engine
    remedy = f"make room on the file system of {facts.root}, or push to a path on another"
    yield _enough("disk", facts.free_disk_mib, need, remedy, "refused")
    need = RUNTIME_MIB + MODEL_TIMES * model + (profile.workspace_mib if profile and engine else 0)
    if facts.total_memory_mib is not None and facts.total_memory_mib < need:
        yield _enough("memory", facts.total_memory_mib, need, "take a smaller model", "refused")
    elif facts.free_memory_mib is not None:
        yield _enough("memory", facts.free_memory_mib, need, "stop what else runs there, a desktop first", "warning")


def _enough(check: str, there: int, need: int, remedy: str, otherwise: Level) -> Finding:
    found = f"{there} MiB free, about {need} needed"
    return Finding(check, "ok", found) if there >= need else Finding(check, otherwise, found, remedy)


def _jetson(profile: Profile | None, facts: BoardFacts) -> Iterator[Finding]:
    if facts.l4t:
        own = profile.software.l4t if profile else ""
        other = bool(own) and own.partition(".")[0] != facts.l4t.partition(".")[0]
        found = f"L4T {facts.l4t}" + (f"; the target was described for {own}" if own and own != facts.l4t else "")
        yield Finding("JetPack", "warning" if other else "ok", found, "the self-test there decides" if other else "")
    mode = facts.power_mode_name or facts.power_mode
    meant = profile.power_mode if profile else ""
    if mode and meant and facts.power_mode_name and meant.lower() != facts.power_mode_name.lower():
        remedy = "latencies will be those of this mode; sudo nvpmodel -q says how to set another"
        yield Finding("power mode", "warning", f"{mode}, the target is described in {meant}", remedy)
    elif mode:
        yield Finding("power mode", "ok", mode)


def _clock(facts: BoardFacts) -> Finding:
    ahead = facts.clock_ahead_s
    found = f"{_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine's"
    remedy = "set it: sudo timedatectl set-ntp true, or sudo date -u -s '...'"
    if abs(ahead) <= TOLD_S:
        return Finding("clock", "ok", "within 5 minutes of this machine's")
    if abs(ahead) <= WARNED_S:
        return Finding("clock", "told", found, remedy)
    return Finding("clock", "warning", found, remedy)


def _duration(seconds: float) -> str:
    for unit, size in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
