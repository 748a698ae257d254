"""Counters as Prometheus reads them: its text format, version 0.0.4."""

from __future__ import annotations

import math
from typing import Dict, Iterable, List, Mapping, Sequence, Tuple

from ..records import record
from ..words import line
from .counters import HistogramSnapshot, Snapshot

__all__ = ["CONTENT_TYPE", "Family", "Labels", "Sample", "counted", "exposition", "gauge"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
Sample = Tuple[str, Labels, float]
"""What stands behind the family's name (``_bucket``), labels, and the value."""


@record
class Family:
    """Series of one name. ``kind``: counter, gauge or histogram; ``help`` is a sentence for people."""

    name: str
    kind: str
    help: str
    samples: Tuple[Sample, ...]


def counted(snapshot: Snapshot, labels: Labels) -> List[Family]:
    """The families of a package's counters; ``labels`` say which package it is."""
    errors = [("", {**labels, "kind": kind}, float(count)) for kind, count in snapshot.errors.items()]
    stages = [
        sample
        for stage, histogram in snapshot.stages.items()
        for sample in _histogram(histogram, {**labels, "stage": stage})
    ]
    return [
        _counter("dlx_requests_total", "Requests that came in.", snapshot.requests, labels),
        _counter("dlx_answers_total", "Samples that were answered.", snapshot.answers, labels),
        Family("dlx_errors_total", "counter", "Requests without an answer, by the kind of error.", tuple(errors)),
        _counter("dlx_received_bytes_total", "Bytes of requests.", snapshot.received_bytes, labels),
        _counter("dlx_sent_bytes_total", "Bytes of answers.", snapshot.sent_bytes, labels),
        Family(
            "dlx_batch_samples",
            "histogram",
            "Samples that the model was run on at once.",
            tuple(_histogram(snapshot.batch_sizes, labels)),
        ),
        Family("dlx_stage_seconds", "histogram", "Seconds that each stage of a request took.", tuple(stages)),
    ]


def gauge(name: str, text: str, value: float, labels: Labels) -> Family:
    """A family of one value that goes up and down."""
    return Family(name, "gauge", text, (("", labels, value),))


def exposition(families: Iterable[Family]) -> str:
    """``families`` as text; those of one name, of several packages, become one, as the format has it."""
    merged: Dict[str, Family] = {}
    for one in families:
        seen = merged.get(one.name)
        merged[one.name] = one if seen is None else Family(one.name, one.kind, one.help, (*seen.samples, *one.samples))
    return "".join(map(_text, merged.values()))


def _counter(name: str, text: str, value: float, labels: Labels) -> Family:
    return Family(name, "counter", text, (("", labels, value),))


def _histogram(histogram: HistogramSnapshot, labels: Labels) -> Sequence[Sample]:
    samples: List[Sample] = []
    below = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts):
        below += count
        samples.append(("_bucket", {**labels, "le": _number(bound)}, below))
    return [*samples, ("_sum", labels, histogram.total), ("_count", labels, below)]


def _text(family: Family) -> str:
    help_text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    lines = [f"# HELP {family.name} {help_text}", f"# TYPE {family.name} {family.kind}"]
    for suffix, labels, value in family.samples:
        inside = ",".join(f'{name}="{_label(text)}"' for name, text in labels.items())
        lines.append(f"{family.name}{suffix}{{{inside}}} {_number(value)}")
    return "".join(f"{one}\n" for one in lines)


def _label(text: str) -> str:
    """A label's value, escaped as the format has it; the names in it are a package's, so controls are shown."""
    return line(text).replace("\\", "\\\\").replace('"', '\\"')


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
