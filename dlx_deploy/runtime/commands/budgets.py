"""Each budget that ``verify`` judged, by itself: what a CI server shows one by one."""

from __future__ import annotations

from typing import Dict, List, Optional, Protocol, Tuple, runtime_checkable

from ..errors import RuntimeFault
from ..package.contents import Package
from ..records import record
from ..tasks.slice_verdicts import SlicesJudged
from ..tasks.task import Judgement
from ..timing.verdicts import metric_of
from .proof import DECISIONS, Proof

__all__ = ["JudgedBudget", "judged_budgets", "proven_budgets", "sliced_budgets"]

NAMES = {
    "verdict": "max_drop",
    "drop": "max_drop",
    "floor": "min_accuracy",
    "shortfall": "min_accuracy",
    "flip_budget": "max_flips",
    "class_budget": "max_class_drop",
}
"""Field of a judgement → the budget that its verdict is of; of a field that is not here, its own name."""
SLICES = "max_slice_drop"
WHOLE = "max_drop"
"""What a judgement without such fields is of."""


@runtime_checkable
class _Verdict(Protocol):
    """One budget's verdict, a field of a judgement."""

    verdict: str

    def explain(self) -> str:
        """It, as a sentence."""

    def failure(self) -> Optional[RuntimeFault]:
        """The error that it amounts to."""


@record
class JudgedBudget:
    """``verdict``: pass, fail, undecided, or pending where this machine cannot judge it."""

    metric: str
    verdict: str
    text: str


def judged_budgets(judgement: Judgement, noun: str) -> List[JudgedBudget]:
    """Each budget of accuracy; of a judgement of another package's that tells none apart, all of it as one."""
    held: Dict[str, object] = getattr(judgement, "__dict__", {})
    own = [(name, value) for name, value in held.items() if isinstance(value, _Verdict)]
    if own:
        return [JudgedBudget(NAMES.get(name, name), value.verdict, value.explain()) for name, value in own]
    fault = judgement.failure()
    verdict = DECISIONS.get(fault.exit_code, "fail") if fault else "pass"
    return [JudgedBudget(WHOLE, verdict, str(fault) if fault else "; ".join(judgement.lines(noun)))]


def sliced_budgets(slices: Optional[SlicesJudged]) -> List[JudgedBudget]:
    """That of each slice, as one, and that of slices that could not be judged."""
    if slices is None:
        return []
    judged = [JudgedBudget(SLICES, slices.verdict.verdict, slices.verdict.explain())] if slices.verdict else []
    return judged + ([JudgedBudget(SLICES, "undecided", slices.missing)] if slices.missing else [])


def proven_budgets(package: Package, proof: Proof) -> List[JudgedBudget]:
    """Each budget of time and resources; pending, with the reason, where none was judged."""
    if proof.budgets:
        return [JudgedBudget(one.metric, one.verdict, one.text) for one in proof.budgets]
    why = proof.why or "nothing was timed, since the package's answers did not pass"
    return [JudgedBudget(metric, "pending", why) for metric in _metrics(package)]


def _metrics(package: Package) -> Tuple[str, ...]:
    limits = [name for name in package.device_budgets.to_dict() if name != "throughput_batch"]
    return (*map(metric_of, sorted(package.latency_budgets)), *limits)
