"""What a finished graph would meet on its target: said after compile, and refused where its engine would be wrong.

The table is not in a stage's key: a newer one judges builds that are there already, and reruns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.runtime.hazards.operators import Operator
from dlx_deploy.targets import Profile
from dlx_deploy.targets.hazards import TargetHazard, target_hazards

__all__ = ["OPERATORS", "hazard_notes", "refuse_hazards", "write_operators"]

OPERATORS = "operators.json"
_SCHEMA = 1
"""Of that file."""


class _Summary(msgspec.Struct, frozen=True):
    operators: tuple[Operator, ...]
    schema: int = _SCHEMA


def write_operators(folder: Path) -> None:
    """Write the summary of the model in ``folder`` beside it: what no warm build reads a whole model for."""
    from dlx_deploy.runtime.hazards.operators import list_operators

    (folder / OPERATORS).write_bytes(canonical_json(_Summary(list_operators((folder / MODEL).read_bytes()))))


def refuse_hazards(profile: Profile, outputs: Mapping[str, Path]) -> None:
    """Nothing, unless the engine that the target would build of the graph is known to be wrong.

    Raises:
        StageFailed: it is.
    """
    for found in _met(profile, outputs):
        if found.stops:
            raise StageFailed(f"{profile.name}, {found.describe()}")


def hazard_notes(profile: Profile, outputs: Mapping[str, Path]) -> Sequence[str]:
    """Each hazard that the graph would meet on one of the target's backends."""
    return [f"known to be computed wrong on {profile.name}, {found.describe()}" for found in _met(profile, outputs)]


def _met(profile: Profile, outputs: Mapping[str, Path]) -> Sequence[TargetHazard]:
    summary = msgspec.json.decode(outputs[OPERATORS].read_bytes(), type=_Summary)
    engine = msgspec.json.decode(outputs["recipe.json"].read_bytes())["engine"] or {}
    weak = "fp16" in (engine.get("precision"), *engine.get("weak_types", ()))
    return target_hazards(summary.operators, profile, weak)
