"""Answers that changed, and how many may."""

from __future__ import annotations

import pytest

from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.statistics.flips import Flips, judge_flips, refuse_counted
from dlx_deploy.runtime.statistics.floors import accuracy_upper_bound


@pytest.mark.parametrize(
    ("changed", "limit", "verdict", "text"),
    [
        (10, 0.02, "pass", "at most 1.69 % at 0.95 confidence; budget 2.00 %: met"),
        (40, 0.02, "fail", "at least 3.03 % at 0.95 confidence; budget 2.00 %: missed"),
        (15, 0.02, "undecided", "budget 2.00 %: undecided; about "),
        (20, 0.02, "undecided", "more samples would rather show a miss than a pass: compress less, or raise the"),
    ],
)
def test_the_share_of_changed_answers_is_bounded(changed: int, limit: float, verdict: str, text: str) -> None:
    seen = judge_flips(Flips(4, 3, changed, 1000), limit, 0.95)
    assert (seen.verdict, seen.flips.share) == (verdict, changed / 1000)
    assert text in seen.explain()
    assert f"{changed} of 1000 answers changed" in seen.explain()
    assert f"4 from right to wrong, 3 from wrong to right, {changed - 7} from wrong to wrong" in seen.explain()
    kinds = {"pass": type(None), "fail": BudgetMissed, "undecided": Undecided}
    assert isinstance(seen.failure(), kinds[verdict])


def test_so_many_samples_do_decide() -> None:
    seen = judge_flips(Flips(4, 3, 15, 1000), 0.02, 0.95)
    assert seen.samples_needed is not None
    assert seen.samples_needed > 1000
    n = seen.samples_needed
    assert judge_flips(Flips(0, 0, round(0.015 * n), n), 0.02, 0.95).verdict == "pass"
    none = judge_flips(Flips(0, 0, 0, 50), 0.02, 0.95)
    assert (none.verdict, none.samples_needed) == ("undecided", 149)
    assert accuracy_upper_bound(0, 149, 0.95) <= 0.02 < accuracy_upper_bound(0, 148, 0.95)


def test_budgets_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"the budget of changed answers is 1; must be over 0 and under 1"):
        judge_flips(Flips(0, 0, 0, 10), 1, 0.95)
    with pytest.raises(InputError, match=r"of changed answers is 0\.1, and .* judged by mIoU are not counted"):
        refuse_counted(0.1, 0, "mIoU")
    with pytest.raises(InputError, match=r"the budget of each class is 0\.1, and .* leave it out"):
        refuse_counted(0, 0.1, "mIoU")
    refuse_counted(0.0, 0.0, "mIoU")
