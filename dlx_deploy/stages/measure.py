"""measure: the package on the machine that is its target, as its own ``bench`` runs there: what budgets of throughput,
memory, energy and cold start are judged by. No step where there is no such budget, or no such machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config import Config, Verify
from dlx_deploy.devices.choice import device_for, processor_of
from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Stage, Step
from dlx_deploy.stages.support.device_gates import is_measured, judge_measured
from dlx_deploy.targets import Profile

if TYPE_CHECKING:
    from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["STAGE", "MeasureParams"]


class MeasureParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How ``bench`` is asked. ``energy_unknown``: why there is no sensor for the budget of energy, so that the package
    is measured again once there is one; the budgets are the package's own.
    """

    rounds: int = Verify().rounds
    max_seconds: float = Verify().max_seconds
    threads: int = Verify().threads
    energy_unknown: str = ""


def run(job: Job[MeasureParams]) -> Metrics:
    """Write ``resources.json``: what ``bench`` measured, and its verdicts on the package's budgets.

    Raises:
        StageFailed: the package cannot be run there, or its answers are wrong.
    """
    from dlx_deploy.runtime.errors import RuntimeFault

    if job.device is None:
        raise StageFailed("measure: the target cannot be reached from here; build on the machine that it is")
    asked, device = job.params, job.device
    options = [f"--rounds={asked.rounds}", f"--max-seconds={asked.max_seconds:g}", f"--threads={asked.threads}"]
    try:
        seen = device.run_apart(device.put(job.inputs["package"]), ["bench", *options])
    except RuntimeFault as e:
        raise StageFailed(f"measure: the package does not run on {device.name}: {e}") from e
    (job.out / "resources.json").write_bytes(canonical_json(_kept(seen)))
    judged = _tables(seen.get("judged"))
    return {str(one["metric"]): float(one["value"]) for one in judged if isinstance(one.get("value"), float | int)}


def _kept(seen: JsonTable) -> dict[str, object]:
    """Of what ``bench`` says what budgets rest on; its latency is that of a call, and ``verify`` has the model's."""
    resources = seen.get("resources")
    table = resources if isinstance(resources, dict) else {}
    return {
        "machine": seen.get("machine"),
        "resources": table,
        "cold_start": seen.get("cold_start"),
        "judged": [one for one in _tables(seen.get("judged")) if not str(one["metric"]).startswith("latency_")],
        "energy_unknown": str(table.get("energy_unknown") or ""),
    }


def _tables(value: object) -> list[JsonTable]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where a budget takes a device and this machine is it."""
    budgets, device = config.gate.device_budgets, device_for(profile)
    if device is None or not is_measured(budgets):
        return []
    params = MeasureParams(
        rounds=config.verify.rounds,
        max_seconds=config.verify.max_seconds,
        threads=config.verify.threads,
        energy_unknown=device.energy_unknown(processor_of(profile)) if budgets.max_energy_mj else "",
    )
    gates = partial(judge_measured, budgets)
    return [Bound(Step("measure", STAGE, params, {"package": upstream.output("package")}, config.seed, gates))]


STAGE = Stage(
    name="measure",
    version=1,
    params=MeasureParams,
    inputs=("package",),
    outputs=("resources.json",),
    run=run,
    bind=bind,
    tools=("numpy", "onnxruntime"),
    measures_host=True,
    times_host=True,
)
