"""Trials in a journal: taken once, finished once, taken over from dead workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.errors import StoreError
from dlx_deploy.search.outcome import Figures, Miss, Outcome
from dlx_deploy.search.space import parse_space
from dlx_deploy.search.study import Study

SPACE = {"quantize.precision": ["int8", "fp32"], "distill.arguments.width": [0.5, 2.0]}


def figures(score: float = 0.9, latency_ms: float = 1.0, size_bytes: int = 1000) -> Figures:
    return Figures(
        metric="top1",
        title="top-1",
        samples=100,
        score=score,
        teacher_score=0.95,
        drop=0.95 - score,
        drop_upper=0.1,
        latency_ms=latency_ms,
        latency_p90_ms=None,
        latency_kind="estimate",
        latency_where="board",
        size_bytes=size_bytes,
        parameters=1,
        macs=1,
    )


def weighed(score: float = 0.9, latency_ms: float = 1.0, size_bytes: int = 1000, *misses: Miss) -> Outcome:
    return Outcome(state="complete", figures=figures(score, latency_ms, size_bytes), misses=misses)


MISS = Miss(budget="gate.max_drop", excess=0.5, text="too low")


def study(folder: Path, seed: int = 0) -> Study:
    return Study(folder, parse_space(SPACE), seed)


def values_of(folder: Path, count: int, seed: int = 0) -> list[dict[str, str]]:
    found = []
    for number in range(count):
        taken = study(folder, seed).take(count)
        assert taken is not None
        study_of = Study(folder, parse_space(SPACE), seed)
        study_of.finish(taken, weighed(0.9 - 0.01 * number))
        found.append(dict(taken.values))
    return found


def test_proposals_rest_on_the_seed_and_the_trial(tmp_path: Path) -> None:
    """So a study that is opened anew for each trial goes on as one that never ended."""
    first, again = values_of(tmp_path / "a", 12), values_of(tmp_path / "b", 12)
    other = values_of(tmp_path / "c", 3, seed=1)
    assert first == again
    assert other != first[:3]
    assert len({tuple(one.items()) for one in first}) > 8
    assert all(0.5 <= float(one["distill.arguments.width"]) <= 2.0 for one in first)


def test_a_study_has_as_many_trials_as_were_asked_for(tmp_path: Path) -> None:
    one = study(tmp_path)
    for _ in range(2):
        taken = one.take(2)
        assert taken is not None
        one.finish(taken, weighed())
    assert one.take(2) is None
    assert study(tmp_path).take(2) is None
    more = study(tmp_path).take(3)
    assert more is not None
    assert [done.number for done in study(tmp_path).done()] == [0, 1]


def test_a_trial_of_a_living_worker_is_left_alone_and_of_a_dead_one_taken_over(tmp_path: Path) -> None:
    first = study(tmp_path)
    taken = first.take(2)
    assert taken is not None
    second = study(tmp_path)
    other = second.take(2)
    assert other is not None
    assert (other.number, second.at_work()) == (1, 2)
    assert study(tmp_path).take(2) is None  # both are at work
    taken.held.close()  # as the system does where a process is killed
    again = study(tmp_path).take(2)
    assert again is not None
    assert again.values == taken.values
    assert again.number == 2
    second.finish(other, weighed())
    study(tmp_path).finish(again, weighed())
    assert [done.number for done in study(tmp_path).done()] == [1, 2]
    assert study(tmp_path).take(2) is None


def test_a_half_written_line_is_cut_off(tmp_path: Path) -> None:
    one = study(tmp_path)
    taken = one.take(1)
    assert taken is not None
    one.finish(taken, weighed())
    with open(tmp_path / "journal.log", "ab") as f:
        f.write(b'{"op_code":4,"worker')
    mended = study(tmp_path)
    assert len(mended.done()) == 1
    more = mended.take(2)
    assert more is not None
    mended.finish(more, weighed())
    assert len(study(tmp_path).done()) == 2


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_text("no JSON\nat all\n")
    with pytest.raises(StoreError, match=r"journal\.log: cannot be read \(.*\); delete it: finished steps are kept"):
        study(tmp_path)


def test_what_is_proposed_comes_first_and_once(tmp_path: Path) -> None:
    first = {"quantize.precision": '"fp32"', "distill.arguments.width": "1.25"}
    for _ in range(2):
        study(tmp_path).propose([first], 5)
    seen = []
    for _ in range(3):
        one = study(tmp_path)
        taken = one.take(3)
        assert taken is not None
        one.finish(taken, weighed())
        seen.append(taken.values)
    assert seen[0] == first
    assert seen.count(first) == 1


def test_all_combinations_are_tried_where_they_are_few(tmp_path: Path) -> None:
    parameters = parse_space({"quantize.precision": ["int8", "fp32"], "quantize.effort": ["fast", "best"]})
    seen = set()
    for _ in range(4):
        one = Study(tmp_path, parameters, 3)
        one.propose([], 4)
        taken = one.take(4)
        assert taken is not None
        one.finish(taken, weighed())
        seen.add(tuple(taken.values.items()))
    assert len(seen) == 4


def test_the_same_values_are_known(tmp_path: Path) -> None:
    one, values = study(tmp_path), {"quantize.precision": '"int8"', "distill.arguments.width": "0.5"}
    one.propose([values], 9)
    taken = one.take(9)
    assert taken is not None
    assert one.like(values) is None
    one.finish(taken, weighed())
    known = study(tmp_path).like(values)
    assert known is not None
    assert known.outcome == weighed()


def test_the_front_is_of_trials_that_meet_the_budgets(tmp_path: Path) -> None:
    one = study(tmp_path)
    outcomes = [
        weighed(0.9, 2.0),
        weighed(0.9, 1.0),  # as good and faster than the one before
        weighed(0.95, 3.0),
        weighed(0.5, 0.1, 10, MISS),
        Outcome(state="stopped", misses=(MISS,)),
        Outcome(state="failed", reason="no"),
    ]
    for outcome in outcomes:
        taken = one.take(9)
        assert taken is not None
        one.finish(taken, outcome)
        if outcome is outcomes[0]:
            assert one.front() == [0]
    assert one.front() == [1, 2]
    assert [done.outcome.state for done in study(tmp_path).done()] == [o.state for o in outcomes]


def test_where_none_meets_them_the_front_is_of_all(tmp_path: Path) -> None:
    one = study(tmp_path)
    taken = one.take(1)
    assert taken is not None
    one.finish(taken, weighed(0.5, 1.0, 10, MISS))
    assert one.front() == [0]
