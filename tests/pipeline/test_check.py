"""What is refused before anything runs, and what a check gets to see."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.pipeline.check import check_build, rehearse_build
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job, Metrics, Output, Setup, Stage, Step, Tree
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.live import QuietWatcher

from .conftest import BOARD, Events, NumberParams, Toy


def loading(source: Any, **rules: Any) -> Build:
    """A step of a user's file, and one of what it gives."""
    load = Stage("load", 1, NumberParams, ("file",), ("x",), lambda job: {}, **rules)
    use = Stage("use", 1, NumberParams, ("x", "file"), ("y",), lambda job: {}, **rules)
    steps = [
        Step("load-it", load, NumberParams(1), {"file": source}),
        Step("use-it", use, NumberParams(2), {"x": Output("load-it", "x"), "file": source}),
    ]
    return Build("board", BOARD, steps, {"whole": True})


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^load-it: file .*none does not exist; correct the path in deploy\.toml$"):
        check_build(loading(tmp_path / "none"))


def test_a_tree_says_itself_what_is_missing(tmp_path: Path) -> None:
    def names(root: Path) -> list[str]:
        raise DataError(f"{root.name} is no data set")

    with pytest.raises(DataError, match=r"^none is no data set$"):
        check_build(loading(Tree(tmp_path / "none", names)))
    with pytest.raises(ConfigError, match=r"load-it: file .*none does not exist"):
        check_build(loading(Tree(tmp_path / "none", lambda root: [])))


@pytest.mark.parametrize("kind", ["file", "tree"])
def test_a_check_sees_what_was_configured(tmp_path: Path, kind: str) -> None:
    seen: list[Setup[NumberParams]] = []
    (tmp_path / "a").write_text("x")
    source: Any = tmp_path / "a" if kind == "file" else Tree(tmp_path, lambda root: ["a"])
    build = loading(source, check=seen.append)
    check_build(build)
    root = tmp_path / "a" if kind == "file" else tmp_path
    assert seen == [
        Setup(NumberParams(number), {"file": root}, {"whole": True}, BOARD)  # type: ignore[arg-type]
        for number in (1, 2)
    ]
    check_build(loading(source))  # a stage may have nothing to check


def test_what_a_check_raises_names_the_step(tmp_path: Path) -> None:
    def refuse(setup: Setup[NumberParams]) -> None:
        raise DataError("no labels")

    for kind, examine in (("check", check_build), ("rehearse", lambda b: rehearse_build(b, Store(tmp_path / "s")))):
        build = loading(tmp_path, **{kind: refuse})
        with pytest.raises(DataError, match=r"^load-it: no labels$"):
            examine(build)
        other = "rehearse" if kind == "check" else "check"
        examine(loading(tmp_path, **{other: refuse}))


def test_what_is_cached_is_not_rehearsed(toy: Toy, store: Store, events: Events) -> None:
    rehearsed: list[int] = []

    def build(value: int, last: int = 1) -> Build:
        steps = toy.steps(value, versions=(1, 1, last))
        stages = [
            dataclasses.replace(s.stage, rehearse=lambda setup, n=n: rehearsed.append(n)) for n, s in enumerate(steps)
        ]
        return dataclasses.replace(
            toy.build(value), steps=[dataclasses.replace(s, stage=g) for s, g in zip(steps, stages, strict=True)]
        )

    run_build(build(3), store, events)
    assert rehearsed == [0, 1, 2]  # once, for all of them, before the first
    texts = [f"what can be known of {name} before anything runs" for name in ("number", "parity", "scale")]
    assert events.rehearsed == [*((i, 3, text) for i, text in enumerate(texts)), (3, 3, "")]
    run_build(build(3), store, events)
    assert rehearsed == [0, 1, 2]
    rehearse_build(build(3, last=2), store)
    assert rehearsed == [0, 1, 2, 2]
    rehearse_build(build(4), store)
    assert rehearsed == [0, 1, 2, 2, 0, 1, 2]


def test_only_steps_that_would_run_are_rehearsed_and_before_the_first(tmp_path: Path) -> None:
    log: list[str] = []

    def stage(name: str) -> Stage[NumberParams]:
        def run(job: Job[NumberParams]) -> Metrics:
            log.append(f"run {name}")
            (job.out / "x").write_text(name)
            return {}

        def rehearse(setup: Setup[NumberParams]) -> None:
            log.append(f"rehearse {name}")
            if setup.params.value < 0:
                raise DataError(f"value is {setup.params.value}")

        return Stage(
            name, 1, NumberParams, (), ("x",), run, check=lambda setup: log.append(f"check {name}"), rehearse=rehearse
        )

    def build(second: int) -> Build:
        steps = [Step("one", stage("one"), NumberParams(), {}), Step("two", stage("two"), NumberParams(second), {})]
        return Build("b", None, steps, {})

    store = Store(tmp_path)
    with pytest.raises(DataError, match=r"two: value is -1"):
        run_build(build(-1), store, QuietWatcher(print))
    assert log == ["rehearse one", "rehearse two"]
    log.clear()
    run_build(build(1), store, QuietWatcher(print))
    assert log == ["rehearse one", "rehearse two", "run one", "run two"]
    log.clear()
    run_build(build(2), store, QuietWatcher(print))
    assert log == ["rehearse two", "run two"]
    log.clear()
    run_build(build(2), store, QuietWatcher(print))
    assert log == []
    check_build(build(2))
    assert log == ["check one", "check two"]
