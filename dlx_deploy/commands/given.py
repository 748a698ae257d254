"""What the commands that build and plan take, said once: a configuration, targets, a network and its data."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from dlx_deploy.commands.options import (
    DEFAULT_STORE,
    CheckpointOption,
    ConfigOption,
    DataOption,
    ModelOption,
    NormalisationOption,
    PretrainedOption,
    SetOption,
    SizeOption,
    StoreOption,
    TargetOption,
)

if TYPE_CHECKING:
    from dlx_deploy.oneline import Brought

__all__ = ["Given", "taking", "taking_given"]


@dataclass(frozen=True)
class Given:
    """The options themselves, in the order of ``--help``."""

    config: ConfigOption = None
    target: TargetOption = None
    overrides: SetOption = None
    store: StoreOption = DEFAULT_STORE
    model: ModelOption = None
    checkpoint: CheckpointOption = None
    pretrained: PretrainedOption = False
    data: DataOption = None
    size: SizeOption = None
    normalisation: NormalisationOption = None

    @property
    def brings(self) -> bool:
        """Whether it says anything of a network or its data beside the configuration."""
        return any((self.model, self.checkpoint, self.pretrained, self.data, self.size, self.normalisation))

    @property
    def brought(self) -> Brought:
        """What it says of them."""
        from dlx_deploy.oneline import Brought

        return Brought(
            self.model or "", self.checkpoint, self.pretrained, self.data, self.size or "", self.normalisation or ""
        )


def taking_given(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which has a parameter that is a ``Given``, as a function of its fields, which the parser reads."""
    return taking(Given, command)


def taking(group: type[Any], command: Callable[..., None], last: bool = False) -> Callable[..., None]:
    """``command``, which has a parameter that is a ``group`` of options, as a function of that dataclass's fields.

    ``last``: they stand behind the command's own in ``--help``.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    (place,) = (one.name for one in parameters if one.annotation is group)
    own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters if one.name != place]
    hints = get_type_hints(group, include_extras=True)
    shared = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
        for one in fields(group)
    ]
    names = [one.name for one in shared]

    @functools.wraps(command)
    def spread(**options: Any) -> None:
        given = group(**{name: options.pop(name) for name in names if name in options})
        command(**{place: given}, **options)

    spread.__signature__ = inspect.Signature([*own, *shared] if last else [*shared, *own])  # type: ignore[attr-defined]
    spread.__annotations__ = {}  # the signature has them, as types
    return spread
