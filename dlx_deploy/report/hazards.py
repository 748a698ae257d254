"""The table of known wrong computations as people look at it: the whole of it, or what one graph would meet where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dlx_deploy.errors import ConfigError
from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.files import TooLarge, read_file, reason
from dlx_deploy.runtime.hazards.operators import Operator, list_operators
from dlx_deploy.runtime.hazards.table import Hazard, hazard_table
from dlx_deploy.runtime.package.contents import open_package
from dlx_deploy.runtime.package.model_bytes import MAX_BYTES
from dlx_deploy.runtime.words import line
from dlx_deploy.targets import list_targets, load_target
from dlx_deploy.targets.hazards import TargetHazard, target_hazards

__all__ = ["HazardsView", "MetView", "view_hazards", "view_met"]

PACKAGE = ".dlx"


class HazardsView(msgspec.Struct, frozen=True):
    """The whole table, and the day on which it was last looked through."""

    date: str
    hazards: tuple[Hazard, ...]

    @property
    def data(self) -> HazardsView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """A line for each, and what to do about it below."""
        rows = [[one.id, one.action, one.where(), one.title] for one in self.hazards]
        return "\n".join([f"as of {self.date}", format_table(["hazard", "action", "where", "what"], rows)])


class MetOn(msgspec.Struct, frozen=True):
    """What a graph meets on one target."""

    target: str
    met: tuple[TargetHazard, ...]


class MetView(msgspec.Struct, frozen=True):
    """What one graph would meet, by target."""

    file: str
    operators: tuple[Operator, ...]
    targets: tuple[MetOn, ...]

    @property
    def data(self) -> MetView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """A line for each hazard and target, and the targets without any in one line."""
        lines = [f"{one.target}, {found.describe()}" for one in self.targets for found in one.met]
        clean = [one.target for one in self.targets if not one.met]
        if clean:
            lines.append(f"nothing is known to be computed wrong on {', '.join(clean)}")
        return "\n".join(map(line, lines))


def view_hazards() -> HazardsView:
    """The whole table."""
    table = hazard_table()
    return HazardsView(table.date, table.hazards)


def view_met(file: Path, targets: Sequence[str]) -> MetView:
    """What the graph in ``file``, an ONNX model or a package, would meet on ``targets``.

    Without any they are the package's own, or all that are built in.

    Raises:
        ConfigError: the file cannot be read, or a target is unknown.
        PackageError: it is no package, or no ONNX model.
    """
    model, own = _model(file)
    try:
        operators = list_operators(model)
    except PackageError as e:
        raise PackageError(f"{file}: {e}") from e
    names = targets or own or [profile.name for profile in list_targets()]
    profiles = [load_target(name).profile for name in names]
    met = tuple(MetOn(profile.name, tuple(target_hazards(operators, profile))) for profile in profiles)
    return MetView(str(file), operators, met)


def _model(file: Path) -> tuple[bytes, list[str]]:
    """The model's bytes, and the target that a package was built for where that is built in."""
    if file.suffix == PACKAGE:
        package = open_package(file)
        built_in = {profile.name for profile in list_targets()}
        return package.model, [package.target] if package.target in built_in else []
    try:
        model = read_file(file, MAX_BYTES)
    except TooLarge as e:
        raise ConfigError(f"{file}: has {e} bytes; an ONNX model has at most {MAX_BYTES}") from e
    except (OSError, ValueError) as e:
        raise ConfigError(f"{file}: cannot be read ({reason(e)}); give an ONNX model or a package") from e
    return model, []  # only its operators are read: weights may lie beside it
