"""Stages by name, ours and those of other packages."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Metrics, Stage
from dlx_deploy.stages.registry import STAGES, load_stage
from dlx_deploy.stages.support.training import NoParams


def run(job: object) -> Metrics:
    return {}


PAINT = Stage("paint", 1, NoParams, (), ("x",), run, bind=lambda config, profile, upstream: [])
UNBOUND = Stage("paint", 1, NoParams, (), ("x",), run)


def offer(monkeypatch: pytest.MonkeyPatch, stage: object) -> None:
    module = ModuleType("paints")
    module.STAGE = stage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "paints", module)
    point = EntryPoint("paint", "paints:STAGE", "dlx_deploy.stages")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == point.group else [])


def test_a_stage_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, PAINT)
    assert load_stage("paint") is PAINT
    with pytest.raises(ConfigError, match=r"stage 'pain' is not known; nearest valid name: 'paint'; or install"):
        load_stage("pain")


@pytest.mark.parametrize("value", [UNBOUND, "a stage", run])
def test_what_is_no_stage(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    offer(monkeypatch, value)
    with pytest.raises(ConfigError, match=r"entry point 'paints:STAGE' gives .*; rule: a Stage called 'paint' that"):
        load_stage("paint")


def test_what_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, PAINT)
    del sys.modules["paints"].STAGE
    with pytest.raises(ConfigError, match=r"stage 'paint': entry point 'paints:STAGE' cannot be loaded .*; reinstall"):
        load_stage("paint")


def test_other_packages_are_not_asked_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(group: str) -> list[EntryPoint]:
        raise AssertionError(group)

    monkeypatch.setattr("importlib.metadata.entry_points", refuse)
    assert [load_stage(name).name for name in STAGES] == list(STAGES)
