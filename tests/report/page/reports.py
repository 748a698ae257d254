"""Reports as values: a small one, and one with many layers, classes and hostile names."""

from __future__ import annotations

import msgspec

from dlx_deploy.graph.quantization.kit.decisions import Decision, Decisions
from dlx_deploy.graph.quantization.trials import Trials
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.report.page.facts import (
    Candidate,
    DataSeen,
    Layers,
    LayerSeen,
    Models,
    Origin,
    Quantization,
    Searched,
    StepSeen,
    TrialPoint,
    Verdicts,
)
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.report.studies import StudyTrial, StudyTrials
from dlx_deploy.runtime.timing.histogram import histogram_of
from dlx_deploy.runtime.timing.latency import Percentile
from dlx_deploy.stages.support.results import Timing

__all__ = ["HOSTILE", "large", "searched", "small"]

HOSTILE = "层</title></svg><script>alert(1)</script>\x1b[31m\u202e$x^2$ &amp; \"'"


def gate(verdict: str, name: str = "accuracy") -> GateResult:
    return GateResult(
        gate=name, metric="top1_drop", value=0.011, bound=0.024, limit=0.02, verdict=verdict, text=f"is a {verdict}"
    )  # fmt: skip


def candidate(model: str, drop: float | None, ms: float) -> Candidate:
    return Candidate(
        model=model, chosen=model == "quantized", score=0.95 - (drop or 0.0), drop=drop,
        drop_upper=None if drop is None else drop + 0.01, size_bytes=4_000_000, parameters=10, macs=20,
        latency=Timing(
            model=model, p50_ms=ms, p90_ms=1.1 * ms, p90_upper_ms=1.2 * ms, p90_lower_ms=ms,
            percentiles=tuple(Percentile(p, (1 + p / 1000) * ms, ms, 1.2 * ms) for p in (50, 90, 99)),
            histogram=histogram_of([ms + i * i * ms / 2e5 for i in range(200)] + [9 * ms]),
        ),
    )  # fmt: skip


def searched(name: str = "a", trials: int = 40) -> Searched:
    """That the configuration is the third of so many trials, of which the first failed; ``name``: whatever has one."""
    rows = [
        StudyTrial(number=0, values={"distill.model": name}, state="failed", meets=False, on_front=False, reason=name)
    ]
    rows += [
        StudyTrial(
            number=i,
            values={"distill.model": f"{name} {i}"},
            state="complete",
            meets=i % 3 == 2,
            on_front=i in (2, 5),
            score=0.8 + i / 1000,
            drop_upper=0.03,
            latency_ms=5 - i / 10,
            size_bytes=1000 * i,
            reason="" if i % 3 == 2 else name,
        )
        for i in range(1, trials)
    ]
    known = StudyTrials(
        study="study-1",
        title=name,
        samples=144,
        teacher_score=0.9,
        latency_kind=name,
        latency_where=name,
        latency_budgets_ms={"90": 4.0, "99": 900.0},
        choose="latency",
        trials=tuple(rows),
    )
    return Searched(study="study-1", trial=2, trials=known, changed=(f"distill.model is {name}, and was 3",))


def small(verdict: str = "pass") -> BuildReport:
    models = Models(
        title="top-1", samples=599, judge="native", confidence=0.95, max_drop=0.02, latency_kind="measured",
        latency_where="a board", candidates=(candidate("teacher", None, 3.0), candidate("quantized", 0.004, 1.5)),
    )  # fmt: skip
    step = StepSeen(
        step="distill", status="cached", why="", key="ab" * 32, started="2026-11-26T09:22:18.4+00:00", seconds=14.0,
        peak_memory_mib=None, size_bytes=9, metrics={"loss": 0.5}, digests={"model": "cd" * 32}, inputs={}, tools={},
        curves={"loss": (0.9, 0.5), "validation_top1": (0.4, 0.8)},
    )  # fmt: skip
    return BuildReport(
        name="digits",
        version="0.1.0",
        target="board",
        target_title="A board",
        verdicts=Verdicts(outcome=verdict, status="done", error="", gates=(gate(verdict),), notes=("a word",)),
        models=models,
        layers=None,
        quantization=None,
        data_set=None,
        steps=(step,),
        origin=Origin(facts={"package SHA-256": "ef" * 32}, tools={"onnx": "1.23"}, config={"gate.max_drop": "0.02"}),
    )


def large(layers: int = 200, classes: int = 1000) -> BuildReport:
    """A report with as much in it as there can be, all names of which are ``HOSTILE``."""
    seen = tuple(
        LayerSeen(name=f"block{i}.{HOSTILE}", precision="int8" if i % 7 else "fp16", sqnr_db=20.0 + i, agreement=0.99)
        for i in range(layers)
    )
    points = tuple(
        TrialPoint(restored=i, int8_layers=9 - i, score=0.9 + 0.01 * i, drop_upper=0.03, verdict="missed",
                   latency_ms=1.0 + i, latency="measured", chosen=i == 3)
        for i in range(4)
    )  # fmt: skip
    decisions = Decisions(effort="best", held=64, steps=(Decision(step=HOSTILE, kept=False, sqnr_db_before=20.0),))
    named = tuple(f"{i} {HOSTILE}" for i in range(classes))
    return msgspec.structs.replace(
        small("fail"),
        name=HOSTILE,
        layers=Layers(precision="int8", reason=HOSTILE, samples=64, layers=seen),
        quantization=Quantization(
            decisions=decisions,
            trials=Trials(note=HOSTILE, title=HOSTILE, reference_score=0.95, fp32_score=0.94, max_drop=0.02),
            points=points,
        ),
        search=searched(HOSTILE),
        data_set=DataSeen(kind="imagefolder", classes=named, splits={"test": 9}, findings={"leaked_images": 3}),
        origin=Origin(facts={HOSTILE: HOSTILE}, tools={}, config={HOSTILE: HOSTILE}),
    )
