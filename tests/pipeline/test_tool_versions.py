"""Versions of tools: what counts, whose patch made a result, and what --exact-tools does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from dlx_deploy.pipeline.key import counted, key_document, key_of
from dlx_deploy.pipeline.manifest import latest_manifests
from dlx_deploy.pipeline.plan import Build, plan
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job, Metrics, Output, Provenance, Stage, Step
from dlx_deploy.pipeline.store import Store

from ..devices.fake import FakeDevice
from .conftest import Board, Events, NoParams, NumberParams


class Versions(dict[str, str]):
    """What is installed, as far as a test says."""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Versions:
    versions = Versions(made="1.4.0", other="0.8.0")
    monkeypatch.setattr("dlx_deploy.pipeline.key._installed", versions.__getitem__)
    return versions


class Work:
    """train → use, whose second step only sees the bytes of the first."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.text = "weights"

    def train(self, job: Job[NumberParams]) -> Metrics:
        self.ran.append("train")
        (job.out / "w").write_text(self.text)
        return {}

    def use(self, job: Job[NoParams]) -> Metrics:
        self.ran.append("use")
        (job.out / "x").write_bytes(job.inputs["w"].read_bytes())
        if "provenance" in job.inputs:
            (job.out / "x").write_bytes(job.inputs["provenance"].read_bytes())
        return {}

    def build(self, exact: bool = False, provenance: bool = False) -> Build:
        train = Stage("train", 1, NumberParams, (), ("w",), self.train, tools=("made", "other"))
        use = Stage("use", 1, NoParams, ("w", "provenance"), ("x",), self.use)
        inputs: dict[str, Any] = {"w": Output("train", "w")}
        if provenance:
            inputs["provenance"] = Provenance()
        steps = [Step("train", train, NumberParams(), {}), Step("use", use, NoParams(), inputs)]
        return Build("board", Board(), steps, {}, **({"exact_tools": True} if exact else {}))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.9.1", "2.9"),
        ("2.9", "2.9"),
        ("0.8.1", "0.8"),
        ("1.32.0.1", "1.32"),
        ("2.9.1.post2", "2.9"),
        ("2.9.1+cpu", "2.9+cpu"),
        ("1!2.3.4", "1!2.3"),
        ("0.0.3", "0.0.3"),
        ("2.10.0rc1", "2.10.0rc1"),
        ("2.10.0a0+git12", "2.10.0a0+git12"),
        ("2.10.0.dev20261101", "2.10.0.dev20261101"),
        ("7", "7"),
        ("missing", "missing"),
    ],
)
def test_what_of_a_version_counts(version: str, expected: str) -> None:
    assert counted(version) == expected


def test_tools_and_outputs_are_in_the_key(installed: Versions) -> None:
    def key(outputs: tuple[str, ...] = ("w",), tools: tuple[str, ...] = ("made",)) -> str:
        stage = Stage("s", 1, NumberParams, (), outputs, Work().train, tools=tools)
        return key_of(key_document(stage, NumberParams(), {}, Board(), 0, {}))

    first = key()
    assert key(outputs=("w", "v")) != first
    assert key(tools=("made", "other")) != first
    installed["made"] = "1.4.7"
    assert key() == first
    for version in ("1.5.0", "2.4.0", "1.4.0+cuda", "1.4.0rc1"):
        installed["made"] = version
        assert key() != first, version


def test_a_patch_version_reuses_and_says_so(installed: Versions, store: Store, events: Events) -> None:
    work = Work()
    run_build(work.build(), store, events)
    installed["other"] = "0.8.1"
    first, second = plan(work.build(), store)
    assert (first.action, first.why) == ("hit", "cached, made with other 0.8.0 (0.8.1 is here)")
    assert (second.action, second.why) == ("hit", "cached")
    run_build(work.build(), store, events)
    assert work.ran == ["train", "use"]
    entry = latest_manifests(store)["board"].steps[0]
    assert (entry.status, entry.why) == ("cached", "cached, made with other 0.8.0 (0.8.1 is here)")
    assert entry.tools == {"made": "1.4.0", "other": "0.8.0"}
    assert entry.document.tools == {"made": "1.4", "other": "0.8"}


def test_a_minor_version_counts(installed: Versions, store: Store, events: Events) -> None:
    work = Work()
    run_build(work.build(), store, events)
    installed["other"] = "0.9.0"
    assert plan(work.build(), store)[0].why == "tools.other: '0.8' → '0.9'"


