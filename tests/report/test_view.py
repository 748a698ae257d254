"""Views: what each command says is one value, and its text and its JSON say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlx_deploy.building import load_work
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.collect import Collected
from dlx_deploy.report.plans import view_plan, view_step
from dlx_deploy.report.stores import CollectedView, view_status
from dlx_deploy.report.targets import view_target, view_targets
from dlx_deploy.report.view import to_json
from dlx_deploy.runtime.views import Outcome, View


@pytest.fixture
def views(tmp_path: Path) -> dict[str, View]:
    work = load_work(None, ["jetson", "rpi5"], [], tmp_path / ".dlx")
    return {
        "plan": view_plan(work.builds, work.store),
        "why": view_step(work.builds, work.store, "data"),
        "gc": CollectedView(Collected((), 3, 0, ()), dry_run=True),
        "targets": view_targets(),
        "target": view_target("jetson"),
        "package": Outcome({"schema": 1}, "a package"),
    }


def test_what_targets_share_is_said_once_to_people_and_to_programs_for_each(views: dict[str, View]) -> None:
    data = json.loads(to_json(views["plan"].data))
    assert [row["target"] for row in data if row["step"] == "teacher"] == ["jetson-orin-nano-8gb", "rpi5"]
    assert set(data[0]) == {"target", "step", "action", "why", "key"}
    assert views["plan"].text.count("\nteacher ") == 1
    assert views["plan"].text.count("\nverify ") == 2


def test_a_step_is_explained_for_each_target(views: dict[str, View]) -> None:
    data = json.loads(to_json(views["why"].data))
    assert [row["document"]["stage"] for row in data] == ["data", "data"]
    assert views["why"].text.count(f"key {data[0]['key']}") == 2


def test_every_view_renders_both_ways(views: dict[str, View]) -> None:
    for view in views.values():
        assert json.loads(to_json(view.data)) is not None
        assert view.text == view.text.rstrip()
    assert views["gc"].text == "would free 0 B: 0 entries; 3 are kept"
    assert json.loads(to_json(views["target"].data))["name"] == "jetson-orin-nano-8gb"
    assert "jetson is an alias of jetson-orin-nano-8gb" in views["target"].text
    assert set(json.loads(to_json(views["targets"].data))) == {"targets", "aliases"}


def test_an_empty_store_has_no_status(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no build in .*; start one with: dlx-deploy build --target jetson"):
        view_status(tmp_path)
