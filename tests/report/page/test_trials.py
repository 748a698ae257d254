"""What was tried, on the page and in a terminal: graphs of quantization, and the trials of a search."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from dlx_deploy.errors import StoreError
from dlx_deploy.graph.quantization.trials import Trial, Trials, written
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.manifest import Manifest
from dlx_deploy.report.page.beside import identity_of
from dlx_deploy.report.page.render import render
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.report.page.searched import searched_of
from dlx_deploy.report.page.sections import page_of
from dlx_deploy.report.page.weights import quantization_of
from dlx_deploy.report.studies import study_path

from .reports import large, searched, small
from .test_page import Strict


def words(report: BuildReport) -> str:
    return " ".join(" ".join(Strict(render(page_of(report, "0" * 64))).words).split())


def svg_texts(report: BuildReport, name: str) -> str:
    plots = re.findall(r"<svg.*?</svg>", render(page_of(report, "0" * 64)), re.DOTALL)
    return next(plot for plot in plots if f'id="{name}-title"' in plot)


def manifest(**search: object) -> Manifest:
    config = {"search": search, "distill": {"model": "a 2"}}
    return Manifest(
        schema=1, dlx_deploy="0", target_name="board", target={}, config=config, host={}, started="", status="done"
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    trials = searched().trials
    path = study_path(tmp_path, "study-1")
    path.parent.mkdir(parents=True)
    path.write_bytes(canonical_json(trials))
    return tmp_path


def test_a_build_of_a_choice_knows_its_study(store: Path) -> None:
    found = searched_of(manifest(study="study-1", trial=2), store)
    assert found is not None
    assert (found.trial, found.changed) == (2, ())
    assert found.trials == searched().trials
    other = searched_of(manifest(study="study-1", trial=3), store)
    assert other is not None
    assert other.changed == ('distill.model is "a 2", and was a 3 in the trial',)
    gone = searched_of(manifest(study="study-2", trial=2), store)
    assert gone is not None
    assert gone.trials is None
    assert searched_of(manifest(), store) is None
    assert searched_of(manifest(study="../../elsewhere"), store) is None, "no path out of the store"


def test_a_study_that_cannot_be_read_is_named(store: Path) -> None:
    path = study_path(store, "study-1")
    path.write_text("{")
    with pytest.raises(StoreError, match=r"trials.json: cannot be read .*; run the search again, which writes it anew"):
        searched_of(manifest(study="study-1"), store)
    newer = msgspec.to_builtins(searched().trials) | {"schema": 2}
    path.write_bytes(canonical_json(newer))
    with pytest.raises(StoreError, match=r"trials.json: .*schema is 2"):
        searched_of(manifest(study="study-1"), store)


def test_another_trial_draws_the_page_anew(store: Path) -> None:
    one = manifest(study="study-1", trial=2)
    few = msgspec.structs.replace(searched(), trials=searched(trials=9).trials)
    assert len({identity_of(one), identity_of(one, searched()), identity_of(one, few)}) == 3


def test_the_trials_are_shown_with_this_builds_among_them() -> None:
    report = msgspec.structs.replace(small(), search=searched())
    seen = words(report)
    assert "The configuration is trial 2 of study study-1, chosen by latency of those that meet the budgets." in seen
    assert "It was changed since: distill.model is a, and was 3." in seen
    assert "40 trials: 39 weighed, 1 failed; by 144 samples of the validation split" in seen
    assert "39 trials, 2 on the front. This build is of trial 2: 80.20 %, 4.80 ms, 2.0 KiB." in seen
    assert "→ 2 a 2 80.20 % 3.00 points 4.80 ms 2.0 KiB met" in seen
    drawn = svg_texts(report, "pareto")
    assert ">budget p90<" in drawn
    assert "budget p99" not in drawn, "far to the right of every trial"
    text = report.text.splitlines()
    at = next(i for i, line in enumerate(text) if line.startswith("trial  model"))
    assert [line.split()[:2] for line in text[at + 2 : at + 4]] == [["→", "2"], ["○", "5"]]
    assert text[at + 41].split()[:3] == ["0", "a", "-"], "what came to no end is last"
    lost = msgspec.structs.replace(report, search=msgspec.structs.replace(searched(), trials=None, changed=()))
    assert "of study study-1, whose trials are not in this store." in words(lost)
    assert "pareto" not in words(lost)


def test_what_quantization_tried_is_a_trace_against_its_budget() -> None:
    text = large().text
    assert "4 graphs were tried on 0 samples of the validation split." in text
    assert "missed  4.00 ms (measured)  chosen" in text
    assert "The budget allows no less than 93.00 %." in svg_texts(large(), "trace")


def test_the_graph_that_ships_is_the_chosen_one(tmp_path: Path) -> None:
    """The last trial need not be it: others that keep to the budget are tried after."""
    common = {"int8_macs": 0.5, "drop": 0.0, "drop_upper": 0.0}
    tried = [
        Trial(restored=names, int8_layers=9, score=0.9, verdict="met", **common)
        for names in ((), ("a",), ("a", "b"))
    ]  # fmt: skip
    path = tmp_path / "trials.json"
    path.write_bytes(written(Trials(trials=tuple(tried), restored=("a",))))
    found = quantization_of({"quantize": {"trials.json": path}})
    assert found is not None
    assert [point.chosen for point in found.points] == [False, True, False]
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"precision": "fp32"}')
    found = quantization_of({"quantize": {"trials.json": path}, "compile": {"recipe.json": recipe}})
    assert found is not None
    assert not any(point.chosen for point in found.points), "nothing in INT8 ships"


def test_how_timings_are_spread_is_drawn_told_and_written() -> None:
    report = small()
    said = "201 timings of quantized on a board: 1.50 ms to 13.5 ms; p50 1.58 ms, p90 1.64 ms, p99 1.65 ms"
    assert said in report.text
    assert re.search(r"1\.50 ms \|[▁-█ ]{10,32}\| 1\.\d\d ms, 1 slower", report.text)
    drawn = svg_texts(report, "spread-0")
    assert f"{said}." in drawn
    assert ">p99 1.65 ms<" in drawn
    assert "Further right: 1 of the timings, up to 13.5 ms." in words(report)
    assert "p99 p99 lower p99 upper" in words(report), "the numbers behind the percentiles"
    without = msgspec.structs.replace(report, models=None)
    assert "timings of" not in without.text
    assert "spread-0" not in render(page_of(without, "0" * 64))
