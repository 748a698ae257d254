"""The sections of the page on one build, verdicts first."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET

from dlx_deploy.pipeline.manifest import BoardProof
from dlx_deploy.report.page.facts import DataSeen, Models, Origin, StepSeen
from dlx_deploy.report.page.figures import curves, spent, waterfall
from dlx_deploy.report.page.latency_section import latency_section
from dlx_deploy.report.page.layer_section import layer_section
from dlx_deploy.report.page.parts import Page, Section, Table
from dlx_deploy.report.page.report import WORDS, BuildReport, candidate_rows, figure_of, number_of
from dlx_deploy.report.page.trial_sections import quantization_section, search_section
from dlx_deploy.report.table import format_bytes, format_mib, format_seconds

__all__ = ["page_of"]


def page_of(report: BuildReport, identity: str) -> Page:
    """The page on ``report``; ``identity`` is the digest of what it is drawn from."""
    parts = [_verdicts(report), _stages(report), latency_section(report), layer_section(report)]
    parts += [quantization_section(report.quantization), search_section(report.search), _training(report)]
    parts += [_data(report.data_set), _steps(report), _origin(report.origin)]
    target = report.target_title or report.target
    return Page(
        title=report.title,
        subtitle=f"For {target}. Build {report.verdicts.status}.",
        outcome=report.verdicts.outcome,
        says=WORDS[report.verdicts.outcome],
        identity=identity,
        sections=[part for part in parts if part is not None],
    )


def _verdicts(report: BuildReport) -> Section:
    verdicts = report.verdicts
    header = ["budget", "verdict", "value", "bound", "limit", "in words"]
    rows = [
        [g.gate, g.verdict, *(figure_of(g, v) for v in (g.value, g.bound, g.limit)), g.text] for g in verdicts.gates
    ]
    text = [f"The build ended early: {verdicts.error}"] if verdicts.error else []
    if not rows:
        text.append("No budget was judged.")
    notes = Table(["note"], [[note] for note in verdicts.notes], caption="What else must be known")
    tables = [Table(header, rows, right=(2, 3, 4), badges=1)] if rows else []
    figures = [spent(report.models)] if report.models and report.models.max_drop is not None else []
    tables += [_shown(name, proof) for name, proof in verdicts.boards.items()]
    first = [*tables, *([notes] if verdicts.notes else [])]
    return Section("verdicts", "Verdicts", text, first=first, figures=figures)


def _shown(board: str, proof: BoardProof) -> Table:
    """What a board has shown, its accuracy first."""
    rows = [["accuracy", proof.accuracy, "-", "-", "-", ""]]
    for one in proof.budgets:
        figures = (number_of(one.metric, value) for value in (one.value, one.bound, one.limit))
        rows.append([one.metric, one.verdict, *figures, one.text])
    caption = f"Shown by {board} on {proof.taken[:19]}, {proof.backend}"
    header = ["budget", "verdict", "value", "bound", "limit", "in words"]
    return Table(header, rows, right=(2, 3, 4), badges=1, caption=caption)


def _stages(report: BuildReport) -> Section | None:
    models = report.models
    if models is None:
        return None
    header, rows = candidate_rows(models)
    marked = frozenset(i for i, row in enumerate(models.candidates) if row.chosen)
    text = [
        f"{models.samples:,} samples of the test split; → is what compile chose. Drops: points, against the teacher."
    ]
    if models.distillation:
        text.append(f"Distillation: {models.distillation}.")
    steps = Table(
        ["stage", "beside", models.title, "size", "MACs", "p50"],
        list(_gains(models)),
        right=(2, 3, 4, 5),
        caption="What each stage gave, beside the model that it was made from",
    )
    table = Table(header, rows, right=range(1, len(header)), marked=marked, caption="Every model")
    return Section(
        "stages", "What each stage gave", text, figures=[waterfall(models, table)], tables=[steps, *_slices(models)]
    )


def _slices(models: Models) -> list[Table]:
    if not models.slices:
        return []
    header, *rows = models.slices
    caption = "What each slice of the test split has lost and gained, of the model that compile chose"
    return [Table(header, rows, right=range(1, len(header)), caption=caption)]


def _gains(models: Models) -> Iterator[list[str]]:
    for before, after in zip(models.candidates, models.candidates[1:], strict=False):
        speed = before.p50_ms / after.p50_ms if before.p50_ms and after.p50_ms else None
        yield [
            after.model,
            before.model,
            f"{100 * (after.score - before.score):+.2f} points",
            _times(before.size_bytes / after.size_bytes, "smaller", "larger"),
            _times(before.macs / after.macs if after.macs else 1.0, "fewer", "more"),
            "-" if speed is None else _times(speed, "faster", "slower"),
        ]


def _times(ratio: float, better: str, worse: str) -> str:
    if 0.995 <= ratio <= 1.005:
        return "the same"
    return f"{ratio:.2f} times {better}" if ratio > 1 else f"{1 / ratio:.2f} times {worse}"


def _training(report: BuildReport) -> Section | None:
    trained = [step for step in report.steps if step.curves]
    if not trained:
        return None
    figures = [curves(step, _epochs(step)) for step in trained]
    return Section(
        "training", "Training", ["Loss on train and score on validation, after each epoch."], figures=figures
    )


def _epochs(step: StepSeen) -> Table:
    names, columns = list(step.curves), list(step.curves.values())
    rows = [[str(i), *(f"{value:.4g}" for value in values)] for i, values in enumerate(zip(*columns, strict=False), 1)]
    return Table(["epoch", *names], rows, right=range(len(names) + 1), folded="The numbers", caption=step.step)


def _data(data: DataSeen | None) -> Section | None:
    if data is None:
        return None
    counts = Table(["split", "samples"], [[name, f"{count:,}"] for name, count in data.splits.items()], right=(1,))
    lost = [[name.replace("_", " "), f"{count:,}"] for name, count in data.findings.items()]
    text = [f"data.kind = {data.kind}; {len(data.classes):,} classes." if data.classes else f"data.kind = {data.kind}."]
    if not lost:
        text.append("Reading the data found nothing wrong; dlx-deploy data looks closer.")
    tables = [counts]
    if lost:
        tables.append(Table(["finding", "samples"], lost, right=(1,), caption="What was found in the data"))
    if data.classes:
        named = [[str(i), name] for i, name in enumerate(data.classes)]
        tables.append(Table(["number", "class"], named, folded=f"The {len(named):,} classes"))
    return Section("data", "Data", text, tables=tables)


def _steps(report: BuildReport) -> Section | None:
    if not report.steps:
        return None
    header = ["stage", "in this build", "made at", "took", "memory", "size"]
    rows = [
        [s.step, s.status, s.started[:19], format_seconds(s.seconds), _mib(s), format_bytes(s.size_bytes)]
        for s in report.steps
    ]
    metrics = [[s.step, name, f"{value:,.6g}"] for s in report.steps for name, value in s.metrics.items()]
    made = Table(header, rows, right=(3, 4, 5))
    measured = Table(["stage", "metric", "value"], metrics, right=(2,), folded="What every stage measured")
    return Section("steps", "Steps", tables=[made, measured])


def _mib(step: StepSeen) -> str:
    return format_mib(UNSET if step.peak_memory_mib is None else step.peak_memory_mib)


def _origin(origin: Origin) -> Section:
    facts = Table(["", ""], [[name, value] for name, value in origin.facts.items()])
    tools = Table(["library", "version"], [list(item) for item in origin.tools.items()], folded="Versions of libraries")
    config = Table(["key", "value"], [list(item) for item in origin.config.items()], folded="The whole configuration")
    tables = [facts, *([tools] if origin.tools else []), *([config] if origin.config else [])]
    return Section("provenance", "Provenance", tables=tables)
