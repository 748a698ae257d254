"""The plan says what would run and why, and garbage collection keeps what it needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.collect import collect_garbage
from dlx_deploy.pipeline.plan import Build, Planned, plan
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job, Metrics, Stage, Step, Tree
from dlx_deploy.pipeline.store import Store

from .conftest import Board, Events, NumberParams, Toy


def reasons(planned: list[Planned]) -> dict[str, str]:
    return {p.step.name: p.why if p.action == "run" else "hit" for p in planned}


def test_an_empty_store(toy: Toy, store: Store) -> None:
    assert reasons(plan(toy.build(3), store)) == {
        "number": "never built",
        "parity": "needs number, not built yet",
        "scale": "needs parity, not built yet",
    }
    assert not store.root.exists()  # a plan writes nothing


def test_a_parameter(toy: Toy, store: Store, events: Events) -> None:
    run_build(toy.build(3), store, events)
    assert set(reasons(plan(toy.build(3), store)).values()) == {"hit"}
    assert reasons(plan(toy.build(4), store))["number"] == "params.value: 3 → 4"


def test_the_nearest_earlier_build_explains(toy: Toy, store: Store, events: Events) -> None:
    run_build(toy.build(3), store, events)
    run_build(toy.build(5, versions=(2, 1, 1)), store, events)
    assert reasons(plan(toy.build(6, versions=(2, 1, 1)), store))["number"] == "params.value: 5 → 6"
    assert reasons(plan(toy.build(3, versions=(3, 1, 1)), store))["number"] == "version: 1 → 3"


def test_what_other_steps_were_explains_nothing(toy: Toy, store: Store, events: Events) -> None:
    run_build(toy.build(3), store, events)
    number = toy.steps(4)[0]
    for name in ("before", "queue", "zoo"):  # in the alphabet around number, parity and scale
        (planned,) = plan(Build("board", Board(), [dataclasses.replace(number, name=name)], {}), store)
        assert planned.why == "never built"


def test_the_target(toy: Toy, store: Store, events: Events) -> None:
    run_build(toy.build(3), store, events)
    assert reasons(plan(toy.build(3, target=Board(factor=7)), store)) == {
        "number": "hit",
        "parity": "hit",
        "scale": "target.factor: 10 → 7",
    }


def test_another_target(toy: Toy, store: Store, events: Events) -> None:
    run_build(toy.build(3), store, events)
    other = Build("other", Board(factor=7), toy.steps(3), {})
    assert reasons(plan(other, store)) == {"number": "hit", "parity": "hit", "scale": "never built for other"}
    changed = Build("other", Board(factor=7), toy.steps(4), {})
    assert reasons(plan(changed, store))["number"] == "params.value: 3 → 4"


def test_an_input_says_where_it_comes_from(toy: Toy, store: Store, events: Events) -> None:
    run_build(Build("b", Board(), toy.steps(3)[:2], {}), store, events)
    run_build(Build("b", Board(), toy.steps(4)[:1], {}), store, events)
    why = reasons(plan(Build("b", Board(), toy.steps(4)[:2], {}), store))["parity"]
    assert why.startswith("input n (from number) changed: ")


def test_a_user_file(store: Store, events: Events, tmp_path: Path) -> None:
    def copy(job: Job) -> Metrics:
        (job.out / "x").write_bytes(job.inputs["file"].read_bytes())
        return {}

    file = tmp_path / "model.py"
    file.write_text("one")
    step = Step("load", Stage("load", 1, NumberParams, ("file",), ("x",), copy), NumberParams(), {"file": file})
    build = Build("b", None, [step], {})
    run_build(build, store, events)
    file.write_text("two")
    assert reasons(plan(build, store))["load"].startswith(f"input file ({file}) changed: ")


def test_only_the_files_that_count(store: Store, events: Events, tmp_path: Path) -> None:
    def copy(job: Job) -> Metrics:
        (job.out / "x").write_bytes((job.inputs["folder"] / "a.png").read_bytes())
        return {}

    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_text("one")
    tree = Tree(folder, lambda root: sorted(p.name for p in root.glob("*.png")))
    stage = Stage("load", 1, NumberParams, ("folder",), ("x",), copy)
    build = Build("b", None, [Step("load", stage, NumberParams(), {"folder": tree})], {})
    run_build(build, store, events)
    (folder / "notes.txt").write_text("does not count")
    assert reasons(plan(build, store)) == {"load": "hit"}
    (folder / "b.png").write_text("counts")
    assert reasons(plan(build, store))["load"].startswith(f"input folder ({folder}) changed: ")


def test_collection_keeps_the_newest_build_of_each_target(toy: Toy, store: Store, events: Events) -> None:
    run_build(toy.build(3), store, events)
    run_build(toy.build(4), store, events)
    dry = collect_garbage(store, dry_run=True)
    assert (len(dry.removed), dry.kept) == (3, 3)
    assert dry.freed_bytes > 0
    assert len(store.keys()) == 6
    done = collect_garbage(store)
    assert done == dry
    assert set(reasons(plan(toy.build(4), store)).values()) == {"hit"}
    assert reasons(plan(toy.build(3), store))["number"] == "params.value: 4 → 3"


def test_collection_takes_left_over_work_and_checkpoints(toy: Toy, store: Store, events: Events) -> None:
    run_build(toy.build(3), store, events)
    dead, wanted = "d" * 64, "a" * 64
    for folder in (store.checkpoints(dead), store.checkpoints(wanted), store.root / "store" / f".work-{dead}-x1"):
        folder.mkdir(parents=True)
        (folder / "epoch.bin").write_bytes(b"12345")
    collected = collect_garbage(store, also_keep=[wanted])
    assert (collected.removed, collected.freed_bytes) == ((dead,), 10)
    assert store.checkpoints(wanted).exists()
    assert not store.checkpoints(dead).exists()


def test_many_differences_are_counted(store: Store, events: Events) -> None:
    class Many(msgspec.Struct, frozen=True):
        a: int = 0
        b: int = 0
        c: int = 0
        d: int = 0
        e: int = 0
        f: int = 0

    def build(params: Many) -> Build:
        stage = Stage("s", 1, Many, (), ("x",), lambda job: {"n": float((job.out / "x").write_text("x"))})
        return Build("b", None, [Step("s", stage, params, {})], {})

    run_build(build(Many()), store, events)
    four = "params.a: 0 → 1; params.b: 0 → 1; params.c: 0 → 1; params.d: 0 → 1"
    assert reasons(plan(build(Many(1, 1, 1, 1)), store))["s"] == four
    assert reasons(plan(build(Many(1, 1, 1, 1, 1)), store))["s"] == f"{four}; and 1 more"
    assert reasons(plan(build(Many(1, 1, 1, 1, 1, 1)), store))["s"] == f"{four}; and 2 more"


def test_provenance_is_said_to_be_how_it_was_made(toy: Toy, store: Store, events: Events) -> None:
    for value in (3, 5):
        run_build(toy.build(value), store, events)
    steps = toy.steps(7)
    run_build(Build("board", Board(), steps[:2], {}), store, events)
    why = reasons(plan(Build("board", Board(), steps, {}), store))["scale"]
    assert why.startswith("input provenance (how it was made) changed: ")
    assert "; " not in why


def test_provenance_is_pinned(toy: Toy, store: Store, events: Events) -> None:
    result = run_build(toy.build(3), store, events)
    shipped = msgspec.json.decode((result.outputs["scale"]["result"] / "provenance.json").read_bytes())
    assert (shipped["schema"], sorted(shipped["steps"])) == (1, ["number", "parity"])
    number = result.manifest.steps[0]
    document = msgspec.to_builtins(number.document)
    assert shipped["steps"]["number"] == {"key": number.key, **document, "tool_versions": number.tools}


def test_what_cannot_be_read_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, names: list[str] | None = None) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(store, "digest_of", refuse)
    stage = Stage("load", 1, NumberParams, ("file",), ("x",), lambda job: {})
    for source in (tmp_path, Tree(tmp_path, lambda root: ["a"])):
        build = Build("b", None, [Step("load", stage, NumberParams(), {"file": source})], {})
        with pytest.raises(ConfigError, match=r"^load: file .* cannot be read: Permission denied$"):
            plan(build, store)
