"""What a build came to, as text and as data."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec import UNSET

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.key import KeyDocument
from dlx_deploy.pipeline.manifest import Manifest, StepEntry
from dlx_deploy.report.builds import BuildView, EngineSummary, PrecisionSummary, _lost
from dlx_deploy.report.results import Results
from dlx_deploy.report.view import to_json


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"files_left_out": 0.0, "test_images": 9.0}, ""),
        ({"files_left_out": 12.0, "copies_left_out": 0.0, "leaked_images": 3.0}, "12 files left out, 3 leaked images"),
    ],
)
def test_what_was_left_out_of_the_data_is_in_the_summary(metrics: dict[str, float], said: str) -> None:
    entry = StepEntry(
        step="data",
        status="cached",
        why="cached",
        key="0" * 64,
        document=KeyDocument(1, "data", 1, 0, {}, {}, [], {}, {}, {}),
        outputs={},
        metrics=metrics,
        started="",
        seconds=0.1,
    )
    manifest = Manifest(
        schema=1, dlx_deploy="1", target_name="t", target=None, config=None, host={}, started="", status="done"
    )
    assert _lost(manifest) == {}
    lost = _lost(msgspec.structs.replace(manifest, steps=(entry,)))
    assert [line for line in view(data_lost=lost).text.splitlines() if line.startswith("Data:")] == (
        [f"Data: {said}."] if said else []
    )


def view(**changes: object) -> BuildView:
    """A build that made a package, with ``changes``."""
    results = Results(
        target="board",
        metric="top1",
        metric_title="top-1",
        test_samples=9,
        judge="native",
        confidence=0.95,
        latency_kind="measured",
        latency_where="a board",
        rows=(),
    )
    made = BuildView(
        target="board",
        status="done",
        package="dist/a.dlx",
        superseded=None,
        seconds=1.5,
        ran=3,
        cached=8,
        results=results,
        gates=(),
        notes=("a word",),
        engine=EngineSummary(status="none", reason="none wanted"),
        precision=PrecisionSummary(plan="int8", reason="the target runs INT8"),
        data_lost={},
        size_bytes=2048,
        teacher_size_ratio=4.0,
    )
    return msgspec.structs.replace(made, **changes)


def test_a_package_is_named_with_its_size() -> None:
    last = view().text.splitlines()[-1]
    assert last == "dist/a.dlx  2.0 KiB, the teacher's ONNX is 4.0 times as large; 3 stages ran, 8 cached, 1.5 s"
    small = view(teacher_size_ratio=0.4)
    assert "dist/a.dlx  2.0 KiB; 3 stages ran" in small.text


def test_without_a_package_the_gate_is_named_and_no_size_is_given() -> None:
    gate = GateResult(gate="accuracy", metric="m", value=0.1, bound=0.2, limit=0.0, verdict="fail", text="missed")
    stopped = view(
        package=None, superseded="dist/a.dlx.superseded", gates=(gate,), size_bytes=UNSET, teacher_size_ratio=UNSET
    )
    assert "Gate accuracy: fail.\n" in stopped.text
    assert "no package: a gate did not pass (accuracy); that of an earlier build is now dist/a.dlx.superseded; " in (
        stopped.text
    )
    data = json.loads(to_json(stopped.data))
    assert {"size_bytes", "teacher_size_ratio"} & set(data) == set()
    assert (data["package"], data["notes"], data["engine"]) == (
        None,
        ["a word"],
        {"status": "none", "reason": "none wanted"},
    )


@pytest.mark.parametrize(("status", "where"), [("shipped", "the package, built by"), ("checked", "compiled here as a")])
def test_the_engine_says_where_it_is(status: str, where: str) -> None:
    engine = EngineSummary(status=status, builder="tensorrt-rtx 1.7", layers="int8 10 of 10")
    assert f"{where} " in view(engine=engine).text
    assert "tensorrt-rtx 1.7: int8 10 of 10." in view(engine=engine).text
    assert "Engine:" not in view().text
