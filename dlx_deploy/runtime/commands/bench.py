"""A package's latency on this machine, what the machine was that gave it, and whether budgets are met."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..device_budgets import DeviceBudgets
from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..machine import machine_info
from ..package.rules import MAX_BATCH, MAX_BATCH_BYTES
from ..predictor import Predictor
from ..records import record, replace
from ..statistics.drops import Decision
from ..tasks.arrays import Arrays, count_of, rows_of
from ..timing.cold import JUDGED_STARTS, ColdStart, cold_starts, judge_cold_start
from ..timing.latency import CONFIDENCE, PERCENTILES, Latency, Percentile, decide, rounds_for, summarise
from ..timing.probe import Phases, Probe
from ..timing.sampling import JUDGED_S, NEAR_S, PACE, Sampling, sample
from ..timing.state import MachineState, Watch
from ..timing.streams import sample_streams
from ..timing.verdicts import Judged, judge, metric_of
from ..untyped import JsonTable
from .resources import Resources, judge_resources, measure_resources

__all__ = ["BenchOptions", "BenchResult", "Throughput", "bench_package"]

MAX_ROUNDS = 1_000_000_000
BATCH_ROUNDS = 60  # of each batch size, in turn
WORST_FIRST: Tuple[Decision, ...] = ("fail", "undecided", "pass")


@dataclass(frozen=True)
class BenchOptions:
    """How ``bench_package`` measures. ``max_ms``: the budgets, by percentile: one of 50, 90, 99.

    ``rounds``: ``None`` takes as many as the highest of these percentiles needs. With a budget it then takes three
    seconds at least, ten if one is near, if ``min_s`` says nothing else; and never longer than ``max_s``.
    ``batches``: the first is what percentiles and budgets are of; of all of them, where there are more, the throughput.
    ``inputs``: files or texts, a batch of them in each round, one after the other: how they are read counts too.
    Without any the golden inputs are given, as arrays. ``device``: the budgets of throughput, memory, size and energy,
    which are then measured; ``None``: they are not. ``cold_starts``: so many, at least five where they have a budget.
    """

    rounds: Optional[int] = None
    warmup: int = 30
    batches: Tuple[int, ...] = (1,)
    max_ms: Mapping[int, float] = field(default_factory=dict)
    inputs: Tuple[str, ...] = ()
    min_s: Optional[float] = None
    max_s: float = 60.0
    device: Optional[DeviceBudgets] = None
    cold_starts: int = 0

    @property
    def batch(self) -> int:
        """What percentiles and budgets are of."""
        return self.batches[0]

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
            near_s=min(NEAR_S, self.max_s),
            settled=self._far_off if self.max_ms and self.rounds is None and self.min_s is None else None,
        )

    def _far_off(self, timings: Mapping[str, Sequence[int]]) -> bool:
        """Whether every budget is so far from what was measured that the verdict is plain at three times the bounds."""
        latency = summarise(timings["predict"])
        return all(decide(latency.at(p), limit, noisy=True) != "undecided" for p, limit in self.max_ms.items())


@record
class Throughput:
    """Samples a second at a batch size, one query after the other: by the median latency, and between its bounds."""

    batch: int
    p50_ms: float
    per_second: float
    lower: Optional[float]
    upper: Optional[float]


@record
class BenchResult:
    """A package's latency on one machine, and what it says of each budget.

    ``inputs``: how many files or texts were read in turn, 0 where the golden inputs were given as arrays.
    ``warmup_rounds``: those before, at whose end timings were ``steady`` or not. ``state``: what the machine did.
    ``checked``: so many timed runs' outputs were compared with what they must be. ``images_per_second``: with several
    ``streams`` what all of them were answered, else by the median.
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
    phases: Optional[Phases] = None
    checked: int = 0
    streams: int = 1
    throughput: Tuple[Throughput, ...] = ()
    cold_start: Optional[ColdStart] = None
    judged: Tuple[Judged, ...] = ()
    resources: Optional[Resources] = None

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
        """The result as JSON-ready values; ``max_p90_ms`` is the budget of p90, ``None`` without one, and
        ``confidence`` that of each bound."""
        p90 = next((one.limit for one in self.judged if one.metric == metric_of(90)), None)
        resources = self.resources.to_dict() if self.resources else None
        plain = asdict(replace(self, resources=None))
        own = {"resources": resources, "verdict": self.verdict, "max_p90_ms": p90, "confidence": CONFIDENCE}
        return {**plain, **own}


