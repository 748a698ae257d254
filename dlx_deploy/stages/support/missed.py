"""When INT8 is trained: always, never, or where its budget is missed without; and what is kept of the two."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Literal

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.graph.quantization.trials import Trials, read_trials
from dlx_deploy.pipeline.stage import Job

if TYPE_CHECKING:
    from pathlib import Path

    from dlx_deploy.targets import Profile

__all__ = ["PTQ", "TRAINED", "Trained", "copy_untrained", "read_trained", "trained_bytes", "trains_int8"]

PTQ = "ptq-"
"""What the names of inputs begin with that a step of ``quantize`` wrote before anything was trained."""
TRAINED = "trained.json"
_SCHEMA = 1


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """``trained.json``: whether ``qat`` trained, and whether what was learned is kept; ``reason``: if not, why not."""

    schema: int = _SCHEMA
    trained: bool
    kept: bool
    reason: str = ""


def trained_bytes(value: Trained) -> bytes:
    """JSON for people and machines; equal values give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def read_trained(path: Path) -> Trained:
    """What ``trained.json`` says."""
    return msgspec.json.decode(path.read_bytes(), type=Trained)


def trains_int8(config: Config, profile: Profile) -> Literal["never", "always", "missed"]:
    """As ``qat.enabled`` says.

    Where that is ``auto``: with ``quantize.effort = "best"``, images or texts to learn from and a budget on static
    INT8, if that is missed.
    """
    if config.qat.enabled != "auto":
        return "always" if config.qat.enabled else "never"
    asked = config.quantize
    int8 = asked.precision in ("auto", "int8") and "int8" in profile.precisions
    judged = asked.max_drop != "off" and asked.activations != "dynamic"
    learns = config.data.use != "evaluation" and config.qat.epochs > 0
    return "missed" if asked.effort == "best" and int8 and judged and learns else "never"


def copy_untrained(job: Job[msgspec.Struct]) -> Trials | None:
    """What was tried, once all that was made without training is copied, where that kept to its budget.

    ``None``, and nothing is copied, where it did not, or this is no step that follows ``qat``.
    """
    if f"{PTQ}trials.json" not in job.inputs:
        return None
    trials = read_trials(job.inputs[f"{PTQ}trials.json"])
    if not trials.met:
        return None
    for name, path in job.inputs.items():
        if name.startswith(PTQ):
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, job.out / name.removeprefix(PTQ))
    return trials
