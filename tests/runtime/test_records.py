"""A record is what a frozen dataclass is, to who uses it, to ``dataclasses`` and to pickle."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pickle
import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import dlx_deploy.runtime
from dlx_deploy.runtime.records import record, replace


@record
class Point:
    """With a default, a check and a method of its own."""

    x: int
    y: int = 2
    label: str | None = None

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(f"x is {self.x}")

    @property
    def total(self) -> int:
        return self.x + self.y


@dataclasses.dataclass(frozen=True)
class Twin:
    """The same as a dataclass."""

    x: int
    y: int = 2
    label: str | None = None


@record
class Named(Point):
    """Of one more field, and with another default above."""

    y: int = 7
    name: str = "n"


class Plain(Point):
    """A class of a record, with no field of its own."""


@record
class Shown:
    """Writes its own."""

    x: int

    def __repr__(self) -> str:
        return "shown"

    def __eq__(self, other: object) -> bool:
        return True


def untyped(cls: Any) -> Any:
    return cls


@pytest.mark.parametrize("values", [(1,), (1, 3), (1, 3, "a")])
def test_it_is_made_compared_shown_and_hashed_as_a_dataclass(values: tuple[Any, ...]) -> None:
    one, twin = untyped(Point)(*values), untyped(Twin)(*values)
    assert repr(one) == repr(twin).replace("Twin", "Point")
    assert hash(one) == hash(twin)
    assert one == untyped(Point)(*values)
    assert one != twin
    assert one != untyped(Point)(5)
    assert dataclasses.asdict(one) == dataclasses.asdict(twin)
    assert dataclasses.astuple(one) == dataclasses.astuple(twin)


def test_arguments_by_name_in_any_order() -> None:
    one = Point(label="a", x=1)
    assert (one.x, one.y, one.label, one.total) == (1, 2, "a", 3)
    assert list(vars(one)) == ["x", "y", "label"]


@pytest.mark.parametrize(
    ("values", "named", "rule"),
    [
        ((), {}, r"Point\(\) missing 1 required arguments: x"),
        ((1, 2, "a", 4), {}, r"Point\(\) got 4 values; its fields are x, y, label"),
        ((1,), {"x": 2}, "got multiple values for 'x'; its fields are x, y, label"),
        ((1,), {"z": 2}, "got an unexpected keyword argument 'z'"),
    ],
)
def test_wrong_arguments_are_refused(values: tuple[Any, ...], named: dict[str, Any], rule: str) -> None:
    with pytest.raises(TypeError, match=rule):
        untyped(Point)(*values, **named)


def test_it_is_frozen() -> None:
    one = untyped(Point(1))
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 3
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del one.x


def test_its_check_runs_for_copies_with_changes_too() -> None:
    assert replace(Point(1), y=5) == Point(1, 5)
    for change in (replace, dataclasses.replace):
        with pytest.raises(ValueError, match="x is -1"):
            change(Point(1), x=-1)
    assert replace(Twin(1), y=5) == Twin(1, 5)
    with pytest.raises(TypeError, match="'z'"):
        untyped(replace)(Point(1), z=5)


def test_one_that_inherits_has_all_fields() -> None:
    assert dataclasses.asdict(Named(1)) == {"x": 1, "y": 7, "label": None, "name": "n"}
    assert replace(Named(1), name="m") == Named(1, 7, None, "m")
    assert Named(1) != Point(1, 7)
    assert replace(Plain(1), y=4) == Plain(1, 4)
    assert isinstance(replace(Plain(1), y=4), Plain)


def test_a_dataclass_may_inherit_from_one() -> None:
    @dataclasses.dataclass(frozen=True)
    class Below(Point):
        more: int = 9

    assert replace(Below(1), more=3) == Below(1, 2, None, 3)
    assert [one.name for one in dataclasses.fields(Below)] == ["x", "y", "label", "more"]


def test_dataclasses_knows_its_fields() -> None:
    assert dataclasses.is_dataclass(Point)
    seen = [(one.name, one.type, one.default) for one in dataclasses.fields(Point)]
    assert seen == [(one.name, one.type, one.default) for one in dataclasses.fields(Twin)]


def test_what_it_writes_itself_is_its_own() -> None:
    assert repr(Shown(1)) == "shown"
    assert Shown(1) == 5
    assert hash(Shown(1)) == hash((1,))


def test_copies_and_pickles() -> None:
    one = Point(1, 3, "a")
    assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - its own


def test_a_field_may_be_read_when_it_is_asked_for() -> None:
    @record
    class Late:
        x: int
        model: bytes

        def __getattr__(self, name: str) -> bytes:
            if name != "model":
                raise AttributeError(name)
            return b"read"

    one = Late(1, b"")
    del one.__dict__["model"]
    assert replace(one, x=2) == Late(2, b"read")
    assert hash(one) == hash(Late(1, b"read"))


def test_of_two_records_above_it_has_the_fields_of_both() -> None:
    @record
    class Size:
        width: int
        height: int

    @record
    class Both(Point, Size):
        more: int = 5

    assert [one.name for one in dataclasses.fields(untyped(Both))] == ["width", "height", "x", "y", "label", "more"]
    assert Both(1, 2, 3) == Both(width=1, height=2, x=3, more=5)


def test_what_no_record_can_be_is_refused_when_it_is_made() -> None:
    changing, behind, below, of_class = (
        {"__annotations__": {"x": "list[int]"}, "x": []},
        {"__annotations__": {"x": "int", "y": "int"}, "x": 1},
        {"__annotations__": {"z": "int"}},
        {"__annotations__": {"x": "ClassVar[int]"}, "x": 1},
    )
    made: list[tuple[tuple[type, ...], dict[str, Any], str]] = [
        ((), changing, "x: a default that can change would be that of all"),
        ((), behind, "x, y: one without a default is behind one that has one"),
        ((Twin,), below, "a record below the dataclass Twin"),
        ((), of_class, "x is a ClassVar"),
    ]
    for above, body, words in made:
        with pytest.raises(TypeError, match=words):
            record(type("Odd", above, body))


def test_dataclasses_finds_the_fields_of_every_record_of_the_runtime() -> None:
    for module in pkgutil.walk_packages(dlx_deploy.runtime.__path__, "dlx_deploy.runtime."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    records = [
        one for one in below(object) if "__record_shape__" in vars(one) and one.__module__.startswith("dlx_deploy")
    ]
    assert len(records) > 100
    for one in records:
        assert [field.name for field in dataclasses.fields(untyped(one))] == list(untyped(one).__record_shape__.names)


def below(cls: type) -> set[type]:
    """All classes that inherit from ``cls``."""
    own = set(type.__subclasses__(cls))
    return own.union(*(below(one) for one in own if one is not type))


def test_nothing_is_generated_at_import() -> None:
    code = (
        "import sys\n"
        "from dlx_deploy.runtime.records import record\n"
        "@record\nclass A:\n    x: int = 1\n"
        "assert A(2) != A() == A(1)\n"
        "assert 'dataclasses' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
