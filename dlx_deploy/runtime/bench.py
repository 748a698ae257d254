"""Latency with a bound: interleaved timings, percentiles, and what the machine was that gave them."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np

from .errors import BudgetMissed, InputError, RuntimeFault, Undecided
from .machine import machine_info
from .predictor import Predictor
from .rules import MAX_BATCH, MAX_BATCH_BYTES
from .statistics import percentile_lower_bound, percentile_upper_bound

__all__ = ["BenchOptions", "BenchResult", "Latency", "bench_package", "measure", "sample", "summarise"]

CONFIDENCE = 0.95
MAX_ROUNDS = 1_000_000


@dataclass(frozen=True)
class Latency:
    """Percentiles (nearest rank) of ``n`` timings in milliseconds.

    ``p90_upper_ms`` and ``p90_lower_ms`` bound the true p90 at 95 % confidence each, by order statistics; ``None``
    with too few timings (29 for the upper one, 2 for the lower one).
    """

    n: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p90_upper_ms: Optional[float]
    p90_lower_ms: Optional[float]


@dataclass(frozen=True)
class BenchOptions:
    """How ``bench_package`` measures. ``max_p90_ms`` is the budget, ``None`` for none."""

    rounds: int = 300
    warmup: int = 30
    batch: int = 1
    max_p90_ms: Optional[float] = None


@dataclass(frozen=True)
class BenchResult:
    """A package's latency on one machine. ``verdict`` is ``None`` without a budget."""

    latency: Latency
    batch: int
    images_per_second: float
    machine: Mapping[str, Any]
    max_p90_ms: Optional[float]
    verdict: Optional[str]

    def explain(self) -> str:
        """The verdict as a sentence; empty without a budget."""
        if self.verdict is None:
            return ""
        seen, low, high = self.latency, _ms(self.latency.p90_lower_ms), _ms(self.latency.p90_upper_ms)
        ends = {"pass": "met", "fail": "missed", "undecided": "undecided; measure with more rounds"}
        return (
            f"p90 {_ms(seen.p90_ms)}, between {low} and {high} (each at {CONFIDENCE} confidence, {seen.n} rounds); "
            f"budget {_ms(self.max_p90_ms)}: {ends[self.verdict]}"
        )

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdict amounts to, or ``None``."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None

    def to_dict(self) -> Dict[str, Any]:
        """The result as JSON-ready values."""
        return asdict(self)


def sample(callables: Mapping[str, Callable[[], Any]], rounds: int, warmup: int) -> Dict[str, List[int]]:
    """Per callable ``rounds`` timings in nanoseconds, in the order measured, after ``warmup`` untimed rounds.

    Every round runs every callable once, starting with another one each time, so that a drift of the clock or a
    busy neighbour meets all of them alike.

    Raises:
        InputError: ``rounds`` is under 1 or ``warmup`` under 0.
    """
    if rounds < 1 or warmup < 0:
        raise InputError(f"rounds is {rounds} and warmup {warmup}; they must be at least 1 and 0")
    names = list(callables)
    timings: Dict[str, List[int]] = {name: [] for name in names}
    clock = time.perf_counter_ns
    for i in range(rounds + warmup):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            call = callables[name]
            start = clock()
            call()
            timings[name].append(clock() - start)
    return {name: values[warmup:] for name, values in timings.items()}


def summarise(nanoseconds: Sequence[int]) -> Latency:
    """The percentiles of timings in nanoseconds."""
    ms = sorted(x / 1e6 for x in nanoseconds)
    n = len(ms)
    p50, p90, p99 = (ms[math.ceil(n * p / 100) - 1] for p in (50, 90, 99))
    upper, lower = percentile_upper_bound(ms, 90, CONFIDENCE), percentile_lower_bound(ms, 90, CONFIDENCE)
    return Latency(n, sum(ms) / n, p50, p90, p99, upper, lower)


def measure(callables: Mapping[str, Callable[[], Any]], rounds: int, warmup: int) -> Dict[str, Latency]:
    """The latency of each callable, interleaved as in ``sample``.

    Raises:
        InputError: as ``sample``.
    """
    return {name: summarise(timings) for name, timings in sample(callables, rounds, warmup).items()}


def bench_package(predictor: Predictor, options: Optional[BenchOptions] = None) -> BenchResult:
    """The latency of ``predict`` on this machine, with the golden images as input.

    The numbers are this machine's, whatever target the package was built for; ``machine`` says which it was.

    Raises:
        InputError: rounds, warmup, batch or budget out of range.
    """
    options = options or BenchOptions()
    golden = predictor.package.golden_inputs
    most = max(1, min(MAX_BATCH, MAX_BATCH_BYTES // golden[0].nbytes))
    if not 1 <= options.batch <= most:
        raise InputError(f"batch is {options.batch}; must be 1 to {most}")
    if not 1 <= options.rounds <= MAX_ROUNDS:
        raise InputError(f"rounds is {options.rounds}; must be 1 to {MAX_ROUNDS}")
    if options.max_p90_ms is not None and not 0 < options.max_p90_ms < math.inf:
        raise InputError(f"the p90 budget is {options.max_p90_ms} ms; must be over 0 and finite")
    images = golden[np.arange(options.batch) % len(golden)]
    timings = sample({"predict": lambda: predictor.predict(images)}, options.rounds, options.warmup)
    latency = summarise(timings["predict"])
    return BenchResult(
        latency=latency,
        batch=options.batch,
        images_per_second=1000 * options.batch / latency.p50_ms,
        machine=machine_info(),
        max_p90_ms=options.max_p90_ms,
        verdict=_verdict(latency, options.max_p90_ms),
    )


def _verdict(latency: Latency, budget: Optional[float]) -> Optional[str]:
    if budget is None:
        return None
    if latency.p90_upper_ms is not None and latency.p90_upper_ms <= budget:
        return "pass"
    missed = latency.p90_lower_ms is not None and latency.p90_lower_ms > budget
    return "fail" if missed else "undecided"


def _ms(value: Optional[float]) -> str:
    return "an unknown limit" if value is None else f"{value:.4g} ms"
