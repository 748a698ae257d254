"""Preprocessing, looked at first: whether a package feeds what its build stored, and its graph makes the same of it.

What is fed is found by its digest in the package's reference table. Samples that are not there are read in other ways
until they are: that names the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.debugging.answers import Bench, Labelled
from dlx_deploy.debugging.sources import Made
from dlx_deploy.errors import DlxError
from dlx_deploy.graph.comparison.front import Front, compare_fronts
from dlx_deploy.graph.comparison.pairing import paired_layers
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import load
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.report.debug_facts import ReadingFinding
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.package.members import DIGEST
from dlx_deploy.runtime.tasks.arrays import rows_of
from dlx_deploy.tasks import find_task

__all__ = ["look_at_reading"]

TRIED = 4
"""Samples that are read in other ways: a digest is no chance hit, and pictures take long to decode."""
_REBUILD = "rebuild the package, or give the data that it was built for"


def look_at_reading(
    made: Made, reference: ModelProto, bench: Bench, stored: Path | None
) -> tuple[tuple[ReadingFinding, ...], str]:
    """What differs, and what was compared, in a sentence. ``stored``: the build's data, where the store has them.

    Raises:
        StageFailed: ONNX Runtime cannot run a graph.
    """
    package, labelled = made.package, bench.labelled
    known = _known(package, dict(labelled.samples.arrays))
    written = load(package.model)
    front = compare_fronts(reference, written, paired_layers(reference, written), labelled.samples, bench.exact)
    findings = [
        *_fields(package, stored),
        *_golden(package, bench.exact),
        *_fed(package, labelled, known),
        *(_in_graph(front) if front is not None else ()),
    ]
    said = (
        f"{int(known.sum()):,} of {len(known):,} {package.task.inputs.noun} are fed byte by byte as the build had them"
    )
    if front is not None:
        same = "the same" if not front.differences else "something else"
        said += f"; {front.layer}, the first layer, reads {same} as in floating point ({front.sqnr_db:.0f} dB)"
    return tuple(findings), said + _turned(package, labelled.names)


def _turned(package: Package, files: Sequence[str]) -> str:
    """That pictures are turned by their EXIF orientation, which others who decode them may not do."""
    count_turned = getattr(find_task(package.task.name).inputs, "turned", None)
    count = count_turned(files) if count_turned is not None and files else 0
    if not count:
        return ""
    return (
        f"; {count:,} of the files have an EXIF orientation, by which they are turned upright here, in a build and in "
        "the package: whatever else decodes them (OpenCV's IMREAD_UNCHANGED, torchvision, a camera's pipeline) must too"
    )


def _in_graph(front: Front) -> Iterator[ReadingFinding]:
    for name, said in front.differences.items():
        yield ReadingFinding(
            name=name,
            said=f"in the graph, before {front.layer}: {said}",
            remedy="the package's graph is not what its build made of this network; " + _REBUILD,
        )


def _known(package: Package, feeds: Arrays) -> NDArray[np.bool_]:
    """bool[N]: which samples the package's reference table has."""
    return np.isin(package.task.inputs.digests(feeds), package.reference[DIGEST])


def _fed(package: Package, labelled: Labelled, known: NDArray[np.bool_]) -> Iterator[ReadingFinding]:
    """How those that the table does not have were read by the build, or that nothing explains it."""
    unknown = np.flatnonzero(~known)
    if not len(unknown):
        return
    rows = unknown[np.linspace(0, len(unknown) - 1, min(TRIED, len(unknown))).astype(int)]
    some = rows_of(dict(labelled.samples.arrays), rows)
    files = [labelled.names[row] for row in rows] if labelled.names else []
    noun, inputs = package.task.inputs.noun, package.task.inputs
    others = getattr(find_task(package.task.name).inputs, "readings", None)  # tasks of other packages may have none
    for reading in others(inputs, some, files) if others is not None else ():
        if _known(package, reading.arrays).any():
            yield ReadingFinding(
                name=reading.name,
                said=f"the build read these {noun} {reading.said}; the package does not ({len(unknown):,} differ)",
                remedy="package.json's preprocessing, or the data, were changed after the build: " + _REBUILD,
            )
            return
    if len(unknown) == len(known):
        yield ReadingFinding(
            name="unknown",
            said=f"none of the {noun} is one that the build was judged on, however it is read: these are other data",
            remedy="to compare with the build leave --data out, or give its test split",
        )


def _golden(package: Package, exact: bool) -> Iterator[ReadingFinding]:
    """Whether the model in the package still answers its golden samples as it did where it was built."""
    outputs = run_onnx(package.model, Samples(package.golden_inputs), exact)
    agreement = package.task.outputs.compare(outputs, package.golden_outputs, package.tolerances)
    wrong = int((~agreement.rows).sum())
    if wrong:
        yield ReadingFinding(
            name="golden",
            said=f"{wrong} of {len(agreement.rows)} golden samples are answered otherwise than where it was built: the "
            "graph was changed since, or this machine computes it otherwise",
            remedy="build the package again; dlx-deploy selftest says how far they are off",
        )


def _fields(package: Package, stored: Path | None) -> Iterator[ReadingFinding]:
    """Where ``package.json`` says another preprocessing than the data that the build stored."""
    from dlx_deploy.nn.data.dataset import open_data

    if stored is None:
        return
    try:
        said = find_task(package.task.name).inputs.preprocessing(open_data(stored))
    except DlxError:  # of an older version: nothing to compare with
        return
    for key, value in said.items():
        seen = package.meta["preprocessing"].get(key, value)
        if seen != value:
            yield ReadingFinding(
                name=key,
                said=f"package.json says preprocessing.{key} = {seen!r}, and the build's data have {value!r}",
                remedy=_REBUILD,
            )
