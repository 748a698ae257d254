"""Which images a file with a finished network reads, as far as it says so; no onnx and no torch."""

from __future__ import annotations

from pathlib import Path

from dlx_deploy.graph.foreign.program import program_facts
from dlx_deploy.graph.foreign.usable import Picture, picture_of, refuse_inputs, usable_facts
from dlx_deploy.graph.foreign.wire import Value

__all__ = ["PROGRAM", "picture_in", "usable_ends"]

PROGRAM = ".pt2"


def usable_ends(path: Path) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """The inputs and the outputs of the network in ``path``, if it can be used.

    Raises:
        ConfigError: it cannot be read, or used.
    """
    if path.suffix.lower() != PROGRAM:
        facts = usable_facts(path)
        return tuple(facts.inputs), tuple(facts.outputs)
    program = program_facts(path)
    refuse_inputs(program.inputs, path)
    return program.inputs, program.outputs


def picture_in(path: Path) -> Picture | None:
    """The size of the images that the network in ``path`` reads; ``None`` where it takes any.

    Raises:
        ConfigError: as ``usable_ends``.
    """
    inputs, _ = usable_ends(path)
    return picture_of(inputs)
