"""A predictor that is watched: what it does is counted, timed, written down, and held against what is usual."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Protocol, Sequence, Tuple, Union

from ..errors import InputError, RuntimeFault
from ..tasks.arrays import Arrays, rows_of, samples_of
from ..untyped import Array
from .counters import Counters, kind_of
from .exposition import Family, counted, gauge
from .health import Health, Watchdog, WatchdogOptions
from .logs import SILENT, EventLog, Fields

if TYPE_CHECKING:
    from ..predictor import Predictor, Run
    from .drift import DriftOptions, DriftWatch
    from .report import DriftReport

__all__ = ["Waited", "Watch"]

DEFAULTS = WatchdogOptions()


class Waited(Protocol):
    """A batch that a queue has run."""

    @property
    def waited_s(self) -> Tuple[float, ...]:
        """How long each call in it had waited."""


class Watch:
    """``predictor``, watched: call ``predict`` here, or hand ``watch.predictor`` to what runs it (a queue).

    Every run of ``watch.predictor`` is timed and counted, and known to the watchdog. Who reads requests himself counts
    them with ``counters``, as ``predict`` does. Counters, health and the log may be used from any thread. With
    ``drift`` each window of samples is held against those of the build.

    Raises:
        PackageError, InputError: as ``DriftWatch``.
    """

    def __init__(
        self,
        predictor: Predictor,
        watchdog: WatchdogOptions = DEFAULTS,
        log: EventLog = SILENT,
        drift: Union[bool, DriftOptions] = False,
    ) -> None:
        self.counters, self.health, self.log = Counters(), Health(), log
        self.watchdog = Watchdog(watchdog)
        self._guarded = predictor.through(self._guard)
        self.predictor = self._guarded.through(self._count)
        self.drift: Optional[DriftWatch] = None
        self._drifting = self._warming = False
        if drift is not False:
            from .drift import DriftOptions, DriftWatch

            asked = DriftOptions() if drift is True else drift
            self.drift = DriftWatch(predictor.package, asked, self._say_drift)
            self.predictor = self.predictor.through(self._see(self.drift))

    @property
    def name(self) -> str:
        """What the package is called."""
        return self.predictor.package.name

    def start(self, selftest: bool = False, warm_up: Callable[[], object] = lambda: None) -> None:
        """Warms the model up and holds it against its golden answers, if asked to; then it is ready.

        ``warm_up``: that of a queue. What is run here is known to the watchdog, and neither counted nor held for the
        field: golden samples are not users'.

        Raises:
            PackageError: it cannot be run. SelfTestFailed: this machine computes something else than the builder.
        """
        package = self.predictor.package
        began = time.perf_counter()
        try:
            self._guarded.run(rows_of(package.golden_inputs, slice(1)))
            self._warming = True
            warm_up()
            if selftest:
                from ..commands.selftest import self_test

                self_test(self._guarded)
        except RuntimeFault as e:
            self.health.move("failed", kind_of(e))
            self._say("failed", {"kind": kind_of(e), "exit_code": e.exit_code}, "error")
            raise
        finally:
            self._warming = False
        self.health.move("ready")
        took_s = round(time.perf_counter() - began, 3)
        self._say("ready", {"version": package.version, "digest": package.digest, "took_s": took_s, "tested": selftest})

    def predict(self, given: object, bgr: bool = False, request: str = "") -> object:
        """As ``Predictor.predict``, watched; ``request`` is what the log calls it.

        Raises:
            InputError, BackendMissing, PackageError: as ``Predictor.predict``; each is counted and written down.
        """
        counters, predictor = self.counters, self.predictor
        counters.request()
        try:
            with counters.timed("read"):
                feeds = predictor.read_given(given, bgr)
            outputs = predictor.run(feeds)
            with counters.timed("decode"):
                answers = predictor.answers(outputs, given)
        except (RuntimeFault, MemoryError) as e:
            self.fault(e, request)
            raise
        counters.answer(_count(outputs))
        return answers

    def waited(self, ran: Waited) -> None:
        """Counts how long the calls in a batch had waited: what a queue's ``observe`` is given."""
        for seconds in ran.waited_s:
            self.counters.took("wait", seconds)

    def fault(self, error: BaseException, request: str = "") -> None:
        """Counts a request that got no answer and writes down why: the kind of error, not its words.

        A message about unusable input quotes it; what is in the log of a server must not be what its users sent.
        """
        kind = kind_of(error)
        self.counters.error(kind)
        self._say("error", {"kind": kind}, "warning" if isinstance(error, InputError) else "error", request)

    def families(self) -> List[Family]:
        """All that is known in numbers, for ``exposition``; those of several packages together are one page."""
        package, health = self.predictor.package, self.health.report()
        labels = {"model": package.name, "version": package.version}
        drift = self.drift.last if self.drift else None
        return [
            *counted(self.counters.snapshot(), labels),
            gauge("dlx_ready", "1: requests may come.", float(health.ready), labels),
            gauge("dlx_live", "1: the process is worth keeping.", float(health.live), labels),
            gauge("dlx_log_lines_lost", "Lines of the log that could not be written.", float(self.log.lost), labels),
            *(drift.families(labels) if drift else ()),
        ]

    def to_dict(self) -> Dict[str, object]:
        """The same as JSON-ready values."""
        package = self.predictor.package
        return {
            "model": package.name,
            "version": package.version,
            "health": self.health.report().to_dict(),
            **self.counters.snapshot().to_dict(),
            "drift": self.drift.to_dict() if self.drift else None,
        }

    def _guard(self, run: Run) -> Run:
        """``run``, known to the watchdog while it lasts."""
        watchdog = self.watchdog

        def guarded(names: Optional[Sequence[str]], feeds: Arrays) -> List[Array]:
            number = watchdog.begin()
            try:
                return run(names, feeds)
            finally:
                watchdog.end(number)

        return guarded

    def _count(self, run: Run) -> Run:
        """``run``, timed and counted; one that fails is timed as well."""
        counters, clock = self.counters, time.perf_counter

        def counting(names: Optional[Sequence[str]], feeds: Arrays) -> List[Array]:
            if self._warming:
                return run(names, feeds)
            began = clock()
            try:
                return run(names, feeds)
            finally:
                counters.ran(samples_of(feeds), clock() - began)

        return counting

    def _see(self, drift: DriftWatch) -> Callable[[Run], Run]:
        """What shows ``drift`` each run; no fault of it costs an answer."""

        def around(run: Run) -> Run:
            def seen(names: Optional[Sequence[str]], feeds: Arrays) -> List[Array]:
                values = run(names, feeds)
                if self._warming:
                    return values
                try:
                    drift.see(feeds, dict(zip(names or (), values)))
                except Exception as e:  # the border to code of a task, which may be another package's
                    self._say("drift-failed", {"kind": kind_of(e)}, "error")
                return values

            return seen

        return around

    def _say_drift(self, report: DriftReport) -> None:
        """A window that has drifted, or the first after such a one that has not."""
        was = self._drifting
        self._drifting = bool(report.drifted)
        if report.drifted or was:
            names = ", ".join(one.describe() for one in report.drifted)
            fields: Fields = {"window": report.window, "in_a_row": report.in_a_row, "features": names}
            self._say("drift" if names else "drift-ended", fields, "warning")

    def _say(self, event: str, fields: Fields, level: str = "info", request: str = "") -> None:
        self.log.event(event, {"model": self.name, **fields}, level, request)


def _count(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))
