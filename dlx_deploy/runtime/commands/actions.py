"""The commands as functions: each gives back what it has to say as a view, and prints nothing."""

from __future__ import annotations

from dataclasses import fields
from typing import Callable, Dict, Iterable, Optional, Sequence, Tuple

import numpy as np

from ..backends.choice import met_hazards
from ..errors import InputError, TeacherNeeded
from ..files import PathLike
from ..package.contents import Package
from ..package.trust import Trust
from ..predictor import Predictor
from ..records import record, replace
from ..tasks.arrays import count_of, rows_of
from ..tasks.grouped import GROUP, numbered_groups
from ..tasks.labelled_arrays import Labelled, names_of, read_labelled
from ..tasks.slice_verdicts import judge_slices
from ..tasks.slices import asked_slices
from ..tasks.source import Sample
from ..tasks.task import Budgets, PredictOptions
from ..telling import telling
from ..untyped import Array
from .asked import listed
from .baseline import baseline_predictor, baseline_statistic, judge_regression
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

__all__ = ["VerifyOptions", "bench", "engine", "inspect", "listed", "listed_columns", "predict", "selftest", "verify"]


@record
class VerifyOptions:
    """What ``verify`` compares with; ``None`` takes the package's own budgets and reference table.

    ``baseline``: a package that was released before; from it, ``max_regression`` is what ``max_drop`` is from the
    teacher, and the same where it is ``None``. ``trust``: whose signatures it must have, as the package itself.
    ``slices``: the columns whose values are slices; ``max_slice_drop``: of each of them.
    """

    max_drop: Optional[float] = None
    confidence: Optional[float] = None
    teacher: Optional[PathLike] = None
    threads: int = 0
    min_accuracy: Optional[float] = None
    max_flips: Optional[float] = None
    max_class_drop: Optional[float] = None
    slices: Optional[str] = None
    max_slice_drop: Optional[float] = None
    baseline: Optional[PathLike] = None
    max_regression: Optional[float] = None
    trust: Optional[Trust] = None

    def budgets(self, own: Budgets) -> Budgets:
        """The package's ``own`` budgets with those that were given in their place.

        Raises:
            InputError: as ``asked_slices``.
        """
        names = (one.name for one in fields(own) if one.name != "slices")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        slices = asked_slices(own.slices, self.columns, self.max_slice_drop)
        return replace(own, **given, slices=slices)

    @property
    def columns(self) -> Optional[Tuple[str, ...]]:
        """The columns that ``slices`` names."""
        return None if self.slices is None else tuple(filter(None, map(str.strip, self.slices.split(","))))

    def check_columns(self, found: Iterable[str]) -> None:
        """Refuses columns that were asked for by name and not ``found``, in any case.

        Raises:
            InputError: names the first.
        """
        there = {name.lower() for name in found}
        for name in self.columns or ():
            if name.lower() not in there:
                raise InputError(
                    f"--slices names {name!r}, and the samples that were given do not come with such a column; give "
                    "the list (.csv, .jsonl) that has it, or name another"
                )


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
        budgets = options.budgets(package.budgets)
        labelled = read_labelled(package.task, data, listed_columns(budgets))
        options.check_columns(labelled.columns)
        feeds, targets, teacher = predictor.read(labelled.given), {**labelled.targets, **_groups(labelled)}, None
        if options.teacher is not None:
            teacher = teacher_outputs(options.teacher, package.task, feeds, options.threads)
        parity = None if package.parity is None else Parity(predictor, package.parity)
        try:
            seen = verify_package(predictor, feeds, targets, budgets, teacher, parity)
        except TeacherNeeded as e:
            raise e.of(names_of(package.task, data, labelled)) from e
        regression, outputs = None, package.task.outputs
        rows = np.delete(np.arange(count_of(feeds)), seen.passed_over)
        columns = {name: [values[i] for i in rows.tolist()] for name, values in labelled.columns.items()}
        slices = judge_slices(outputs, (seen.teacher, seen.statistic), columns, budgets)
        if baseline is not None:
            asked = Budgets(budgets.max_drop if most is None else most, budgets.confidence, slices=budgets.slices)
            theirs = baseline_statistic(predictor, baseline, rows_of(feeds, rows), rows_of(targets, rows))
            pair = theirs, seen.statistic
            of_both = judge_slices(outputs, pair, columns, asked)
            regression = judge_regression(baseline.package, outputs, pair, asked, of_both)
        left = None
        if seen.passed_over:
            left = PassedOver.of(seen.passed_over, count_of(feeds), names_of(package.task, data, labelled))
        same = None if parity is None else parity.result()
        view = VerifyView(package, seen.judgement, same, left, regression, alone=seen.alone, slices=slices)
        return replace(view, proof=take_proof(predictor, view.failure, budgets == package.budgets))


def listed_columns(budgets: Budgets) -> Sequence[str]:
    """The columns of a list of samples that are asked for beside what they are: slices, and groups."""
    return list(dict.fromkeys([*budgets.slices.columns, GROUP]))


def _groups(labelled: Labelled) -> Dict[str, Array]:
    """The group of each sample, where their list says it."""
    return {GROUP: numbered_groups(labelled.columns[GROUP])} if GROUP in labelled.columns else {}
