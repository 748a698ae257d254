"""Latency with a bound: interleaved timings spread over time, percentiles, and what the machine was that gave them."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import asdict, dataclass
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..machine import machine_info
from ..package.rules import MAX_BATCH, MAX_BATCH_BYTES
from ..predictor import Predictor
from ..statistics.drops import Decision
from ..statistics.timings import UNSEEN, block_medians, percentile_bounds
from ..tasks.arrays import Arrays, count_of, rows_of
from ..telling import Tell, silent
from ..untyped import JsonTable

__all__ = ["BenchOptions", "BenchResult", "Latency", "bench_package", "measure", "sample", "summarise"]

CONFIDENCE = 0.95
MAX_ROUNDS = 1_000_000_000
PACE = 100.0  # rounds a second at most where a verdict is asked for: 300 then meet what comes and goes within 3 s
BURST = 5  # rounds between two pauses


@dataclass(frozen=True)
class Latency:
    """Percentiles (nearest rank) of ``n`` timings in milliseconds.

    ``p90_upper_ms`` and ``p90_lower_ms`` bound the true p90 at 95 % confidence each, by order statistics over blocks of
    consecutive timings; ``None`` with too few (29 for the upper one). ``by_slowest``: bursts leave too few ``blocks``
    for it, or even long ones follow each other (``bursts``), and it is three times the slowest timing.
    ``block_p50_ms``: the medians of up to 20 blocks, in the order measured.
    """

    n: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p90_upper_ms: Optional[float]
    p90_lower_ms: Optional[float]
    blocks: int = 0
    bursts: bool = False
    by_slowest: bool = False
    block_p50_ms: Tuple[float, ...] = ()


@dataclass(frozen=True)
class BenchOptions:
    """How ``bench_package`` measures. ``max_p90_ms`` is the budget, ``None`` for none.

    ``inputs``: files or texts, ``batch`` of them in each round, one after the other: how they are read counts too.
    Without any the golden inputs are given, as arrays.
    """

    rounds: int = 300
    warmup: int = 30
    batch: int = 1
    max_p90_ms: Optional[float] = None
    inputs: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchResult:
    """A package's latency on one machine. ``verdict`` is ``None`` without a budget.

    ``inputs``: how many files or texts were read in turn, 0 where the golden inputs were given as arrays.
    """

    latency: Latency
    batch: int
    inputs: int
    images_per_second: float
    machine: JsonTable
    max_p90_ms: Optional[float]
    verdict: Optional[Decision]

    def explain(self) -> str:
        """The verdict as a sentence; empty without a budget."""
        if self.verdict is None:
            return ""
        seen, low, high = self.latency, _ms(self.latency.p90_lower_ms), _ms(self.latency.p90_upper_ms)
        ends = {"pass": "met", "fail": "missed", "undecided": f"undecided; {_what_would_decide(seen)}"}
        level, blocks = f"{CONFIDENCE} confidence", f"{seen.n} rounds in {seen.blocks} blocks"
        if seen.by_slowest:
            slowest = f"{UNSEEN:g} times the slowest: they come in bursts"
            range_ = f"at least {low} ({level}, {blocks}), at most {high} ({slowest})"
        else:
            range_ = f"between {low} and {high} (each at {level}, {blocks})"
        return f"p90 {_ms(seen.p90_ms)}, {range_}; budget {_ms(self.max_p90_ms)}: {ends[self.verdict]}"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdict amounts to, or ``None``."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None

    def to_dict(self) -> Dict[str, object]:
        """The result as JSON-ready values."""
        return asdict(self)


def sample(
    callables: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int,
    pace: float = PACE,
    tell: Tell = silent,
) -> Dict[str, List[int]]:
    """Per callable ``rounds`` timings in nanoseconds, in the order measured, after ``warmup`` untimed rounds.

    Every round runs every callable once, starting with another one each time, so that a drift of the clock or a
    busy neighbour meets all of them alike. There are at most ``pace`` rounds a second (0: any number), by pauses
    between bursts of rounds; what runs first after a pause is not timed. ``tell`` hears of each burst, outside of it.

    Raises:
        InputError: ``rounds`` is under 1 or ``warmup`` under 0.
    """
    if rounds < 1 or warmup < 0:
        raise InputError(f"rounds is {rounds} and warmup {warmup}; they must be at least 1 and 0")
    names = list(callables)
    timings: Dict[str, List[int]] = {name: [] for name in names}
    clock = time.perf_counter_ns
    began = clock()
    for i in range(rounds + warmup):
        if i % BURST == 0:
            tell(i, rounds + warmup, f"{rounds} timed rounds")
        if pace and i >= warmup and (i - warmup) % BURST == 0:
            began = clock() if i == warmup else began
            ahead_s = (i - warmup) / pace - (clock() - began) / 1e9
            if ahead_s > 0:
                time.sleep(ahead_s)
                for name in names:
                    callables[name]()
        first = i % len(names)
        for name in names[first:] + names[:first]:
            call = callables[name]
            start = clock()
            call()
            timings[name].append(clock() - start)
    return {name: values[warmup:] for name, values in timings.items()}


def summarise(nanoseconds: Sequence[int]) -> Latency:
    """The percentiles of timings in nanoseconds, which are in the order measured."""
    timings = [x / 1e6 for x in nanoseconds]
    ms, n = sorted(timings), len(timings)
    p50, p90, p99 = (ms[math.ceil(n * p / 100) - 1] for p in (50, 90, 99))
    bounds = percentile_bounds(timings, 90, CONFIDENCE)
    return Latency(
        n=n,
        mean_ms=sum(ms) / n,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        p90_upper_ms=bounds.upper,
        p90_lower_ms=bounds.lower,
        blocks=bounds.blocks,
        bursts=bounds.bursts,
        by_slowest=bounds.by_slowest,
        block_p50_ms=tuple(block_medians(timings)),
    )


def measure(
    callables: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int,
    pace: float = PACE,
    tell: Tell = silent,
) -> Dict[str, Latency]:
    """The latency of each callable, interleaved and paced as in ``sample``.

    Raises:
        InputError: as ``sample``.
    """
    return {name: summarise(timings) for name, timings in sample(callables, rounds, warmup, pace, tell).items()}


def bench_package(predictor: Predictor, options: Optional[BenchOptions] = None) -> BenchResult:
    """The latency of ``predict`` on this machine, from what it is given to its answer.

    The numbers are this machine's, whatever target the package was built for; ``machine`` says which it was. With a
    budget the rounds are spread over time (``PACE``), so that a burst of other work cannot cover them all.

    Raises:
        InputError: rounds, warmup, batch or budget out of range, or an input that cannot be read.
    """
    options = options or BenchOptions()
    golden = predictor.package.golden_inputs
    row_bytes = sum(array[0].nbytes for array in golden.values())
    most = max(1, min(MAX_BATCH, MAX_BATCH_BYTES // row_bytes))
    if not 1 <= options.batch <= most:
        raise InputError(f"batch is {options.batch}; must be 1 or more, and at most {most}")
    if not 1 <= options.rounds <= MAX_ROUNDS:
        raise InputError(f"rounds is {options.rounds}; must be 1 or more, and at most {MAX_ROUNDS}")
    if options.max_p90_ms is not None and not 0 < options.max_p90_ms < math.inf:
        raise InputError(f"the p90 budget is {options.max_p90_ms} ms; must be over 0 and finite")
    given = _turns(options, golden)
    calls = {"predict": lambda: predictor.predict(next(given))}
    if options.max_p90_ms is None:
        timings = sample(calls, options.rounds, options.warmup, 0.0, predictor.tell)
    else:
        timings = sample(calls, options.rounds, options.warmup, PACE, predictor.tell)
    latency = summarise(timings["predict"])
    return BenchResult(
        latency=latency,
        batch=options.batch,
        inputs=len(options.inputs),
        images_per_second=1000 * options.batch / latency.p50_ms,
        machine=machine_info(),
        max_p90_ms=options.max_p90_ms,
        verdict=_verdict(latency, options.max_p90_ms),
    )


def _turns(options: BenchOptions, golden: Arrays) -> Iterator[object]:
    """What each round is given, without an end."""
    if not options.inputs:
        feeds = rows_of(golden, np.arange(options.batch) % count_of(golden))
        return itertools.repeat(next(iter(feeds.values())) if len(feeds) == 1 else feeds)  # as a user would give it
    turns = itertools.cycle(options.inputs)
    return (list(itertools.islice(turns, options.batch)) for _ in itertools.count())


def _verdict(latency: Latency, budget: Optional[float]) -> Optional[Decision]:
    if budget is None:
        return None
    if latency.p90_upper_ms is not None and latency.p90_upper_ms <= budget:
        return "pass"
    missed = latency.p90_lower_ms is not None and latency.p90_lower_ms > budget
    return "fail" if missed else "undecided"


def _what_would_decide(seen: Latency) -> str:
    more = f"measure with more rounds, for instance {max(4 * seen.n, 300)}"
    if seen.by_slowest:
        return f"{more}, or on a quieter machine"
    return more


def _ms(value: Optional[float]) -> str:
    return "an unknown limit" if value is None else f"{value:.4g} ms"
