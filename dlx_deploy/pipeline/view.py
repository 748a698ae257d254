"""What a stage sees of its target: the fields that are in its key, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from dlx_deploy.targets import Profile

__all__ = ["NO_TARGET", "TargetView", "seen_by"]


class TargetView:
    """A profile of which only the fields in ``uses`` can be read.

    A field that a stage read without declaring it would not be in its key: a change of it would find the old result in
    the store. The profile's own properties work as far as the fields that they rest on are there.
    """

    def __init__(self, target: object, stage: str, uses: tuple[str, ...]) -> None:
        self._target, self._stage, self._uses = target, stage, uses

    def __getattr__(self, name: str) -> object:
        """The profile's value.

        Raises:
            AttributeError: the stage does not declare the field; or there is no such field.
        """
        if name.startswith("_"):  # pickle and copy ask for these, perhaps before __init__ has run
            raise AttributeError(name)
        rule = getattr(type(self._target), name, None)
        if isinstance(rule, property) and rule.fget is not None:
            return rule.fget(self)
        if name in self._uses:
            return getattr(self._target, name)
        raise AttributeError(
            f"stage {self._stage!r} reads target.{name}; its uses are {', '.join(self._uses) or 'none'}, and what it "
            "reads must be in its key: add the field to uses"
        )


def seen_by(stage: str, target: object, uses: Sequence[str]) -> Profile:
    """The profile ``target`` as a stage with these ``uses`` sees it."""
    return cast("Profile", TargetView(target, stage, tuple(uses)))


NO_TARGET = seen_by("without a target", None, ())
"""What a job has where nobody gave it a target: every field is refused."""
