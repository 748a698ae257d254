"""What a pass over a graph is, and the runner that names the one that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from dlx_deploy.errors import DlxError, StageFailed

__all__ = ["Findings", "Pass", "run_passes"]

Findings = Callable[[ModelProto], Sequence[str]]
"""What is wrong with a graph, a sentence each; an empty list is a graph that will do."""

SHOWN = 5
"""Findings in a message; the first few say what kind of trouble it is."""


def _nothing(model: ModelProto) -> Sequence[str]:
    """No demands."""
    return ()


@dataclass(frozen=True)
class Pass:
    """One step over a graph, and its contract.

    ``run`` gives the new graph and may edit the one it gets, which is spent. ``requires`` is asked of that graph
    before, ``ensures`` of the result.
    """

    name: str
    run: Callable[[ModelProto], ModelProto]
    requires: Findings = _nothing
    ensures: Findings = _nothing


def run_passes(model: ModelProto, passes: Sequence[Pass], origin: str) -> ModelProto:
    """The graph after all ``passes``, in order; ``model`` is spent. ``origin`` says in messages which graph it is.

    Raises:
        StageFailed: a pass got or left a graph that breaks its contract, or raised what is no error of ours.
        DlxError: what a pass raised, of its own type.
    """
    for position, step in enumerate(passes):
        where = f"in the pass {step.name!r}{_after(passes[:position])}"
        _refuse(step.requires(model), f"{origin}: the graph is not what the pass {step.name!r} needs", where)
        try:
            model = step.run(model)
        except DlxError as e:
            raise type(e)(f"{origin}: {e} ({where})") from e
        except MemoryError:  # nobody's mistake, and said where it is caught
            raise
        except Exception as e:  # onnx, onnxscript and a plug-in's pass may raise anything
            raise StageFailed(f"{origin}: {type(e).__name__}: {e} ({where})") from e
        _refuse(step.ensures(model), f"{origin}: the graph breaks what the pass {step.name!r} ensures", where)
    return model


def _refuse(findings: Sequence[str], what: str, where: str) -> None:
    if findings:
        more = f"; and {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
        raise StageFailed(f"{what}: {'; '.join(findings[:SHOWN])}{more} ({where})")


def _after(before: Sequence[Pass]) -> str:
    return f", after {', '.join(step.name for step in before)}" if before else ", the first"
