"""The view of a package's ``verify``."""

from __future__ import annotations

from dataclasses import asdict
from typing import List, Optional

from ..errors import RuntimeFault, first_fault
from ..package.contents import Package
from ..records import record, replace
from ..tasks.slice_verdicts import SlicesJudged
from ..tasks.task import Judgement
from ..untyped import JsonTable
from ..views import lines_of
from .baseline import Regression
from .budgets import JudgedBudget, judged_budgets, proven_budgets, sliced_budgets
from .parity import ParityResult
from .prediction_views import head_of
from .proof import Proof
from .verify import PassedOver
from .views import parity_data

__all__ = ["VerifyView"]


@record
class VerifyView:
    """The task's judgement on a package against its teacher, and the samples that it does not rest on.

    ``regression``: the judgement against a package that was released before. ``proof``: of this machine's budgets.
    ``alone``: samples whose group is not known. ``slices``: each slice beside the teacher, if there are some.
    """

    package: Package
    result: Judgement
    parity: Optional[ParityResult] = None
    passed_over: Optional[PassedOver] = None
    regression: Optional[Regression] = None
    proof: Optional[Proof] = None
    alone: int = 0
    slices: Optional[SlicesJudged] = None

    @property
    def failure(self) -> Optional[RuntimeFault]:
        """The budget that is missed, answers that are not the builder's, or a budget that cannot be decided."""
        judged = (self.result, self.slices, self.parity, self.regression)
        faults = [*(one.failure() for one in judged if one), self.proof.fault if self.proof else None]
        return first_fault(faults)

    @property
    def budgets(self) -> List[JudgedBudget]:
        """Each budget by itself: of accuracy, of a regression, of this machine; answers beside the builder's too."""
        noun = self.package.task.inputs.noun
        judged = judged_budgets(self.result, noun) + sliced_budgets(self.slices)
        if self.regression:
            of_both = judged_budgets(self.regression.result, noun) + sliced_budgets(self.regression.slices)
            judged += [replace(one, metric=f"baseline: {one.metric}") for one in of_both]
        if self.parity:
            verdict = "fail" if self.parity.faults else "pass"
            judged.append(JudgedBudget("parity", verdict, self.parity.describe()))
        return judged + (proven_budgets(self.package, self.proof) if self.proof else [])

    @property
    def data(self) -> JsonTable:
        """The judgement's own values, how many samples were not judged, how answers compare with the builder's, and
        each budget by itself."""
        left = {"passed_over": self.passed_over.count if self.passed_over else 0}
        left.update({"of_no_known_group": self.alone} if self.alone else {})
        base = {"baseline": self.regression.to_dict()} if self.regression else {}
        base.update({"slices": self.slices.to_dict()} if self.slices else {})
        if self.proof:
            base["proof"] = self.proof.to_dict()
        judged = {"judged": [asdict(one) for one in self.budgets]}
        return {**head_of(self.package), **self.result.to_dict(), **left, **base, **parity_data(self.parity), **judged}

    @property
    def text(self) -> str:
        """The judgement's own lines, what was not judged, and that comparison."""
        noun = self.package.task.inputs.noun
        left = [self.passed_over.describe(noun)] if self.passed_over else []
        if self.alone:
            left.append(
                f"{self.alone} {noun} are not in the package's reference table, and of which groups they are is "
                "not known: each was taken for one of its own, surer than it should be if they are of few"
            )
        left += self.slices.lines() if self.slices else []
        left += self.regression.lines(noun) if self.regression else []
        shown = [self.parity.describe()] if self.parity else []
        return lines_of([*self.result.lines(noun), *left, *shown, *(self.proof.lines() if self.proof else ())])
