"""How training went is in the record of a step, and in no key."""

from __future__ import annotations

import json

import pytest
from msgspec import UNSET

from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.pipeline.store import Store

from .conftest import Events, Toy


def test_curves_are_recorded_and_change_no_key(toy: Toy, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_build(toy.build(), store, Events()).manifest.steps
    assert {step.curves for step in before} == {UNSET}
    assert "curves" not in (store.root / "store" / before[0].key / "record.json").read_text()
    for step in before:
        store.remove(step.key)

    def keeping(run: object, job: Job) -> tuple[object, None]:
        job.keep_curves({"loss": [0.123456789, 0.1]})
        return run(job), None

    monkeypatch.setattr("dlx_deploy.pipeline.run.with_peak", keeping)
    built = run_build(toy.build(), store, Events()).manifest.steps
    assert [(step.key, step.outputs) for step in built] == [(step.key, step.outputs) for step in before]
    assert [step.curves for step in built] == [{"loss": (0.123457, 0.1)}] * len(built)
    folder = store.root / "store" / built[0].key
    assert json.loads((folder / "record.json").read_text())["curves"] == {"loss": [0.123457, 0.1]}
    assert {path.name for path in folder.iterdir()} == {"record.json", *built[0].outputs}
    again = run_build(toy.build(), store, Events()).manifest.steps
    assert [(step.status, step.curves) for step in again] == [("cached", step.curves) for step in built]
