"""What the fields of ``package.json`` must be, beside those that ``Fields`` reads one by one."""

from __future__ import annotations

from typing import Callable, Dict, Optional, Sequence, Tuple

from ..tasks.arrays import Tensor
from .fields import Fields

__all__ = ["MAX_BATCH", "MAX_BATCH_BYTES", "check_batch", "check_rest"]

MAX_BATCH = 65_536
MAX_BATCH_BYTES = 1024**3  # of one batch's input; what a network makes of it is many times as much

Check = Tuple[Callable[[object], bool], str]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_table_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


TEXT: Check = (_is_text, "must be a string")
TABLE: Check = (lambda value: isinstance(value, dict), "must be a table")
OPTIONAL: Dict[str, Check] = {
    "target.kind": TEXT,
    "target.title": TEXT,
    "precision.style": TEXT,
    "precision.layers": (_is_table_of_texts, "must be a table of node: precision"),
    "recipe.kind": TEXT,
    "recipe.precision": TEXT,
    "recipe.elsewhere": TEXT,
    "recipe.reason": TEXT,
    "recipe.backends": (_is_texts, "must be a list of backends, best first"),
    "recipe.engine": TABLE,
    "engine": TABLE,
    "engine.status": (lambda value: value in ("none", "checked", "shipped"), "must be none, checked or shipped"),
    "engine.builder": TEXT,
    "engine.layers": TEXT,
}
"""Path → what the value there must be; an absent one is fine, and so is null where ``NULLABLE`` says so."""
NULLABLE = ("recipe.engine",)


def check_rest(field: Fields) -> None:
    """Refuses a field that this runtime shows or goes by and that is of the wrong kind.

    Raises:
        PackageError: names the field, its value and the rule.
    """
    field.get("precision.plan", str)
    for path, (holds, rule) in OPTIONAL.items():
        if field.has(path):
            value = field.at(path)
            if not (value is None and path in NULLABLE) and not holds(value):
                raise field.wrong(path, value, rule)
    if field.at("engine.status") in ("checked", "shipped"):
        field.get("engine.builder", str)
        field.get("engine.layers", str)


def check_batch(field: Fields, inputs: Sequence[Tensor], batch: Optional[int]) -> None:
    """Refuses a fixed batch size whose inputs alone would fill a machine's memory.

    Raises:
        PackageError: as ``check_rest``.
    """
    if batch is None:
        return
    if batch > MAX_BATCH or batch * sum(tensor.row_bytes for tensor in inputs) > MAX_BATCH_BYTES:
        rule = f"a batch has at most {MAX_BATCH} inputs and {MAX_BATCH_BYTES} bytes"
        raise field.wrong("inputs.0.shape", field.at("inputs.0.shape"), rule)
