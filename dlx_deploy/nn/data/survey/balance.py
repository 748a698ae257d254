"""Classes that have few samples, or many more than others."""

from __future__ import annotations

from collections.abc import Sequence

from dlx_deploy.nn.data.survey.findings import Finding, SplitSeen

__all__ = ["balance"]

_UNEVEN = 10
"""The largest class has so many times as many samples as the smallest: a network learns to say the large ones."""
_FEW = {"train": 20, "test": 10}
"""Below this a class is hardly learnt; hardly judged."""


def balance(splits: Sequence[SplitSeen], classes: Sequence[str], noun: str) -> list[Finding]:
    """What to say of how many samples the classes have."""
    findings: list[Finding] = []
    for split in splits:
        counts = split.per_class
        if split.name == "train" and min(counts, default=0) and max(counts) >= _UNEVEN * min(counts):
            most, least = classes[counts.index(max(counts))], classes[counts.index(min(counts))]
            text = (
                f"class {most!r} has {max(counts)} {noun} to train on and {least!r} {min(counts)}: a network learns to "
                "say the large ones; look at each class's figures, not at the mean alone"
            )
            findings.append(Finding("imbalance", "warning", text))
        few = [classes[i] for i, n in enumerate(counts) if 0 < n < _FEW.get(split.name, 0)]
        if few and split.count:
            text = f"classes have fewer than {_FEW[split.name]} {noun} in {split.name} (the first: {few[0]!r})"
            findings.append(Finding(f"few_in_{split.name}", "note", text, len(few), len(counts)))
    return findings