def bench_package(
    predictor: Predictor, options: Optional[BenchOptions] = None, others: Sequence[Predictor] = ()
) -> BenchResult:
    """The latency of ``predict`` on this machine, from what it is given to its answer.

    The numbers are this machine's, whatever target the package was built for; ``machine`` says which it was.
    ``others``: as many more streams, each with its own session, which ask at the same time.

    Raises:
        InputError: rounds, seconds, warmup, batch or budget out of range, or an input that cannot be read.
        SelfTestFailed: a timed run's outputs are not the golden ones.
    """
    options = options or BenchOptions()
    golden = predictor.package.golden_inputs
    _check(options, golden)
    probes = [Probe(one) for one in (predictor, *others)]
    calls = [_call(probe, _turns(options, golden, options.batch)) for probe in probes]
    if others:
        sampled = sample_streams(calls, options.sampling(), Watch())
    else:
        sampled = sample({"predict": calls[0]}, options.sampling(), predictor.tell, Watch())
    checked = sum(probe.check(partial(_expected, predictor, options)) for probe in probes)
    latency = sampled.measured().latencies["predict"]
    answered = latency.n / sampled.seconds if others else 1000 / latency.p50_ms
    resources, cold = _resources(predictor, options), _cold_starts(predictor, options)
    if resources and cold:  # here, benchmarks or a whole test set were held too
        resources = replace(resources, peak_memory_mib=cold.peak_mib)
    own = judge_resources(resources, options.device) if resources and options.device else ()
    if options.device and options.device.max_cold_start_ms:
        own = (*own, judge_cold_start(cold, options.device.max_cold_start_ms))
    return BenchResult(
        latency=latency,
        batch=options.batch,
        inputs=len(options.inputs),
        images_per_second=options.batch * answered,
        machine=machine_info(),
        seconds=sampled.seconds,
        warmup_rounds=sampled.warmup_rounds,
        steady=sampled.steady,
        state=sampled.state,
        phases=probes[0].phases(options.warmup),
        checked=checked,
        streams=len(probes),
        throughput=_throughput(predictor, options) if len(options.batches) > 1 else (),
        cold_start=cold,
        judged=(*(judge(latency, p, options.max_ms[p], sampled) for p in sorted(options.max_ms)), *own),
        resources=resources,
    )


def _resources(predictor: Predictor, options: BenchOptions) -> Optional[Resources]:
    """What budgets and sensors ask for, with answers that are compared as those of the timed run are."""
    if options.device is None:
        return None
    probe = Probe(predictor)
    size = options.device.throughput_batch
    call = _call(probe, _turns(options, predictor.package.golden_inputs, size))
    seen = measure_resources(call, options.device, predictor.backend.name, predictor.tell)
    if seen.sustained:
        probe.check(partial(_expected, predictor, replace(options, batches=(size,))))
    return replace(seen, package_bytes=predictor.package.size_bytes)


def _cold_starts(predictor: Predictor, options: BenchOptions) -> Optional[ColdStart]:
    """As many as are asked for, or judged; ``None`` for none, or where the package is no file."""
    budgets, package = options.device, predictor.package
    judged = JUDGED_STARTS if budgets and budgets.max_cold_start_ms else int(bool(budgets and budgets.max_memory_mib))
    count = max(options.cold_starts, judged)
    if not count or package.path is None:
        return None
    return cold_starts(package.path, package.digest, predictor.options, count, predictor.tell)


def _call(probe: Probe, given: Iterator[object]) -> Callable[[], None]:
    return lambda: probe.call(next(given))


def _expected(predictor: Predictor, options: BenchOptions, given: object) -> Arrays:
    """What must come out: the golden outputs, and of what a user named, what the model says of it when not timed."""
    golden = predictor.package.golden_outputs
    if not options.inputs:
        return rows_of(golden, np.arange(options.batch) % count_of(golden))
    return predictor.run(predictor.read(given))


def _throughput(predictor: Predictor, options: BenchOptions) -> Tuple[Throughput, ...]:
    """At every batch size, in turn."""
    golden = predictor.package.golden_inputs
    probes = {size: Probe(predictor) for size in options.batches}
    calls = {str(size): _call(probe, _turns(options, golden, size)) for size, probe in probes.items()}
    asked = Sampling(BATCH_ROUNDS, min(options.warmup, 3), pace=0.0, max_s=options.max_s)
    seen = sample(calls, asked, predictor.tell).measured().latencies
    for size, probe in probes.items():
        probe.check(partial(_expected, predictor, replace(options, batches=(size,))))
    return tuple(_per_second(size, seen[str(size)].at(50)) for size in options.batches)


def _per_second(size: int, seen: Percentile) -> Throughput:
    upper = None if not seen.lower_ms else 1000 * size / seen.lower_ms
    return Throughput(size, seen.ms, 1000 * size / seen.ms, seen.upper_ms and 1000 * size / seen.upper_ms, upper)


def _check(options: BenchOptions, golden: Arrays) -> None:
    """Refuses what is out of range."""
    row_bytes = sum(array[0].nbytes for array in golden.values())
    most = max(1, min(MAX_BATCH, MAX_BATCH_BYTES // row_bytes))
    for size in (*options.batches, options.device.throughput_batch if options.device else 1):
        if not 1 <= size <= most:
            raise InputError(f"batch is {size}; must be 1 or more, and at most {most}")
    if options.rounds is not None and not 1 <= options.rounds <= MAX_ROUNDS:
        raise InputError(f"rounds is {options.rounds}; must be 1 or more, and at most {MAX_ROUNDS}")
    for name, limit in (options.device.to_dict() if options.device else {}).items():
        if not 0 < limit < math.inf:
            raise InputError(f"the budget {name} is {limit}; must be over 0 and finite")
    for percentile, limit in options.max_ms.items():
        if percentile not in PERCENTILES:
            raise InputError(f"there is a budget for p{percentile}; must be for one of {PERCENTILES}")
        if not 0 < limit < math.inf:
            raise InputError(f"the p{percentile} budget is {limit} ms; must be over 0 and finite")


def _turns(options: BenchOptions, golden: Arrays, batch: int) -> Iterator[object]:
    """What each round is given, without an end."""
    if not options.inputs:
        feeds = rows_of(golden, np.arange(batch) % count_of(golden))
        return itertools.repeat(next(iter(feeds.values())) if len(feeds) == 1 else feeds)  # as a user would give it
    turns = itertools.cycle(options.inputs)
    return (list(itertools.islice(turns, batch)) for _ in itertools.count())
