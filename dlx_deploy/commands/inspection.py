"""What a file or a name is: a package, a checkpoint, a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from dlx_deploy.commands.options import JsonOption, TargetOption, finish, print_view
from dlx_deploy.commands.packages import selftest
from dlx_deploy.commands.trusting import Trusting, taking_trust
from dlx_deploy.errors import ConfigError

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.trust import Trust
    from dlx_deploy.runtime.views import CommandView

__all__ = ["inspect"]

ONNX = ".onnx"
STDOUT = "-"


@taking_trust
def inspect(
    trusting: Trusting,
    what: Annotated[
        str,
        typer.Argument(
            help="A .dlx file, a checkpoint (.pt, .safetensors, …), an .onnx, or a network's name.",
            metavar="PACKAGE|CHECKPOINT|ONNX|MODEL",
        ),
    ],
    model: Annotated[str, typer.Option("--model", help="Of a checkpoint: the network to compare it with.")] = "",
    argument: Annotated[
        list[str] | None, typer.Option("--argument", help="Of a network: KEY=VALUE, as teacher.arguments has it.")
    ] = None,
    classes: Annotated[int, typer.Option("--classes", help="Of a network.", min=1)] = 10,
    size: Annotated[int, typer.Option("--size", help="Of a network that reads images: pixels.", min=1)] = 224,
    channels: Annotated[int, typer.Option("--channels", help="Of a network that reads images.", min=1)] = 3,
    target: TargetOption = None,
    verify_signature: Annotated[
        bool, typer.Option("--verify-signature", help="Of a package: by --public-key or --certificates.")
    ] = False,
    sbom: Annotated[
        Path | None, typer.Option(help="Of a package: write its CycloneDX bill of materials there; -: print it.")
    ] = None,
    tested: Annotated[bool, typer.Option("--selftest", help="As the command selftest.", hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a package is, every digest checked; what a checkpoint holds and is of; what the operators of an ONNX
    would do on each --target; or a network's parts.
    """
    from dlx_deploy.nn.weights.suffixes import CHECKPOINTS

    path = Path(what)
    suffix = path.suffix.lower()
    asked = verify_signature or trusting != Trusting() or sbom is not None
    if asked and (suffix in (*CHECKPOINTS, ONNX) or _is_network(what)):
        raise ConfigError(f"{what} is no package; only packages have --sbom, and signatures: leave those options out")
    if tested:
        selftest(package=path, as_json=as_json, **vars(trusting))
    elif suffix in CHECKPOINTS:
        from dlx_deploy.report.networks import view_checkpoint
        from dlx_deploy.report.screen import showing

        with showing("inspect") as progress:
            view = view_checkpoint(path, model, progress)
        print_view(view, as_json)
    elif suffix == ONNX:
        from dlx_deploy.report.graphs import view_graph

        print_view(view_graph(path, target or []), as_json)
    elif _is_network(what):
        from dlx_deploy.report.networks import view_network

        print_view(view_network(what, _arguments(argument or ()), classes, (channels, size)), as_json)
    elif sbom is not None:
        _write_sbom(path, sbom, trusting.trust(verify_signature), as_json)
    else:
        from dlx_deploy.runtime.commands import actions as commands
        from dlx_deploy.runtime.package.contents import open_package

        inspected = commands.inspect(open_package(path, trusting.trust(verify_signature)), path)
        finish(_with_proofs(inspected, path), as_json)


def _write_sbom(package: Path, out: Path, trust: Trust | None, as_json: bool) -> None:
    from dlx_deploy.report.sbom import view_sbom
    from dlx_deploy.runtime.files import reason, write_atomically
    from dlx_deploy.runtime.package.archive import to_json

    view = view_sbom(package, str(out), trust)
    if str(out) == STDOUT:
        print_view(view, as_json=True)
        return
    if out.exists() and out.samefile(package):
        raise ConfigError(f"--sbom {out} is the package itself; name another file")
    try:
        write_atomically(out, to_json(view.data))
    except OSError as e:
        raise ConfigError(f"--sbom {out}: cannot be written ({reason(e)}); name another file") from e
    print_view(view, as_json)


def _with_proofs(view: CommandView, package: Path) -> CommandView:
    """The view, and what boards have shown of the package by the manifest beside it."""
    from dlx_deploy.report.proofs import proofs_beside
    from dlx_deploy.report.proven import lines_of_proofs
    from dlx_deploy.runtime.views import Outcome

    proofs = proofs_beside(package)
    if not proofs:
        return view
    data = {**view.data, "proofs": msgspec.to_builtins(proofs)}
    return Outcome(data, "\n".join([view.text, *lines_of_proofs(proofs)]))


def _is_network(what: str) -> bool:
    """Whether ``what`` is the name of a network.

    Raises:
        ConfigError: it looks like one, and there is none of it.
    """
    from dlx_deploy.config.strict import nearest
    from dlx_deploy.nn.models.families import family_of, is_user, model_names
    from dlx_deploy.plugins import provider

    if is_user(what) or family_of(what) is not None or provider("model", what):
        return True
    if not Path(what).exists() and not Path(what).suffix and Path(what).name == what:
        raise ConfigError(f"{what!r} is no file here and no network; {nearest(what, model_names())}")
    return False


def _arguments(given: Sequence[str]) -> dict[str, object]:
    from dlx_deploy.config.strict import parse_toml

    arguments: dict[str, object] = {}
    for one in given:
        key, sign, value = one.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--argument {one!r} is not KEY=VALUE; for instance: --argument width=2.0")
        arguments[key.strip()] = parse_toml(value)
    return arguments
