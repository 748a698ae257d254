"""The commands as functions: each gives back what it has to say as a view, and prints nothing."""

from __future__ import annotations

from dataclasses import fields
from typing import Callable, Optional, Sequence

import numpy as np

from ..backends.choice import met_hazards
from ..errors import TeacherNeeded
from ..files import PathLike
from ..package.contents import Package
from ..package.trust import Trust
from ..predictor import Predictor
from ..records import record, replace
from ..tasks.arrays import count_of, rows_of
from ..tasks.labelled_arrays import names_of, read_labelled
from ..tasks.source import Sample
from ..tasks.task import Budgets, PredictOptions
from ..telling import telling
from .asked import listed
from .baseline import baseline_predictor, judge_regression
from .bench import BenchOptions, bench_package
from .bench_view import BenchView
from .parity import Parity, check_parity
from .predicting import answered
from .prediction_views import PredictionsView
from .proof import take_proof
from .selftest import self_test
from .verify import PassedOver, teacher_outputs, verify_package
from .verify_view import VerifyView
from .views import EngineView, PackageView, SelfTestView

__all__ = ["VerifyOptions", "bench", "engine", "inspect", "listed", "predict", "selftest", "verify"]


@record
class VerifyOptions:
    """What ``verify`` compares with; ``None`` takes the package's own budgets and reference table.

    ``baseline``: a package that was released before; from it, ``max_regression`` is what ``max_drop`` is from the
    teacher, and the same where it is ``None``. ``trust``: whose signatures it must have, as the package itself.
    """

    max_drop: Optional[float] = None
    confidence: Optional[float] = None
    teacher: Optional[PathLike] = None
    threads: int = 0
    min_accuracy: Optional[float] = None
    max_flips: Optional[float] = None
    max_class_drop: Optional[float] = None
    baseline: Optional[PathLike] = None
    max_regression: Optional[float] = None
    trust: Optional[Trust] = None

    def budgets(self, own: Budgets) -> Budgets:
        """The package's ``own`` budgets with those that were given in their place."""
        names = (one.name for one in fields(own))
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(own, **given)


def inspect(package: Package, path: Optional[PathLike] = None) -> PackageView:
    """What the package is, without opening a session."""
    return PackageView(package, path)


def engine(package: Package, build: bool, cache: Optional[str], say: Callable[[str], None]) -> EngineView:
    """The engine for this machine, built if need be and if ``build`` allows it.

    Raises:
        BackendMissing, EngineError, PackageError: as ``engine.open.prepare_engine``.
    """
    from ..engine.open import engine_settings, prepare_engine

    for hazard in met_hazards(engine_settings(package).flavour, package):
        say(f"warning: this engine is known to compute wrong: {hazard.describe()}")
    return EngineView(package, prepare_engine(package, build, cache, say))


def predict(
    predictor: Predictor, inputs: Sequence[PathLike], options: Optional[PredictOptions] = None
) -> PredictionsView:
    """What the model says of every file, or of every text.

    Raises:
        InputError, BackendMissing: as ``Predictor.predict`` and ``Outputs.rows``.
    """
    samples = [Sample(str(one), str(one)) for one in inputs]
    return PredictionsView(predictor.package, tuple(answered(predictor, samples, options or PredictOptions())))


def selftest(predictor: Predictor, data: Optional[PathLike] = None) -> SelfTestView:
    """The golden samples, compared; with ``data``, the samples of the build, as many as the package knows too.

    Raises:
        SelfTestFailed: a golden sample differs.
        InputError, BackendMissing: as ``read_labelled`` and ``check_parity``.
    """
    with telling(predictor.say, "selftest") as predictor.tell:
        package, result = predictor.package, self_test(predictor)
        if data is None:
            return SelfTestView(package, result)
        given = read_labelled(package.task, data).given
        return SelfTestView(package, result, check_parity(predictor, predictor.read(given)))


def bench(predictor: Predictor, options: BenchOptions, others: Sequence[Predictor] = ()) -> BenchView:
    """The latency here, and the verdict if there is a budget. ``others``: more streams.

    Raises:
        InputError: an option out of range.
    """
    with telling(predictor.say, "bench") as predictor.tell:
        return BenchView(predictor.package, bench_package(predictor, options, others))


def verify(predictor: Predictor, data: PathLike, options: VerifyOptions) -> VerifyView:
    """The accuracy gate on the labelled samples at ``data``.

    Raises:
        InputError, BackendMissing: as ``read_labelled``, ``teacher_outputs`` and ``verify_package``.
        TeacherNeeded: names the first samples that the package does not know.
    """
    with telling(predictor.say, "verify") as predictor.tell:
        package = predictor.package
        baseline, most = None, options.max_regression
        if options.baseline is not None:
            baseline = baseline_predictor(predictor, options.baseline, predictor.options, options.trust)
        labelled = read_labelled(package.task, data)
        feeds, targets, teacher = predictor.read(labelled.given), labelled.targets, None
        if options.teacher is not None:
            teacher = teacher_outputs(options.teacher, package.task, feeds, options.threads)
        parity = None if package.parity is None else Parity(predictor, package.parity)
        budgets = options.budgets(package.budgets)
        try:
            seen = verify_package(predictor, feeds, targets, budgets, teacher, parity)
        except TeacherNeeded as e:
            raise e.of(names_of(package.task, data, labelled)) from e
        regression = None
        if baseline is not None:
            rows = np.delete(np.arange(count_of(feeds)), seen.passed_over)
            asked = Budgets(budgets.max_drop if most is None else most, budgets.confidence)
            judged = rows_of(feeds, rows), rows_of(targets, rows)
            regression = judge_regression(predictor, baseline, *judged, seen.statistic, asked)
        left = None
        if seen.passed_over:
            left = PassedOver.of(seen.passed_over, count_of(feeds), names_of(package.task, data, labelled))
        same = None if parity is None else parity.result()
        view = VerifyView(package, seen.judgement, same, left, regression, alone=seen.alone)
        return replace(view, proof=take_proof(predictor, view.failure, budgets == package.budgets))
