"""What a package takes of a machine beside time: energy, memory, room; and how much it does without a pause."""

from __future__ import annotations

from dataclasses import asdict
from typing import Callable, Dict, List, Optional, Tuple

from ..device_budgets import DeviceBudgets
from ..power.meter import Meter, Reading
from ..power.sensors import Sensors, find_sensors
from ..records import record
from ..telling import Tell, silent
from ..timing.latency import CONFIDENCE
from ..timing.limits import Bounded, judge_at_least, judge_at_most
from ..timing.sustained import Sustained, peak_memory_mib, sustain
from ..timing.verdicts import Judged

__all__ = ["Resources", "judge_resources", "measure_resources", "processor_of"]

MIB = 2**20
LONGER = "measure on a quieter machine"


@record
class Resources:
    """``sustained``: ``None`` where neither a budget nor a sensor asked for it. ``peak_memory_mib``: of a fresh process
    that opens the package and answers once, or of this one since it began where none was started. ``package_bytes``: of
    the package's file, where it is one.
    """

    sustained: Optional[Sustained]
    energy: Reading
    peak_memory_mib: Optional[float]
    package_bytes: Optional[int]

    def to_dict(self) -> Dict[str, object]:
        """The values as JSON has them."""
        energy = asdict(self.energy.energy) if self.energy.energy else None
        return {
            "sustained": asdict(self.sustained) if self.sustained else None,
            "energy": energy,
            "energy_unknown": self.energy.why,
            "peak_memory_mib": self.peak_memory_mib,
            "package_bytes": self.package_bytes,
        }


def processor_of(backend: str) -> str:
    """Whose energy an inference of ``backend`` is: ``cpu`` or ``gpu``."""
    return "cpu" if backend.endswith("-cpu") else "gpu"


def measure_resources(
    call: Callable[[], object],
    budgets: DeviceBudgets,
    backend: str,
    tell: Tell = silent,
    sensors: Optional[Sensors] = None,
) -> Resources:
    """Run ``call``, of ``throughput_batch`` samples, without a pause where a budget or a sensor gives a reason to;
    ``sensors``: this machine's.

    Energy is measured in a window of its own: a latency that is timed with pauses, and while sensors are read, would
    be another's.
    """
    meter = Meter(find_sensors() if sensors is None else sensors, processor_of(backend))
    sustained = None
    if budgets.min_throughput or meter.is_useful:
        sustained = sustain(call, budgets.throughput_batch, meter, tell=tell)
    return Resources(sustained, meter.result(CONFIDENCE), peak_memory_mib(), None)


def judge_resources(seen: Resources, budgets: DeviceBudgets) -> Tuple[Judged, ...]:
    """The verdict on each budget that is set."""
    judged: List[Judged] = []
    if budgets.min_throughput and seen.sustained:
        rate = seen.sustained
        what = f"throughput at batch {rate.batch} is"
        shown = Bounded(rate.per_second, rate.lower, rate.upper, "samples/s")
        judged.append(judge_at_least("throughput", what, shown, budgets.min_throughput, LONGER))
    if budgets.max_energy_mj:
        judged.append(_energy(seen.energy, budgets.max_energy_mj))
    if budgets.max_memory_mib:
        judged.append(
            _exact(
                "peak_memory_mib", "a process that runs it had at most", seen.peak_memory_mib, budgets.max_memory_mib
            )
        )
    if budgets.max_size_mib:
        size = None if seen.package_bytes is None else seen.package_bytes / MIB
        judged.append(_exact("package_mib", "the package has", size, budgets.max_size_mib))
    return tuple(judged)


def _energy(seen: Reading, limit: float) -> Judged:
    energy = seen.energy
    if energy is None:
        text = f"energy of an inference is not measured: {seen.why}; budget {limit:g} mJ: undecided"
        return Judged("energy_mj", None, None, limit, "undecided", text)
    what = f"energy of an inference beyond idle, by {' + '.join(energy.sensors)}, is"
    shown = Bounded(energy.per_inference_mj, energy.lower_mj, energy.upper_mj, "mJ")
    return judge_at_most("energy_mj", what, shown, limit, LONGER)


def _exact(metric: str, what: str, value: Optional[float], limit: float) -> Judged:
    if value is None:
        text = f"{metric} is not known here; budget {limit:g} MiB: undecided"
        return Judged(metric, None, None, limit, "undecided", text)
    return judge_at_most(metric, what, Bounded(value, value, value, "MiB"), limit, "")
