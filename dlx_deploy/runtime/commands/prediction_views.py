"""The views of ``predict``: answers all at once, or as they come. Apart from the others, whose modules it needs not."""

from __future__ import annotations

import contextlib
import json
from typing import Dict, Generator, List, Optional, Tuple

from ..errors import InputError, RuntimeFault
from ..package.contents import Package
from ..records import record
from ..schemas import RESULT
from ..tasks.task import PredictionRow
from ..untyped import JsonTable
from ..words import line

__all__ = ["PredictionsView", "StreamView", "head_of"]


@record
class PredictionsView:
    """What a model says of samples: their names on the command line, and a row for each."""

    package: Package
    rows: Tuple[Tuple[str, PredictionRow], ...]
    failure: Optional[RuntimeFault] = None

    @property
    def data(self) -> JsonTable:
        """Each sample's name and answer."""
        one = self.package.task.inputs.noun[:-1]
        predictions: List[Dict[str, object]] = [{one: name, **row.data} for name, row in self.rows]
        return {**head_of(self.package), "predictions": predictions}

    @property
    def text(self) -> str:
        """A line for each sample, its cells apart by tabs."""
        return "\n".join(_cells(name, row) for name, row in self.rows)


@record
class StreamView:
    """As ``PredictionsView``, of samples that come over time: each is answered when ``lines`` is asked for the next.

    ``as_json``: the lines are JSON. ``endless``: there is no last one.
    """

    package: Package
    rows: Generator[Tuple[str, PredictionRow], None, None]
    as_json: bool = False
    endless: bool = False
    failure: Optional[RuntimeFault] = None

    def lines(self) -> Generator[str, None, None]:
        """A line for each sample. Where they come from, a camera for instance, is closed with this generator."""
        one = self.package.task.inputs.noun[:-1]
        with contextlib.closing(self.rows):
            for name, row in self.rows:
                if self.as_json:
                    answer = {"schema": RESULT, one: name, **row.data}
                    yield json.dumps(answer, sort_keys=True, ensure_ascii=False, allow_nan=False)
                else:
                    yield _cells(name, row)

    @property
    def data(self) -> JsonTable:
        """All answers, as of ``PredictionsView``.

        Raises:
            InputError: they have no end.
        """
        if self.endless:
            raise InputError("a camera has no end, and --json is one document: give --jsonl, or --limit N")
        return PredictionsView(self.package, tuple(self.rows)).data

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines())


def head_of(package: Package) -> Dict[str, object]:
    """What the JSON of a result begins with: of which package it is."""
    own = {"name": package.name, "version": package.version, "target": package.target, "digest": package.digest}
    return {"schema": RESULT, "package": own}


def _cells(name: str, row: PredictionRow) -> str:
    return "\t".join(map(line, [name, *row.cells]))
