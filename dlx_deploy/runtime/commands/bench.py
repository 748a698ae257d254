"""A package's latency on this machine, what the machine was that gave it, and whether budgets are met."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, field
from typing import Dict, Iterator, Mapping, Optional, Tuple

import numpy as np

from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..machine import machine_info
from ..package.rules import MAX_BATCH, MAX_BATCH_BYTES
from ..predictor import Predictor
from ..statistics.drops import Decision
from ..statistics.timings import UNSEEN
from ..tasks.arrays import Arrays, count_of, rows_of
from ..timing.latency import CONFIDENCE, PERCENTILES, Latency, Percentile, decide, noisy_bounds, rounds_for, widened
from ..timing.sampling import PACE, Sampled, Sampling, sample
from ..timing.state import MachineState, Watch
from ..untyped import JsonTable

__all__ = ["BenchOptions", "BenchResult", "Judged", "bench_package"]

MAX_ROUNDS = 1_000_000_000
JUDGED_S = 3.0  # a verdict rests on no less: what comes and goes within it is met
WORST_FIRST: Tuple[Decision, ...] = ("fail", "undecided", "pass")


@dataclass(frozen=True)
class BenchOptions:
    """How ``bench_package`` measures. ``max_ms``: the budgets, by percentile: one of 50, 90, 99.

    ``rounds``: ``None`` takes as many as the highest of these percentiles needs. With a budget it takes three seconds
    at least, if ``min_s`` says nothing else, and never longer than ``max_s``.
    ``inputs``: files or texts, ``batch`` of them in each round, one after the other: how they are read counts too.
    Without any the golden inputs are given, as arrays.
    """

    rounds: Optional[int] = None
    warmup: int = 30
    batch: int = 1
    max_ms: Mapping[int, float] = field(default_factory=dict)
    inputs: Tuple[str, ...] = ()
    min_s: Optional[float] = None
    max_s: float = 60.0

    def sampling(self) -> Sampling:
        """How much is timed; with a budget over time, so that a burst of other work cannot cover all rounds."""
        rounds = rounds_for(list(self.max_ms)) if self.rounds is None else self.rounds
        least_s = min(JUDGED_S, self.max_s) if self.max_ms and self.rounds is None else 0.0
        return Sampling(
            rounds=rounds,
            warmup=self.warmup,
            pace=PACE if self.max_ms else 0.0,
            min_s=least_s if self.min_s is None else self.min_s,
            max_s=self.max_s,
        )


@dataclass(frozen=True)
class Judged:
    """One budget, judged: ``bound`` is what was held against ``limit``."""

    metric: str
    value: float
    bound: Optional[float]
    limit: float
    verdict: Decision
    text: str


@dataclass(frozen=True)
class BenchResult:
    """A package's latency on one machine, and what it says of each budget.

    ``inputs``: how many files or texts were read in turn, 0 where the golden inputs were given as arrays.
    ``warmup_rounds``: those before, at whose end timings were ``steady`` or not. ``state``: what the machine did.
    """

    latency: Latency
    batch: int
    inputs: int
    images_per_second: float
    machine: JsonTable
    seconds: float
    warmup_rounds: int
    steady: bool
    state: Optional[MachineState] = None
    judged: Tuple[Judged, ...] = ()

    @property
    def verdict(self) -> Optional[Decision]:
        """The worst of all budgets, ``None`` without one."""
        return min((one.verdict for one in self.judged), key=WORST_FIRST.index, default=None)

    def explain(self) -> str:
        """The verdicts as sentences, a line each; empty without a budget."""
        return "\n".join(one.text for one in self.judged)

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdicts amount to, or ``None``."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        texts = "; ".join(one.text for one in self.judged if one.verdict == self.verdict)
        return kinds[self.verdict](texts) if self.verdict in kinds else None

    def to_dict(self) -> Dict[str, object]:
        """The result as JSON-ready values; ``max_p90_ms`` is the budget of p90, ``None`` without one."""
        p90 = next((one.limit for one in self.judged if one.metric == _metric(90)), None)
        return {**asdict(self), "verdict": self.verdict, "max_p90_ms": p90}


def bench_package(predictor: Predictor, options: Optional[BenchOptions] = None) -> BenchResult:
    """The latency of ``predict`` on this machine, from what it is given to its answer.

    The numbers are this machine's, whatever target the package was built for; ``machine`` says which it was.

    Raises:
        InputError: rounds, seconds, warmup, batch or budget out of range, or an input that cannot be read.
    """
    options = options or BenchOptions()
    golden = predictor.package.golden_inputs
    _check(options, golden)
    given = _turns(options, golden)
    sampled = sample({"predict": lambda: predictor.predict(next(given))}, options.sampling(), predictor.tell, Watch())
    latency = sampled.measured().latencies["predict"]
    return BenchResult(
        latency=latency,
        batch=options.batch,
        inputs=len(options.inputs),
        images_per_second=1000 * options.batch / latency.p50_ms,
        machine=machine_info(),
        seconds=sampled.seconds,
        warmup_rounds=sampled.warmup_rounds,
        steady=sampled.steady,
        state=sampled.state,
        judged=tuple(_judged(latency, p, options.max_ms[p], sampled) for p in sorted(options.max_ms)),
    )


def _check(options: BenchOptions, golden: Arrays) -> None:
    """Refuses what is out of range."""
    row_bytes = sum(array[0].nbytes for array in golden.values())
    most = max(1, min(MAX_BATCH, MAX_BATCH_BYTES // row_bytes))
    if not 1 <= options.batch <= most:
        raise InputError(f"batch is {options.batch}; must be 1 or more, and at most {most}")
    if options.rounds is not None and not 1 <= options.rounds <= MAX_ROUNDS:
        raise InputError(f"rounds is {options.rounds}; must be 1 or more, and at most {MAX_ROUNDS}")
    for percentile, limit in options.max_ms.items():
        if percentile not in PERCENTILES:
            raise InputError(f"there is a budget for p{percentile}; must be for one of {PERCENTILES}")
        if not 0 < limit < math.inf:
            raise InputError(f"the p{percentile} budget is {limit} ms; must be over 0 and finite")


def _turns(options: BenchOptions, golden: Arrays) -> Iterator[object]:
    """What each round is given, without an end."""
    if not options.inputs:
        feeds = rows_of(golden, np.arange(options.batch) % count_of(golden))
        return itertools.repeat(next(iter(feeds.values())) if len(feeds) == 1 else feeds)  # as a user would give it
    turns = itertools.cycle(options.inputs)
    return (list(itertools.islice(turns, options.batch)) for _ in itertools.count())


def _metric(percentile: int) -> str:
    return f"latency_p{percentile}_ms"


def _judged(latency: Latency, percentile: int, limit: float, sampled: Sampled) -> Judged:
    """What the bounds of a percentile say of its budget."""
    noise = sampled.noise
    verdict = decide(latency.at(percentile), limit, bool(noise))
    seen = widened(latency.at(percentile)) if noise else latency.at(percentile)
    text = _text(seen, limit, verdict, latency.n, sampled)
    bound = seen.lower_ms if verdict == "fail" else seen.upper_ms
    return Judged(_metric(percentile), seen.ms, bound, limit, verdict, text)


def _text(seen: Percentile, limit: float, verdict: Decision, n: int, sampled: Sampled) -> str:
    """The verdict as a sentence."""
    low, high = _ms(seen.lower_ms), _ms(seen.upper_ms)
    ends = {"pass": "met", "fail": "missed", "undecided": f"undecided; {_what_would_decide(seen, n, sampled)}"}
    level, blocks = f"{CONFIDENCE} confidence", f"{n} rounds in {seen.blocks} blocks"
    if seen.by_slowest:
        slowest = f"{UNSEEN:g} times the slowest: they come in bursts"
        range_ = f"at least {low} ({level}, {blocks}), at most {high} ({slowest})"
        if sampled.noise:
            range_ += f", the machine was noisy: {'; '.join(sampled.noise)}"
    elif sampled.noise:
        range_ = f"between {low} and {high} ({noisy_bounds(sampled.noise)}; {blocks})"
    else:
        range_ = f"between {low} and {high} (each at {level}, {blocks})"
    return f"p{seen.percentile} {_ms(seen.ms)}, {range_}; budget {_ms(limit)}: {ends[verdict]}"


def _what_would_decide(seen: Percentile, n: int, sampled: Sampled) -> str:
    more = f"measure with more rounds, for instance {max(4 * n, rounds_for([seen.percentile]))}"
    if sampled.cut:
        more = f"{sampled.seconds:.0f} s were not enough: measure for longer, with --max-seconds"
    return f"{more}, or on a quieter machine" if seen.by_slowest or sampled.noise else more


def _ms(value: Optional[float]) -> str:
    return "an unknown limit" if value is None else f"{value:.4g} ms"
