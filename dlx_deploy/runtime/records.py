"""Frozen records: what ``@dataclass(frozen=True)`` makes of a class, without the code that it generates for each.

Python's own compiles six methods a class, which for the classes of a package took most of what its own imports took;
here all records share theirs. ``dataclasses`` knows records nevertheless (``fields``, ``asdict``, ``is_dataclass``, and
a dataclass may inherit from one), and to type checkers they are dataclasses. What needs ``field(…)`` is a dataclass.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Dict, Type, TypeVar

if TYPE_CHECKING:
    from dataclasses import replace

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**told):
        """Nothing: what it tells is for type checkers."""
        return lambda made: made


__all__ = ["record", "replace"]

R = TypeVar("R")
SHAPE = "__record_shape__"


class _Shape:
    """The fields of a record: their annotations in order, those of the classes above first, and their defaults."""

    def __init__(self, cls: Type[object]) -> None:
        self.hints: Dict[str, object] = {}
        self.defaults: Dict[str, object] = {}
        for base in reversed(cls.__mro__[1:]):
            above = base.__dict__.get(SHAPE)
            if above is None and "__dataclass_fields__" in base.__dict__:
                raise TypeError(f"{cls.__name__} is a record below the dataclass {base.__name__}; make it one, too")
            self.hints.update(above.hints if above else {})
            self.defaults.update(above.defaults if above else {})
        own = cls.__annotations__ if sys.version_info >= (3, 10) else vars(cls).get("__annotations__", {})
        self.hints.update(own)
        self.defaults.update((name, cls.__dict__[name]) for name in own if name in cls.__dict__)
        self.names = tuple(self.hints)
        self._refuse(cls.__name__, own)

    def _refuse(self, owner: str, own: Dict[str, object]) -> None:
        """What a dataclass refuses, or reads otherwise: a class that cannot be a record says so when it is made."""
        for name in own:
            if isinstance(self.defaults.get(name), (list, dict, set)):
                raise TypeError(f"{owner}.{name}: a default that can change would be that of all; use a tuple")
            if "ClassVar" in str(own[name]):
                raise TypeError(f"{owner}.{name} is a ClassVar; a record has none: give it a place in the module")
        given = [name in self.defaults for name in self.names]
        if given != sorted(given):
            raise TypeError(f"{owner}: {', '.join(self.names)}: one without a default is behind one that has one")

    def bound(self, owner: str, values: Any, named: Dict[str, object]) -> Dict[str, object]:
        """The value of each field, in order.

        Raises:
            TypeError: one is missing, unknown or given twice, as a call of a function has it.
        """
        given = dict(zip(self.names, values))
        wrong = [name for name in named if name in given or name not in self.hints]
        if wrong or len(values) > len(self.names):
            what = f"got {len(values)} values"
            if wrong:
                twice = wrong[0] in given
                what = (
                    f"got multiple values for {wrong[0]!r}"
                    if twice
                    else f"got an unexpected keyword argument {wrong[0]!r}"
                )
            raise TypeError(f"{owner}() {what}; its fields are {', '.join(self.names)}")
        given.update(named)
        missing = [name for name in self.names if name not in given and name not in self.defaults]
        if missing:
            raise TypeError(f"{owner}() missing {len(missing)} required arguments: {', '.join(missing)}")
        return {name: given[name] if name in given else self.defaults[name] for name in self.names}


class _Described:
    """``__dataclass_fields__`` and ``__dataclass_params__`` of a record, made when ``dataclasses`` first asks."""

    def __init__(self, cls: Type[object], name: str) -> None:
        self._cls, self._name = cls, name

    def __get__(self, instance: object, owner: Type[object]) -> object:
        from dataclasses import dataclass

        shape = self._cls.__dict__[SHAPE]
        same = {
            "__annotations__": shape.hints,
            "__module__": self._cls.__module__,
            "__doc__": "A record.",
            **shape.defaults,
        }
        made: Type[object] = dataclass(frozen=True)(type(self._cls.__name__, (), same))
        for name in DESCRIBED:
            setattr(self._cls, name, getattr(made, name))
        return getattr(made, self._name)


DESCRIBED = ("__dataclass_fields__", "__dataclass_params__")


def _init(self: Any, *values: object, **named: object) -> None:
    shape = self.__record_shape__
    if named or len(values) != len(shape.names):
        self.__dict__.update(shape.bound(type(self).__name__, values, named))
    else:
        self.__dict__.update(zip(shape.names, values))
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _values(one: Any) -> Any:
    names = one.__record_shape__.names
    try:
        return tuple(map(one.__dict__.__getitem__, names))
    except KeyError:  # a field that the record reads when it is asked for it
        return tuple([getattr(one, name) for name in names])


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__record_shape__.names)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _set(self: object, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


METHODS = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _set,
    "__delattr__": _delete,
}


@dataclass_transform(frozen_default=True)
def record(cls: Type[R]) -> Type[R]:
    """``cls`` as a frozen record of the fields that it annotates; a method that it writes itself is its own."""
    shape = _Shape(cls)
    setattr(cls, SHAPE, shape)
    for name, method in METHODS.items():
        if cls.__dict__.get(name) is None:  # a class that writes ``==`` has a hash of ``None``
            setattr(cls, name, method)
    for name in DESCRIBED:
        setattr(cls, name, _Described(cls, name))
    return cls


if not TYPE_CHECKING:

    def replace(one: R, **changes: object) -> R:
        """A copy of ``one``, a record or a dataclass, with these fields of other values."""
        shape = type(one).__dict__.get(SHAPE)
        if shape is None:
            from dataclasses import replace

            return replace(one, **changes)
        return type(one)(**{name: getattr(one, name) for name in shape.names if name not in changes}, **changes)
