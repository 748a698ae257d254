"""What a graph's operators would do on each target: listed from a table in a plan, asked of a parser in a rehearsal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlx_deploy.config import Config
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.errors import BackendMissing
from dlx_deploy.stages.support.engine import RTX, builder_for
from dlx_deploy.targets import Profile
from dlx_deploy.targets.operators import Verdict, operator_verdicts

__all__ = ["file_verdicts", "operator_notes", "refuse_unread", "teacher_verdicts"]

_SHOWN = 5


def teacher_verdicts(config: Config, profiles: Sequence[Profile]) -> list[Verdict]:
    """What becomes on each target of the operators of a teacher that is an ONNX file, as it came; none of another."""
    path = Path(config.teacher.model)
    if path.suffix.lower() != ".onnx" or not config.teacher.is_graph or not path.is_file():
        return []
    return file_verdicts(path, profiles)


def file_verdicts(path: Path, profiles: Sequence[Profile]) -> list[Verdict]:
    """What becomes on each target of the operators of the ONNX model ``path``.

    Functions that the file itself defines are inlined, so their operators stand for them.

    Raises:
        ConfigError: it cannot be read, or is no ONNX model.
    """
    from dlx_deploy.graph.foreign.wire import read_facts
    from dlx_deploy.runtime.hazards.operators import Operator, list_operators

    facts = read_facts(path)
    seen = list_operators(path.read_bytes())
    listed = {(one.domain, one.type) for one in seen}
    inside = [
        Operator(name, facts.opset, "", "", domain=domain, count=count)
        for (domain, name), count in facts.operators.items()
        if (domain, name) not in listed
    ]
    operators = [one for one in (*seen, *inside) if (one.domain, one.type) not in facts.functions]
    return [verdict for profile in profiles for verdict in operator_verdicts(operators, profile)]


def operator_notes(name: str, verdicts: Sequence[Verdict]) -> list[str]:
    """A sentence for each target that does not read, or may not read, what the graph has."""
    notes = []
    for word in ("not supported", "not known"):
        for target in dict.fromkeys(verdict.target for verdict in verdicts):
            those = [one for one in verdicts if one.target == target and one.verdict == word]
            if those:
                notes.append(f"{name} as it came, on {target}, {those[0].runtime}: {word}: {_few(those)}")
    return notes


def refuse_unread(config: Config, profile: Profile, model: bytes, name: str) -> None:
    """Nothing, if the target's own engine builder reads every operator of ``model``, as far as that is known here.

    The table says it for the version that the target has; the parser that will compile the graph, where one is
    installed, is asked itself.

    Raises:
        ConfigError: it does not.
    """
    if not profile.builds_engines:
        return
    from dlx_deploy.runtime.hazards.operators import list_operators

    verdicts = operator_verdicts(list_operators(model), profile)
    unread = [one for one in verdicts if one.verdict == "not supported"]
    if unread:
        raise ConfigError(
            f"{name}: {profile.name} runs it by {unread[0].runtime}, whose parser does not read {_few(unread)}; export "
            "it without them, build for a target that runs ONNX Runtime (rpi5), or for a board.toml that extends "
            f"{profile.name} with backends = ['onnxruntime-cuda', 'onnxruntime-cpu']"
        )
    _ask_parser(config, profile, model, name)


def _ask_parser(config: Config, profile: Profile, model: bytes, name: str) -> None:
    flavour = builder_for(config, profile).partition(" ")[0]
    if not flavour:
        return
    from dlx_deploy.runtime.engine.api import load_api

    try:
        refused = load_api(flavour).refused(model)
    except BackendMissing:
        return  # compile says what to install
    if refused:
        stands_in = flavour == RTX and profile.kind != RTX
        remedy = f"; it stands in for the TensorRT of {profile.name}: compile.engine = 'off' leaves it out"
        raise ConfigError(f"{name}: {refused}{remedy if stands_in else ''}")


def _few(verdicts: Sequence[Verdict]) -> str:
    shown = [f"{one.operator} ({one.count}{f', {one.note}' if one.note else ''})" for one in verdicts[:_SHOWN]]
    more = len(verdicts) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
