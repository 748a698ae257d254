"""The plan says what would run and why, and garbage collection keeps what it needs."""

from __future__ import annotations

from pathlib import Path

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
