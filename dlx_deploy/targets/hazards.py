"""What a target's runtimes are known to compute wrong: of one graph, or at all."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dlx_deploy.runtime.backends.names import ENGINES, BackendName
from dlx_deploy.runtime.hazards.operators import Operator, in_exact, in_half
from dlx_deploy.runtime.hazards.table import Hazard, hazards_for, hazards_of
from dlx_deploy.targets.profile import Profile

__all__ = ["TargetHazard", "hazards_on", "own_version", "target_hazards"]

STRONG_SINCE = 9
"""TensorRT's first version to take every type from the graph when asked to; an older one may choose FP16."""


class TargetHazard(msgspec.Struct, frozen=True):
    """A known wrong computation on a target: of which backend, and in which of the versions documented for it.

    ``versions`` is empty where the target names none: whether it is met depends on what is installed there.
    ``stops``: the target's first choice, an engine, would be refused in the version that the profile was written for.
    """

    backend: BackendName
    versions: tuple[str, ...]
    hazard: Hazard
    stops: bool = False

    @property
    def where(self) -> str:
        """The backend and its versions, for people."""
        return f"{self.backend} {' and '.join(self.versions)}" if self.versions else f"some versions of {self.backend}"

    def describe(self) -> str:
        """The hazard and where it is met, in a sentence."""
        return f"{self.where}: {self.hazard.describe()}"


def hazards_on(profile: Profile) -> list[TargetHazard]:
    """All that is known of the target's runtimes, whatever the graph."""
    return _found(profile, None, False)


def target_hazards(operators: Sequence[Operator], profile: Profile, weak: bool = True) -> list[TargetHazard]:
    """What a graph of ``operators`` would meet on each of the target's backends, in their order.

    On ONNX Runtime it is run in exact arithmetic where the target's packages are. ``weak``: whether a builder older
    than strong types may choose FP16, as it may unless the settings of its engine say something else.
    """
    return _found(profile, operators, weak)


def _found(profile: Profile, operators: Sequence[Operator] | None, weak: bool) -> list[TargetHazard]:
    found = []
    for backend in profile.backend_order:
        versions: dict[str, tuple[Hazard, list[str]]] = {}
        for version in _versions(profile, backend):
            for hazard in _hazards(profile, operators, backend, version, weak):
                versions.setdefault(hazard.id, (hazard, []))[1].extend([version] if version else [])
        for hazard, seen in versions.values():
            stops = hazard.refuses and backend == profile.backend_order[0] and own_version(profile, backend) in seen
            found.append(TargetHazard(backend, tuple(seen), hazard, stops))
    return found


def _hazards(
    profile: Profile, operators: Sequence[Operator] | None, backend: BackendName, version: str | None, weak: bool
) -> list[Hazard]:
    if operators is None:
        return hazards_of(backend, version, profile.arch)
    if backend not in ENGINES and profile.judge == "exact-qdq":
        operators = in_exact(operators)
    if weak and backend == "tensorrt" and "fp16" in profile.precisions and _major(version) < STRONG_SINCE:
        operators = in_half(operators)
    return hazards_for(operators, backend, version, profile.arch)


def _versions(profile: Profile, backend: BackendName) -> list[str | None]:
    """Those documented for the target; ``None``, any, where there are none."""
    own = own_version(profile, backend)
    known = [*(profile.software.tensorrt_known if backend == "tensorrt" else ()), own]
    return list(dict.fromkeys(version for version in known if version)) or [None]


def own_version(profile: Profile, backend: BackendName) -> str:
    """The version of ``backend`` that the profile was written for; empty where it says none."""
    software = profile.software
    return {"tensorrt": software.tensorrt, "tensorrt-rtx": software.tensorrt_rtx}.get(backend, "")


def _major(version: str | None) -> int:
    head = (version or "").partition(".")[0]
    return int(head) if head.isdigit() else STRONG_SINCE
