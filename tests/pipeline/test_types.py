"""A stage's parameters are typed through, and its target shows what is in the key: a slip is found, not cached."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from mypy import api

from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job, Metrics, Stage, Step
from dlx_deploy.pipeline.store import Store
from dlx_deploy.pipeline.view import NO_TARGET, TargetView
from dlx_deploy.stages.registry import STAGES
from dlx_deploy.targets import load_target

from .conftest import BOARD, Board, Events, NumberParams

SLIPS = """
from dlx_deploy.config import Prune, Quantize
from dlx_deploy.pipeline.stage import Job, Metrics, Stage

def run(job: Job[Prune]) -> Metrics:
    job.target.builds_engines
    job.target.bilds_engines  # slip: a field of the target
    return {"a": job.params.reduce_macs, "b": job.params.redoce_macs}  # slip: a parameter

def bare(job: Job) -> Metrics:  # slip: parameters of no type
    return {}

STAGE = Stage(name="s", version=1, params=Prune, inputs=(), outputs=(), run=run)
OTHER: Stage[Quantize] = Stage(name="s", version=1, params=Quantize, inputs=(), outputs=(), run=run)  # slip
"""


def test_mypy_rejects_a_misspelt_parameter(tmp_path: Path) -> None:
    file = tmp_path / "slips.py"
    file.write_text(SLIPS)
    said, _, code = api.run(["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}", str(file)])
    lines = {int(line.split(":")[1]) for line in said.splitlines() if ": error:" in line}
    assert code == 1
    assert lines == {n for n, line in enumerate(SLIPS.split("\n"), 1) if "# slip" in line}, said
    assert '"Prune" has no attribute "redoce_macs"; maybe "reduce_macs"?' in said


@pytest.mark.parametrize("name", STAGES)
def test_no_stage_takes_its_job_untyped(name: str) -> None:
    text = Path(__import__(f"dlx_deploy.stages.{name}", fromlist=["STAGE"]).__file__).read_text()
    assert "def run(job: Job[" in text


def test_a_field_that_is_not_in_the_key_is_refused_by_name(store: Store, events: Events) -> None:
    def run(job: Job[NumberParams]) -> Metrics:
        (job.out / "x").write_text(job.target.colour)  # type: ignore[attr-defined]
        return {}

    def build(*uses: str) -> Build:
        step = Step("paint", Stage("paint", 1, NumberParams, (), ("x",), run, uses=uses), NumberParams(), {})
        return Build("b", Board(), [step], {})

    with pytest.raises(StageFailed, match=r"stage 'paint' reads target\.colour; its uses are factor.*add the field to"):
        run_build(build("factor"), store, events)
    assert (run_build(build("colour"), store, events).outputs["paint"]["x"]).read_text() == "green"


def test_properties_of_a_profile_rest_on_their_fields() -> None:
    profile = load_target("jetson").profile
    assert TargetView(profile, "s", ("kind", "backends")).builds_engines is True
    with pytest.raises(AttributeError, match=r"reads target\.backends; its uses are kind"):
        _ = TargetView(profile, "s", ("kind",)).builds_engines


def test_without_a_target_nothing_can_be_read() -> None:
    with pytest.raises(AttributeError, match=r"reads target\.kind; its uses are none"):
        _ = Job(NumberParams(), {}, Path()).target.kind


def test_a_view_travels_to_workers() -> None:
    view = TargetView(BOARD, "s", ("factor",))
    assert pickle.loads(pickle.dumps(view)).factor == copy.copy(view).factor == 10  # noqa: S301
    assert pickle.loads(pickle.dumps(NO_TARGET)) is not None  # noqa: S301
