"""What a board answers, read as what it must be: nothing that came over a connection is believed before."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dlx_deploy.devices.sent.timing import MARK
from dlx_deploy.errors import BoardError
from dlx_deploy.runtime.words import line, shortened

if TYPE_CHECKING:
    from dlx_deploy.runtime.timing.latency import Latency
    from dlx_deploy.runtime.timing.sampling import Measured
    from dlx_deploy.runtime.untyped import JsonTable

__all__ = ["measured_of", "printed_of", "progress_of", "read_as"]

Read = TypeVar("Read")


def read_as(values: object, kind: type[Read], board: str, what: str) -> Read:
    """``values`` as a ``kind``; ``what`` was asked of ``board``.

    Raises:
        BoardError: a field is missing, or of the wrong kind.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as e:
        raise BoardError(f"{board}: its answer to {what} cannot be read ({line(str(e))}); try again") from e


def printed_of(printed: str, board: str, command: str) -> JsonTable:
    """The JSON that ``command`` of a package printed there.

    Raises:
        BoardError: it is none.
    """
    try:
        return msgspec.json.decode(printed, type=dict[str, object])
    except msgspec.DecodeError as e:
        raise BoardError(
            f"{board}: {command} printed {shortened(printed)}, and no JSON table ({line(str(e))}); try again"
        ) from e


def progress_of(text: str) -> tuple[float, float, str] | None:
    """How far work there is: done, of how much, a remark; ``None``: the line is not one that says so."""
    if not text.startswith(MARK):
        return None
    try:
        done, total, remark = msgspec.json.decode(text[len(MARK) :], type=tuple[float, float, str])
    except (msgspec.DecodeError, UnicodeError):
        return None
    return (done, total, line(remark)) if math.isfinite(done) and math.isfinite(total) else None


def measured_of(values: object, names: Collection[str], board: str) -> Measured:
    """The latencies of the models ``names`` as they were timed there.

    Raises:
        BoardError: they are those of other models, or no times.
    """
    from dlx_deploy.runtime.timing.sampling import Measured

    measured = read_as(values, Measured, board, "latencies")
    if set(measured.latencies) != set(names):
        raise BoardError(
            f"{board}: it timed {_listed(measured.latencies)}, and was asked for {_listed(names)}; try again"
        )
    for name, latency in measured.latencies.items():
        if wrong := [ms for ms in _times(latency) if not (math.isfinite(ms) and ms > 0)]:
            raise BoardError(f"{board}: it says that {line(name)} takes {wrong[0]:g} ms; must be over 0; try again")
        if latency.n < 1:
            raise BoardError(f"{board}: it says that {line(name)} was timed {latency.n} times; must be at least 1")
        if latency.histogram is not None and not latency.histogram.is_of(latency.n):
            raise BoardError(f"{board}: its histogram of {line(name)} is not one of {latency.n} timings; try again")
    return measured


def _times(latency: Latency) -> list[float]:
    bounds = [ms for ms in (latency.p90_upper_ms, latency.p90_lower_ms) if ms is not None]
    at = [one.ms for one in latency.percentiles]
    return [latency.mean_ms, latency.p50_ms, latency.p90_ms, latency.p99_ms, *bounds, *at, *latency.block_p50_ms]


def _listed(names: Collection[str]) -> str:
    return ", ".join(line(name) for name in sorted(names)) or "nothing"
