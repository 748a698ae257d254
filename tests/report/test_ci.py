from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from dlx_deploy.pipeline.gate import GateResult, Verdict
from dlx_deploy.pipeline.manifest import BoardProof, ProvenBudget
from dlx_deploy.report.ci import Case, gate_cases, github_notes, junit, proof_cases, summary

HOSTILE = "a<b>&\"'\x1b[31m\x00\u202e|`x`\n::error::no [l](http://x) ]]> %0A"


def gate(verdict: Verdict, text: str = "a sentence") -> GateResult:
    return GateResult(gate="latency", metric="p90_ms", value=1.0, bound=2.0, limit=3.0, verdict=verdict, text=text)


@pytest.mark.parametrize(
    ("verdict", "element", "count"),
    [("pass", None, None), ("fail", "failure", "failures"), ("undecided", "error", "errors"),
     ("pending", "skipped", "skipped")],
)  # fmt: skip
def test_each_verdict_is_a_case(verdict: Verdict, element: str | None, count: str | None) -> None:
    root = ET.fromstring(junit(gate_cases("jetson", [gate(verdict)], 12.5)))
    counts = {name: root.get(name) for name in ("failures", "errors", "skipped")}
    assert counts == {name: "1" if name == count else "0" for name in counts}
    (case,) = root.iter("testcase")
    assert (case.get("classname"), case.get("name"), case.get("time")) == ("jetson", "latency: p90_ms", "12.500")
    if element is None:
        assert case.findtext("system-out") == "a sentence"
    else:
        told = case.find(element)
        assert told is not None
        assert told.get("message") == "a sentence"


def test_targets_are_suites() -> None:
    cases = [*gate_cases("a", [gate("pass"), gate("fail")]), *gate_cases("b", [gate("pass")])]
    suites = {one.get("name"): one.get("tests") for one in ET.fromstring(junit(cases)).iter("testsuite")}
    assert suites == {"a": "2", "b": "1"}


def test_hostile_names_stay_text() -> None:
    case = Case(suite=HOSTILE, name=HOSTILE, state="fail", text=HOSTILE)
    (told,) = ET.fromstring(junit([case])).iter("failure")
    assert told.get("message") == HOSTILE.replace("\x1b", "\\u001b").replace("\x00", "\\u0000").replace(
        "\u202e", "\\u202e"
    ).replace("\n", "\\n")

    rows = summary("build", [case]).splitlines()
    assert len(rows) == 6  # heading, empty, two of the table's head, one case, empty
    assert "<b>" not in rows[4]
    assert rows[4].replace("\\|", "").count("|") == 5
    assert "\\[l\\]" in rows[4]

    (annotation,) = github_notes([case])
    assert "\n" not in annotation
    title, text = annotation.removeprefix("::error title=").split("::", 1)
    assert not {":", ",", "\x1b"} & set(title)
    assert text.endswith("%250A")


def test_what_is_annotated() -> None:
    verdicts: tuple[Verdict, ...] = ("pass", "fail", "undecided", "pending")
    cases = gate_cases("jetson", [gate(verdict) for verdict in verdicts])
    assert github_notes(cases) == [
        "::error title=jetson%3A latency%3A p90_ms fail::a sentence",
        "::warning title=jetson%3A latency%3A p90_ms undecided::a sentence",
    ]


def test_what_a_board_has_shown_is_cases_of_that_board() -> None:
    budget = ProvenBudget(metric="latency_p90_ms", value=4.0, bound=6.0, limit=5.0, verdict="fail", text="too slow")
    proof = BoardProof(taken="2026-11-26", backend="tensorrt", machine={}, accuracy="pass", budgets=(budget,))
    states = [(case.suite, case.name, case.state) for case in proof_cases("orin 15W", proof)]
    assert states == [("orin 15W", "accuracy", "pass"), ("orin 15W", "latency_p90_ms", "fail")]
