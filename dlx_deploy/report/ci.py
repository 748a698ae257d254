"""Verdicts as a CI server reads them: JUnit XML, a summary in Markdown, annotations of GitHub.

One rule for all three: a budget that is met passes; one that is missed is a failure; one that is undecided is an error,
since it must not look green; one that only another machine can measure is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal
from xml.etree import ElementTree as ET

import msgspec

from dlx_deploy.pipeline.gate import GateResult, Verdict
from dlx_deploy.pipeline.manifest import BoardProof
from dlx_deploy.runtime.words import line

__all__ = ["Case", "gate_cases", "github_notes", "judged_cases", "junit", "proof_cases", "summary"]

State = Literal[Verdict, "error"]
ELEMENTS: dict[State, str | None] = {
    "pass": None,
    "fail": "failure",
    "undecided": "error",
    "pending": "skipped",
    "error": "error",
}
MARKS: dict[State, str] = {"pass": "✅", "fail": "❌", "undecided": "⚠️", "pending": "⏳", "error": "💥"}
LEVELS: dict[State, str] = {"fail": "error", "undecided": "warning", "error": "error"}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One budget of one target or package, or what ended the command. ``state`` beyond the verdicts: ``error``."""

    suite: str
    name: str
    state: State
    text: str
    seconds: float = 0.0


def gate_cases(target: str, gates: Sequence[GateResult], seconds: float = 0.0) -> list[Case]:
    """A case for each budget that a build judged; the first has the build's ``seconds``."""
    return [
        Case(
            suite=target,
            name=f"{gate.gate}: {gate.metric}",
            state=gate.verdict,
            text=gate.text,
            seconds=0.0 if i else seconds,
        )
        for i, gate in enumerate(gates)
    ]


def proof_cases(board: str, proof: BoardProof) -> list[Case]:
    """A case for the accuracy and for each budget that ``board`` judged."""
    accuracy = Case(
        suite=board, name="accuracy", state=proof.accuracy, text=f"judged by {proof.backend}, {proof.taken}"
    )
    budgets = [Case(suite=board, name=one.metric, state=one.verdict, text=one.text) for one in proof.budgets]
    return [accuracy, *budgets]


class _Judged(msgspec.Struct, frozen=True):
    metric: str
    verdict: Verdict
    text: str


def judged_cases(package: str, data: Mapping[str, object]) -> list[Case]:
    """A case for each budget that ``verify`` or ``bench`` judged, by its JSON; none where an older runtime does
    not say."""
    try:
        judged = msgspec.convert(data.get("judged", []), list[_Judged])
    except msgspec.ValidationError:
        return []
    return [Case(suite=package, name=one.metric, state=one.verdict, text=one.text) for one in judged]


def junit(cases: Sequence[Case]) -> bytes:
    """The cases as JUnit XML, a suite for each target or package; what XML cannot hold is escaped."""
    root = ET.Element("testsuites", _counts(cases), name="dlx-deploy")
    for suite in dict.fromkeys(case.suite for case in cases):
        own = [case for case in cases if case.suite == suite]
        element = ET.SubElement(root, "testsuite", _counts(own), name=line(suite))
        for case in own:
            one = ET.SubElement(
                element, "testcase", classname=line(suite), name=line(case.name), time=f"{case.seconds:.3f}"
            )
            kind = ELEMENTS[case.state]
            if kind is None:
                ET.SubElement(one, "system-out").text = line(case.text)
                continue
            told = ET.SubElement(one, kind, message=line(case.text))
            if kind != "skipped":
                told.set("type", case.state)
                told.text = line(case.text)
    ET.indent(root)
    return bytes(ET.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    kinds = [ELEMENTS[case.state] for case in cases]
    counts = {"tests": len(cases), "failures": kinds.count("failure"), "errors": kinds.count("error")}
    named = {name: str(count) for name, count in {**counts, "skipped": kinds.count("skipped")}.items()}
    return {**named, "time": f"{sum(case.seconds for case in cases):.3f}"}


def summary(command: str, cases: Sequence[Case]) -> str:
    """The cases as a table in Markdown, below a heading."""
    rows = [
        f"| {MARKS[case.state]} {case.state} | {_cell(case.suite)} | {_cell(case.name)} | {_cell(case.text)} |"
        for case in cases
    ]
    return (
        "\n".join([f"### dlx-deploy {command}", "", "| verdict | of | budget | |", "|---|---|---|---|", *rows, ""])
        + "\n"
    )


def _cell(text: str) -> str:
    """``text`` as one cell that says what it says: no markup, no link, no row of its own."""
    shown = line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\|`*_[]#~!@" else c for c in shown)


def github_notes(cases: Sequence[Case]) -> list[str]:
    """What is to be looked at, a line each, as GitHub's runner reads it from a log."""
    return [
        f"::{LEVELS[case.state]} title={_property(f'{case.suite}: {case.name} {case.state}')}::{_data(case.text)}"
        for case in cases
        if case.state in LEVELS
    ]


def _data(text: str) -> str:
    return line(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