def test_the_strict_rule(installed: Versions, store: Store, events: Events) -> None:
    work = Work()
    run_build(work.build(), store, events)
    assert {p.action for p in plan(work.build(exact=True), store)} == {"hit"}  # the same versions: nothing to do
    installed["other"] = "0.8.1"
    first, second = plan(work.build(exact=True), store)
    assert (first.action, first.why) == ("run", "made with other 0.8.0 (0.8.1 is here), and --exact-tools is set")
    assert (second.action, second.why) == ("run", "needs train, not built yet")
    run_build(work.build(exact=True), store, events)
    assert work.ran == ["train", "use", "train"]  # the same bytes again: what follows is found
    assert latest_manifests(store)["board"].steps[0].tools["other"] == "0.8.1"
    assert {p.action for p in plan(work.build(exact=True), store)} == {"hit"}
    installed["other"], work.text = "0.8.2", "other weights"
    run_build(work.build(exact=True), store, events)
    assert work.ran[3:] == ["train", "use"]  # other bytes: what follows has another key


def test_provenance_names_the_versions_that_made_it(installed: Versions, store: Store, events: Events) -> None:
    work = Work()
    result = run_build(work.build(provenance=True), store, events)
    shipped = result.outputs["use"]["x"].read_bytes()
    step = msgspec.json.decode(shipped)["steps"]["train"]
    assert step["tool_versions"] == {"made": "1.4.0", "other": "0.8.0"}
    installed["other"] = "0.8.1"
    again = run_build(work.build(provenance=True), store, events)
    assert again.outputs["use"]["x"].read_bytes() == shipped  # what was not made again is not renamed


@pytest.mark.parametrize("here", [False, True])
def test_the_device_counts_where_it_is_measured(store: Store, events: Events, here: bool) -> None:
    def key(cpu: str) -> str | None:
        stage = Stage("time", 1, NumberParams, (), ("w",), Work().train, measures_host=here)
        step = Step("time", stage, NumberParams(), {})
        return plan(Build("b", Board(), [step], {}, host={"cpu": cpu}, device=FakeDevice(cpu)), store)[0].key

    assert (key("a") != key("b")) is here


def stored(store: Store) -> Path:
    (key,) = store.keys()
    return store.output_path(key, "record.json")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"value": 1.0', '"value": 2.0'),
        ('"seconds": ', '"seconds": 1'),
        ('"step": "number"', '"step": "nomber"'),
    ],
    ids=["metrics", "seconds", "step"],
)
def test_a_tampered_record_is_damaged(store: Store, events: Events, old: str, new: str) -> None:
    def run(job: Job[NumberParams]) -> Metrics:
        (job.out / "n").write_text("1")
        return {"value": 1.0}

    build = Build("b", None, [Step("number", Stage("s", 1, NumberParams, (), ("n",), run), NumberParams(), {})], {})
    run_build(build, store, events)
    record = stored(store)
    assert old in record.read_text()
    record.chmod(0o644)
    record.write_text(record.read_text().replace(old, new, 1))
    (planned,) = plan(build, Store(store.root))
    assert planned.why == (
        "its entry in the store is damaged: record.json was changed after it was written (its own SHA-256 differs)"
    )
    run_build(build, store, events)
    assert plan(build, store)[0].action == "hit"
    assert old in record.read_text()


@pytest.mark.parametrize("part", ["params", "inputs", "tools", "seed"])
def test_a_tampered_document_is_not_the_key_s(store: Store, events: Events, part: str) -> None:
    work = Work()
    stage = Stage("s", 1, NumberParams, (), ("w",), work.train, tools=("msgspec",))
    build = Build("b", None, [Step("number", stage, NumberParams(), {})], {})
    run_build(build, store, events)
    record = stored(store)
    values = msgspec.json.decode(record.read_bytes())
    values["document"][part] = 7 if part == "seed" else {"value": "7"}
    record.chmod(0o644)
    record.write_bytes(msgspec.json.encode(values))
    assert "record.json does not belong to its key" in plan(build, Store(store.root))[0].why
    run_build(build, store, events)
    assert work.ran == ["train", "train"]


def test_what_is_stored_cannot_be_written_by_accident(store: Store, events: Events) -> None:
    def run(job: Job[NumberParams]) -> Metrics:
        (job.out / "folder" / "deep").mkdir(parents=True)
        (job.out / "folder" / "deep" / "file").write_text("x")
        return {}

    stage = Stage("s", 1, NumberParams, (), ("folder",), run)
    run_build(Build("b", None, [Step("s", stage, NumberParams(), {})], {}), store, events)
    files = [f for f in stored(store).parent.rglob("*") if f.is_file()]
    assert {f.name for f in files} == {"record.json", "file"}
    assert {f.stat().st_mode & 0o777 for f in files} == {0o444}
